"""The tiny captioner that most tests use: drawn images, a random checkpoint of 72 k parameters, and its artifacts."""

from pathlib import Path

import numpy as np
from PIL import Image

from exporters.checkpoint.checkpoint import open_checkpoint
from exporters.export import export
from exporters.gate.labelled_image import LabelledImage
from exporters.recipes import RECIPES
from tests.checkpoints import TINY_WORDS, write_random_checkpoint


def draw_images(folder: Path) -> list[LabelledImage]:
    """16 smooth patterns of random colours, each with two captions of words that the tiny checkpoint knows."""
    colour, word = np.random.default_rng(0), np.random.default_rng(1)
    images = []
    for number in range(16):
        colours = Image.fromarray(colour.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        path = folder / f"drawn-{number:02}.png"
        colours.resize((40, 32), Image.Resampling.BICUBIC).save(path)
        captions = tuple(" ".join(word.choice(TINY_WORDS[:40], size=size)) for size in (4, 7))
        images.append(LabelledImage(path, captions))
    return images


def write_tiny_checkpoint(folder: Path) -> Path:
    """A third of its captions end early."""
    return write_random_checkpoint(folder, "tiny", seed=11)


def write_tiny_vqa_checkpoint(folder: Path) -> Path:
    """Its answers differ between images and between questions, and some end early."""
    return write_random_checkpoint(folder, "tiny", seed=3, task="vqa")


def write_tiny_matcher(folder: Path) -> Path:
    """Its scores differ between images and between texts."""
    return write_random_checkpoint(folder, "tiny", seed=11, task="matching")


def ask_about(images: list[LabelledImage]) -> list[LabelledImage]:
    """Give each image a question of one to 30 words; its captions become answers."""
    word = np.random.default_rng(2)
    lengths = word.integers(1, 31, size=len(images))
    texts = (" ".join(word.choice(TINY_WORDS[:40], size=size)) for size in lengths)
    return [LabelledImage(image.path, image.captions, text) for image, text in zip(images, texts, strict=True)]


def export_tiny(checkpoint: Path, images: list[LabelledImage], output: Path) -> dict[str, Path]:
    """Recipe name → artifact, all shipped recipes; the weights are random, so the gate refuses nothing."""
    paths = export(open_checkpoint(str(checkpoint)), RECIPES, output, images, on_gate_failure="write")
    return dict(zip([recipe.name for recipe in RECIPES], paths, strict=True))
