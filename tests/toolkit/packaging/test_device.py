"""A device without a network: it installs from a package, verifies it, and captions as the build machine does."""

import json
import sys
import zipfile

import pytest
from click.testing import CliRunner

from tests.toolkit.packaging.test_wheel import HEAVY, ROOT, command
from toolkit.cli import main

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def package(mini_artifacts, tmp_path_factory):
    """(archive with wheels, digest)."""
    path = tmp_path_factory.mktemp("device") / "captioner.tar.gz"
    ended = CliRunner().invoke(main, ["package", str(mini_artifacts["onnx-int8"]), "-o", str(path), "--with-wheels"])
    assert (ended.exit_code, ended.stderr) == (0, "")
    printed, digest_line = ended.stdout.splitlines()
    assert printed == str(path)
    return path, digest_line.removeprefix("digest ")


@pytest.fixture(scope="module")
def device(package, tmp_path_factory):
    """(unpacked folder, `bin` of an environment installed only from this folder)."""
    folder = tmp_path_factory.mktemp("offline")
    ended = CliRunner().invoke(main, ["unpack", str(package[0]), "-o", str(folder / "stick"), "--digest", package[1]])
    assert (ended.exit_code, ended.stdout) == (0, f"{folder / 'stick'}\n")
    command(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    pip = (folder / "venv" / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-index", "--find-links", ".", "--require-hashes")
    command(*pip, "-r", "requirements.txt", cwd=folder / "stick")
    return folder / "stick", folder / "venv" / "bin"


def test_it_installs_without_torch(device):
    packages = json.loads(command(device[1] / "python", "-m", "pip", "list", "--format", "json", cwd=device[0]).stdout)
    names = {package["name"].lower().replace("_", "-") for package in packages}
    assert {"blip-toolkit", "numpy", "pillow", "tokenizers", "click", "onnxruntime", "psutil"} <= names
    assert sorted(names & (HEAVY - {"psutil"})) == []


def test_it_unpacks_verifies_and_captions(device, package, tmp_path):
    toolkit, image = device[1] / "toolkit", ROOT / "toolkit" / "sample" / "cat.jpg"
    command(toolkit, "unpack", package[0], "-o", "captioner", "--digest", package[1], cwd=tmp_path)
    report = json.loads(command(toolkit, "verify", "captioner", "--digest", package[1], "--untrusted", "--json", cwd=tmp_path).stdout)
    assert (report["digest"], report["authentic"], report["sandboxed"]) == (package[1], True, True)
    golden = report["golden"]
    assert (golden["captions"], golden["equal"] + len(golden["ties"]), golden["differences"]) == (6, 6, [])
    caption = json.loads(command(toolkit, "caption", "captioner", image, "--json", cwd=tmp_path).stdout)
    recorded = json.loads((tmp_path / "captioner" / "golden.json").read_bytes())["images"][0]["captions"][0]
    if golden["equal"] == golden["captions"]:  # otherwise this machine rounds differently, and the differences are ties
        assert caption["token_ids"] == recorded["token_ids"]


def test_its_wheel_contains_the_licence(device):
    (wheel,) = device[0].glob("blip_toolkit-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/licenses/LICENSE")]
        assert archive.read(name) == (ROOT / "LICENSE").read_bytes()
