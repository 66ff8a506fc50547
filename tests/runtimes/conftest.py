"""Fixtures that several tests of loading share."""

import shutil

import pytest


@pytest.fixture
def folder(tmp_path, tiny_artifacts):
    """A function that copies the artifacts of some recipes into one folder and returns it."""

    def make(*recipes):
        for recipe in recipes:
            shutil.copytree(tiny_artifacts[recipe], tmp_path / "folder" / recipe)
        return tmp_path / "folder"

    return make
