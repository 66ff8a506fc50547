"""The tiny captioner that most tests use: a random checkpoint of 72 k parameters, and its artifacts."""

from pathlib import Path

from exporters.checkpoint.checkpoint import open_checkpoint
from exporters.export import export
from exporters.gate.labelled_image import LabelledImage
from exporters.recipes import RECIPES
from tests.checkpoints import write_random_checkpoint


def write_tiny_checkpoint(folder: Path) -> Path:
    """A third of its captions end early."""
    return write_random_checkpoint(folder, "tiny", seed=11)


def write_tiny_vqa_checkpoint(folder: Path) -> Path:
    """Its answers differ between images and between questions, and some end early."""
    return write_random_checkpoint(folder, "tiny", seed=3, task="vqa")


def write_tiny_matcher(folder: Path) -> Path:
    """Its scores differ between images and between texts."""
    return write_random_checkpoint(folder, "tiny", seed=11, task="matching")


def export_tiny(checkpoint: Path, images: list[LabelledImage], output: Path) -> dict[str, Path]:
    """Recipe name → artifact, all shipped recipes; the weights are random, so the gate refuses nothing."""
    paths = export(open_checkpoint(str(checkpoint)), RECIPES, output, images, on_gate_failure="write")
    return dict(zip([recipe.name for recipe in RECIPES], paths, strict=True))
