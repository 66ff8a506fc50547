"""The Makefile: which artifacts are out of date, and how many commands make them."""

import os
import shutil
import subprocess

import pytest

from tests.paths import ROOT

RECIPES = ("onnx-int4", "onnx-int8")
SOURCES = ("exporters/onnx/build.py", "exporters/recipes.py", "runtimes/tasks/captioner.py", "models/blip-mini-coco/config.json")


@pytest.fixture
def project(tmp_path):
    """A copy of what the rules look at, with two artifacts that are newer than all of it."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for folder in ("exporters", "runtimes"):
        shutil.copytree(
            ROOT / folder, tmp_path / folder, ignore=lambda _, names: [name for name in names if name.endswith((".jpg", ".pyc"))]
        )
    checkpoint = tmp_path / "models" / "blip-mini-coco"
    checkpoint.mkdir(parents=True)
    (checkpoint / "config.json").write_text("{}")
    newest = max(file.stat().st_mtime for file in tmp_path.rglob("*"))
    for recipe in RECIPES:
        manifest = manifest_of(tmp_path, recipe)
        manifest.parent.mkdir(parents=True)
        manifest.touch()
        os.utime(manifest, (newest + 10, newest + 10))
    return tmp_path


def manifest_of(project, recipe):
    return project / "build" / "artifacts" / f"blip-mini-coco-{recipe}" / "manifest.json"


def exports(project):
    """The export commands that make would run."""
    command = ["make", "--dry-run", "artifacts", f"RECIPES={' '.join(RECIPES)}"]
    ended = subprocess.run(command, cwd=project, capture_output=True, text=True, check=True)
    return [line for line in ended.stdout.splitlines() if "toolkit export" in line]


def change(project, source):
    later = manifest_of(project, "onnx-int8").stat().st_mtime + 10
    os.utime(project / source, (later, later))


def test_artifacts_that_are_newer_than_their_sources_are_kept(project):
    assert exports(project) == []


@pytest.mark.parametrize("source", SOURCES)
def test_a_changed_source_makes_every_artifact_again_with_one_command(project, source):
    change(project, source)
    (command,) = exports(project)
    assert [word for word in command.split() if word in RECIPES] == list(RECIPES)
    assert "--overwrite" in command


def test_an_absent_artifact_is_made_alone(project):
    manifest_of(project, "onnx-int8").unlink()
    (command,) = exports(project)
    assert [word for word in command.split() if word in RECIPES] == ["onnx-int8"]
