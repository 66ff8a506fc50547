"""The built wheel: its content, and its captions in a fresh environment without torch."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest
from click.testing import CliRunner

from tests.paths import ROOT
from toolkit.cli import main

pytestmark = pytest.mark.full

PACKAGES = ("toolkit", "exporters", "runtimes")
EXTRAS = ["adapter", "dataset", "dev", "device", "eval", "export", "heif", "ort", "ort-gpu", "peers", "ray", "report", "serve", "torch"]
NOT_SOURCE = (".*", "build", "dist", "*.egg-info", "__pycache__", "node_modules", "*.safetensors")
HEAVY = {"torch", "transformers", "optimum", "onnx", "safetensors", "evaluate", "nltk", "datasets", "psutil", "scipy", "pandas"}


def outside():
    """Return the environment variables without those that point at this checkout."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}


def command(*arguments, cwd):
    """Run a program outside of this checkout and its environment."""
    ended = subprocess.run([str(argument) for argument in arguments], cwd=cwd, env=outside(), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built from a copy of the source, without old build folders."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "source", ignore=shutil.ignore_patterns(*NOT_SOURCE))
    command(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, folder / "source", cwd=folder)
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """`bin` of an environment with the wheel and its extra [ort]."""
    folder = tmp_path_factory.mktemp("installed")
    command(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    command(folder / "venv" / "bin" / "python", "-m", "pip", "install", "--quiet", f"blip-toolkit[ort] @ {wheel.as_uri()}", cwd=folder)
    return folder / "venv" / "bin"


def test_content(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    packed = {name for name in names if ".dist-info/" not in name}
    sources = {str(file.relative_to(ROOT)) for package in PACKAGES for file in (ROOT / package).rglob("*.py")}
    sources = {name for name in sources if not name.startswith("toolkit/bench/peers/")}
    sample = {str(file.relative_to(ROOT)) for file in (ROOT / "toolkit" / "sample").iterdir() if file.suffix in (".jpg", ".json", ".md")}
    calibration = {str(file.relative_to(ROOT)) for file in (ROOT / "exporters" / "calibration").iterdir() if file.suffix in (".jpg", ".md")}
    page = {f"toolkit/report/page.{kind}" for kind in ("html", "css", "js")} | {
        "toolkit/report/sensitivity.html",
        "toolkit/serve/http/page.html",
    }
    assert packed == sources | sample | calibration | page | {f"{package}/py.typed" for package in PACKAGES}
    assert "toolkit/sample/captions.json" in sample
    assert "toolkit/sample/LICENCES.md" in sample
    assert len(sample) >= 8 + 2
    assert "exporters/calibration/LICENCES.md" in calibration
    assert wheel.stat().st_size < 5_000_000


def test_an_index_can_show_the_long_description(wheel):
    """It is the README without images and relative links, which lead nowhere there."""
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    head, _, text = archive.read(name).decode().partition("\n\n")
    assert "Description-Content-Type: text/markdown" in head
    assert text.startswith("# blip-toolkit\n")
    assert "## Quickstart" in text
    assert re.findall(r"<img|<!--|\]\((?!https://)", text) == []
    command(sys.executable, "-m", "twine", "check", "--strict", wheel, cwd=wheel.parent)


def test_wheel_and_source_archive_hold_the_licence(wheel, tmp_path):
    (name,) = [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".dist-info/licenses/LICENSE")]
    assert zipfile.ZipFile(wheel).read(name) == (ROOT / "LICENSE").read_bytes()
    source = shutil.copytree(ROOT, tmp_path / "source", ignore=shutil.ignore_patterns(*NOT_SOURCE))
    command(sys.executable, "-m", "build", "--sdist", "--outdir", tmp_path, source, cwd=tmp_path)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        (member,) = [member for member in packed if member.name.count("/") == 1 and member.name.endswith("/LICENSE")]
        assert packed.extractfile(member).read() == (ROOT / "LICENSE").read_bytes()


def test_metadata(wheel):
    archive = zipfile.ZipFile(wheel)
    (metadata,) = [archive.read(name).decode() for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    lines = metadata.splitlines()
    base = sorted(
        re.match(r"Requires-Dist: ([\w-]+)", line)[1] for line in lines if line.startswith("Requires-Dist: ") and "extra ==" not in line
    )
    assert base == ["click", "numpy", "packaging", "pillow", "tokenizers"]
    extras = sorted(line.split()[1] for line in lines if line.startswith("Provides-Extra: "))
    assert extras == sorted(EXTRAS)
    assert "Requires-Python: >=3.11" in lines
    (entry_points,) = [archive.read(name).decode() for name in archive.namelist() if name.endswith("entry_points.txt")]
    assert entry_points.split() == ["[console_scripts]", "toolkit", "=", "toolkit.cli:main"]


def test_it_installs_no_heavy_packages(installed, tmp_path):
    packages = json.loads(command(installed / "python", "-m", "pip", "list", "--format", "json", cwd=tmp_path).stdout)
    names = {package["name"].lower().replace("_", "-") for package in packages}
    assert {"blip-toolkit", "numpy", "pillow", "tokenizers", "click", "onnxruntime"} <= names
    assert sorted(names & HEAVY) == []


@pytest.mark.parametrize(("artifacts", "recipe"), [("tiny_artifacts", "onnx-fp32"), ("mini_artifacts", "onnx-int8")])
def test_its_captions_equal_those_of_the_source_tree(installed, request, tmp_path, artifacts, recipe):
    artifact = shutil.copytree(request.getfixturevalue(artifacts)[recipe], tmp_path / "artifact")
    for name in ("cat.jpg", "coffee.jpg"):
        shutil.copy(ROOT / "toolkit" / "sample" / name, tmp_path)
    arguments = ["caption", str(artifact), str(tmp_path / "cat.jpg"), str(tmp_path / "coffee.jpg"), "--num-beams", "3", "--json"]
    from_wheel = command(installed / "toolkit", *arguments, cwd=tmp_path)
    from_source = CliRunner().invoke(main, arguments)
    assert (from_source.exit_code, from_wheel.stderr) == (0, "")
    rows, expected = ([json.loads(line) for line in text.splitlines()] for text in (from_wheel.stdout, from_source.stdout))
    assert [row.pop("score") for row in rows] == pytest.approx([row.pop("score") for row in expected], abs=1e-4)
    assert rows == expected
    assert [row["image"] for row in rows] == arguments[2:4]


def test_it_measures_without_a_baseline(installed, tiny_artifacts, tmp_path):
    arguments = ("--limit", "2", "--repeat", "1", "--format", "json", "--output", "r.jsonl")
    ended = command(installed / "toolkit", "bench", tiny_artifacts["onnx-int8"], *arguments, cwd=tmp_path)
    assert ended.stderr.startswith("WARNING no baseline: ")
    assert "pip install 'blip-toolkit[export]'" in ended.stderr
    (row,) = json.loads(ended.stdout)["rows"]
    assert (row["case"], row["error"], row["speedup"]) == ("onnx-int8", None, None)
    assert json.loads(ended.stdout)["workload"]["metric_counter"] == "own"
    again = command(installed / "toolkit", "report", "r.jsonl", "--format", "json", cwd=tmp_path)
    assert again.stdout == ended.stdout


def test_it_has_no_peers_and_the_error_explains_it(installed, tiny_artifacts, tmp_path):
    (tmp_path / "peer").mkdir()
    (tmp_path / "peer" / "peer.json").write_text("{}")
    arguments = [installed / "toolkit", "bench", tiny_artifacts["onnx-int8"], tmp_path / "peer"]
    ended = subprocess.run(arguments, cwd=tmp_path, env=outside(), capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "wheel" in ended.stderr.splitlines()[-1]


def test_the_error_of_export_names_the_extra_to_install(installed, tiny_checkpoint, tmp_path):
    ended = subprocess.run([installed / "toolkit", "export", tiny_checkpoint], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("Error: ")
    assert "pip install 'blip-toolkit[export]'" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_wheels_for_a_device_need_an_index_or_the_clone(installed, mini_artifacts, tmp_path):
    arguments = (installed / "toolkit", "package", mini_artifacts["onnx-int8"], "-o", tmp_path / "captioner.tar.gz", "--with-wheels")
    environment = {**outside(), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    ended = subprocess.run(list(map(str, arguments)), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, list(tmp_path.iterdir())) == (1, [])
    assert "pip install -e" in ended.stderr
