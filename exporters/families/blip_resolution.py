"""Smaller images for the same weights: sizes and the vision tower's positions go in; those of fewer patches per side come out.

A vision transformer costs time by its tokens, and those are the square of the patches per side. Dosovitskiy et al. 2021 (ViT, section 3.2)
fine-tune at other resolutions with the learned positions interpolated in two dimensions; here nothing is trained again. N tokens, D width.
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from runtimes.artifact.manifest import ImageSpec
from runtimes.families.blip import BlipSpec


def resized(shape: BlipSpec, image: ImageSpec, scale: float) -> tuple[BlipSpec, ImageSpec]:
    """Return the sizes for images of `scale` times the patches per side, rounded down to whole ones, at least one."""
    side_px = max(1, int(shape.image_px // shape.patch_px * scale)) * shape.patch_px
    return replace(shape, image_px=side_px), replace(image, height_px=side_px, width_px=side_px)


def interpolate_positions(positions: Tensor, shape: BlipSpec) -> Tensor:
    """Positions f32[1,N,D], first that of the class token, then a square of patches by rows → f32[1,N',D] for the N' tokens of `shape`.

    Bicubic between patch centres, as transformers' `interpolate_pos_encoding` does it. Bilinear, nearest, with antialiasing or with
    aligned corners, the shipped model's drift is the same within 0.005 nat/token.
    """
    if positions.shape[1] == shape.vision_tokens:
        return positions
    width = positions.shape[2]
    before, after = round((positions.shape[1] - 1) ** 0.5), shape.image_px // shape.patch_px
    square = positions[:, 1:].reshape(1, before, before, width).permute(0, 3, 1, 2)
    patches = functional.interpolate(square, size=(after, after), mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :1], patches.permute(0, 2, 3, 1).reshape(1, -1, width)], dim=1)
