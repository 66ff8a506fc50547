"""Test the table of families: each entry has a runtime side, and a new family needs a module and one entry on each side."""

import json
import shutil
from dataclasses import replace

import pytest

import runtimes
from exporters.checkpoint.checkpoint import open_checkpoint
from exporters.export import export
from exporters.families.adapter import find_family
from exporters.families.architectures import FAMILIES
from exporters.recipe import Component
from exporters.recipes import find_recipe
from runtimes.errors import RecipeError
from runtimes.families import registry
from tests.exporters.families.other_family import OtherSpec


@pytest.mark.parametrize("architecture", FAMILIES)
def test_every_family_that_is_exported_can_be_run(architecture):
    family = find_family(architecture)
    assert registry.model_class(family.family, family.task) is not None
    assert family.components


def test_an_architecture_without_a_family_has_no_adapter():
    assert find_family("BlipModel") is None


def test_one_entry_on_each_side_adds_a_family(tiny_checkpoint, drawn_images, tmp_path, monkeypatch):
    monkeypatch.setitem(FAMILIES, "OtherForCaptioning", "tests.exporters.families.other_family:OTHER_CAPTION")
    monkeypatch.setitem(registry.FAMILIES, ("other", "caption"), "tests.exporters.families.other_family:OtherSpec")
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "other")
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["OtherForCaptioning"]}))
    recipe = find_recipe("pytorch-fp32")
    paths = []
    for source, output in ((folder, "of-other"), (tiny_checkpoint, "of-blip")):
        paths += export(open_checkpoint(str(source)), [recipe], tmp_path / output, drawn_images[:2], on_gate_failure="write")
    captioners = [runtimes.load(path, device="cpu", threads=1) for path in paths]
    assert [captioner.manifest.family for captioner in captioners] == ["other", "blip"]
    assert type(captioners[0].manifest.model) is OtherSpec
    images = [image.path for image in drawn_images]
    assert captioners[0].caption(images) == captioners[1].caption(images)


def test_a_recipe_with_unknown_components_is_refused_before_the_export_starts(tiny_checkpoint, drawn_images, tmp_path):
    recipe = replace(find_recipe("pytorch-fp32"), components={"question": Component()})
    with pytest.raises(RecipeError, match="question; known: encoder, decoder"):
        list(export(open_checkpoint(str(tiny_checkpoint)), [recipe], tmp_path / "out", drawn_images[:2]))
    assert not (tmp_path / "out").exists()
