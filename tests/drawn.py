"""Drawn images with captions and questions of words that the tiny checkpoint knows, without torch."""

from pathlib import Path

import numpy as np
from PIL import Image

from exporters.gate.labelled_image import LabelledImage

_WORDS = """
a the of on in with and is at by to an two red blue green white black big small old young man woman child dog cat bird horse cow
bed table chair house tree street car train boat ball picture photo plate bowl food large water snow grass
sitting standing riding eating ##s ##ing . ,
"""
TINY_WORDS = tuple(_WORDS.split())


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


def ask_about(images: list[LabelledImage]) -> list[LabelledImage]:
    """Give each image a question of one to 30 words; its captions become answers."""
    word = np.random.default_rng(2)
    lengths = word.integers(1, 31, size=len(images))
    texts = (" ".join(word.choice(TINY_WORDS[:40], size=size)) for size in lengths)
    return [LabelledImage(image.path, image.texts, text) for image, text in zip(images, texts, strict=True)]
