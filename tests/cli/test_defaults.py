"""Commands without an artifact argument: they use build/artifacts and print its path on stderr."""

import json
import shutil

import pytest
from click.testing import CliRunner

from exporters.recipes import find_recipe
from runtimes.host.facts import read_host
from runtimes.selection.ranking import rank_candidates
from toolkit.cli import main
from toolkit.commands.artifact_argument import split_artifact

RECIPES = ("onnx-fp32", "onnx-int8")
BEST = rank_candidates({name: find_recipe(name) for name in RECIPES}, read_host())[0].name


def run(*arguments):
    return CliRunner().invoke(main, list(map(str, arguments)), prog_name="toolkit")


@pytest.fixture
def here(tiny_artifacts, drawn_images, tmp_path, monkeypatch):
    """A project folder with two artifacts in build/artifacts and an image."""
    for name in RECIPES:
        shutil.copytree(tiny_artifacts[name], tmp_path / "build" / "artifacts" / f"tiny-{name}")
    shutil.copy(drawn_images[0].path, tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_caption_uses_the_best_artifact(here):
    named = run("caption", f"build/artifacts/tiny-{BEST}", "image.png", "--json")
    result = run("caption", "image.png", "--json")
    assert (result.exit_code, result.stdout) == (0, named.stdout)
    folder, choice = result.stderr.splitlines()
    assert "build/artifacts" in folder
    assert choice.startswith(f"INFO using tiny-{BEST}: ")
    assert named.stderr == ""


def test_the_first_path_of_caption_may_be_a_folder_of_artifacts_or_of_images(here):
    (here / "images").mkdir()
    shutil.copy("image.png", "images")
    for arguments in (("build/artifacts", "images"), ("images",)):
        result = run("caption", *arguments, "--json")
        assert [json.loads(line)["image"] for line in result.stdout.splitlines()] == ["images/image.png"]


def test_the_error_for_a_package_as_first_path_names_unpack(here):
    (here / "captioner.tar.gz").touch()
    result = run("caption", "captioner.tar.gz", "image.png")
    assert result.exit_code == 1
    assert "toolkit unpack captioner.tar.gz" in result.stderr


def test_an_artifact_without_images_is_a_wrong_command_line(here):
    result = run("caption", f"build/artifacts/tiny-{BEST}")
    assert result.exit_code == 2
    assert "Missing argument 'IMAGE...'" in result.stderr


@pytest.mark.parametrize(
    ("paths", "artifact", "images"),
    [
        (("build/artifacts", "a.jpg"), "build/artifacts", ("a.jpg",)),
        (("build/artifacts/tiny-onnx-int8", "a.jpg", "b"), "build/artifacts/tiny-onnx-int8", ("a.jpg", "b")),
        (("image.png", "build/artifacts"), None, ("image.png", "build/artifacts")),
        (("build", "a.jpg"), None, ("build", "a.jpg")),
        (("*", "a.jpg"), None, ("*", "a.jpg")),
        (("none", "a.jpg"), "none", ("a.jpg",)),
        (("none",), None, ("none",)),
        (("none.tar.gz", "a.jpg"), "none.tar.gz", ("a.jpg",)),
        (("none.jpg", "a.jpg"), None, ("none.jpg", "a.jpg")),
    ],
)
def test_which_path_is_the_artifact(here, paths, artifact, images):
    first, rest = split_artifact(paths)
    assert (first and str(first), rest) == (artifact, images)


def test_verify_and_package_use_the_best_artifact(here):
    result = run("verify", "--json")
    assert json.loads(result.stdout)["artifact"] == f"tiny-{BEST}"
    assert f"build/artifacts/tiny-{BEST}" in result.stderr
    packaged = run("package")
    assert packaged.exit_code == 0
    assert (here / "build" / "artifacts" / f"tiny-{BEST}.tar.gz").is_file()
    assert f"build/artifacts/tiny-{BEST}" in packaged.stderr


def test_doctor_checks_all_artifacts(here):
    result = run("doctor", "--json")
    assert [choice["name"] for choice in json.loads(result.stdout)["artifacts"]] == [
        f"tiny-{name}" for name in sorted(RECIPES, key=lambda name: name != BEST)
    ]
    assert "build/artifacts" in result.stderr


@pytest.mark.slow  # imports torch
def test_doctor_needs_no_artifact(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("doctor", "--json")
    assert (json.loads(result.stdout)["artifacts"], result.stderr) == (None, "")


@pytest.mark.parametrize("command", [("caption", "image.png"), ("verify",), ("package",)])
@pytest.mark.parametrize("folder", [False, True], ids=["no folder", "empty folder"])
def test_without_artifacts_the_error_names_the_remedy(tmp_path, monkeypatch, command, folder):
    monkeypatch.chdir(tmp_path)
    if folder:
        (tmp_path / "build" / "artifacts").mkdir(parents=True)
    result = run(*command)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "build/artifacts" in result.stderr
    assert "toolkit export CHECKPOINT" in result.stderr
