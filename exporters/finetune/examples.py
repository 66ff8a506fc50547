"""Images with tokenized captions: examples for training, their split into a training and a held-out part, and batches.

Axes: B images, K captions per image, R = B*K rows, T tokens.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from exporters.checkpoint.checkpoint import Checkpoint
from exporters.gate.labelled_image import LabelledImage
from runtimes.decoding.tokenizer import CaptionTokenizer
from runtimes.errors import DatasetError

MIN_IMAGES = 8
"""Fewer images cannot be split into a training and a held-out part of any use."""
MAX_HELD_OUT = 128
"""Images of the held-out part at most. Its mean KL then has a standard error of a few per cent."""
HELD_OUT_PART = 0.1
MAX_CAPTIONS = 5
"""Captions per image that are used: the number that COCO and Flickr8k have."""


@dataclass(frozen=True)
class TrainingExample:
    """One image and the token ids of its captions, from the start token to the end token."""

    path: Path
    captions: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Rows:
    """Captions of a batch as the decoder takes them. The rows of an image are adjacent."""

    token_ids: Tensor
    """i64[R,T], without the end tokens; padded on the right."""
    counted: Tensor
    """bool[R,T]: whether the next token belongs to the caption."""


def tokenized(images: Sequence[LabelledImage], checkpoint: Checkpoint) -> list[TrainingExample]:
    """Return the examples of a dataset.

    Raises:
        DatasetError: An image has no captions, or there are fewer than `MIN_IMAGES` images.
    """
    if bare := [image for image in images if not image.texts]:
        raise DatasetError(str(bare[0].path), f"has no captions ({len(bare)} of {len(images)} images); fine-tuning needs them")
    check_count(len(images))
    tokenizer = CaptionTokenizer(checkpoint.tokenizer_json, checkpoint.tokenizer)
    limit = checkpoint.model.max_positions
    return [
        TrainingExample(image.path, tuple(tuple(tokenizer.text_ids(caption)[:limit]) for caption in image.texts[:MAX_CAPTIONS]))
        for image in images
    ]


def check_count(images: int) -> None:
    """Raise DatasetError if there are too few images."""
    if images < MIN_IMAGES:
        raise DatasetError("the dataset", f"has {images} readable images with captions; fine-tuning needs at least {MIN_IMAGES}")


def split(count: int, seed: int) -> tuple[list[int], list[int]]:
    """Split the indices of images into a training and a held-out part, each sorted."""
    order = list(range(count))
    random.Random(seed).shuffle(order)  # noqa: S311 - a reproducible split, not a secret
    held_out = max(1, min(MAX_HELD_OUT, round(count * HELD_OUT_PART)))
    return sorted(order[held_out:]), sorted(order[:held_out])


def batches(examples: Sequence[TrainingExample], chosen: Sequence[int], size: int, seed: int, epoch: int) -> list[list[int]]:
    """Return the batches of an epoch as indices of examples. A batch has images with similar numbers of captions, to save padding.

    Args:
        examples: All examples.
        chosen: Indices of the examples of the epoch.
        size: Images per batch; the last batch may have fewer.
        seed: Seed of the order.
        epoch: Number of the epoch; each has its own order.
    """
    generator = random.Random(f"{seed} {epoch}")  # noqa: S311 - a reproducible order
    order = list(chosen)
    generator.shuffle(order)
    order.sort(key=lambda index: len(examples[index].captions))
    parts = [order[start : start + size] for start in range(0, len(order), size)]
    generator.shuffle(parts)
    return parts


def rows_of(examples: Sequence[TrainingExample], pad_id: int) -> Rows:
    """Return the captions of examples as rows. An image with fewer captions than another gets empty rows."""
    count = max(len(example.captions) for example in examples)
    width = max(len(caption) for example in examples for caption in example.captions) - 1
    token_ids = torch.full((len(examples) * count, width), pad_id)
    counted = torch.zeros(len(examples) * count, width, dtype=torch.bool)
    for position, example in enumerate(examples):
        for row, caption in enumerate(example.captions, start=position * count):
            token_ids[row, : len(caption) - 1] = torch.tensor(caption[:-1])
            counted[row, : len(caption) - 1] = True
    return Rows(token_ids, counted)
