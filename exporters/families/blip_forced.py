"""Logits of given tokens from a BLIP module in two stages, for fine-tuning; see `exporters.families.adapter.ForcedDecoding`.

Axes: B images, R decoder rows (a multiple of B), S pixels per side, N vision tokens, T tokens, V vocabulary, D width, H heads, Dh width
of a head.
"""

import torch
from torch import Tensor

from exporters.families.adapter import ForcedDecoding
from runtimes.engines.pytorch.blip import Blip


def image_states(model: Blip, pixels: Tensor) -> Tensor:
    """Compute image states f[B,N,D] from pixels f32[B,3,S,S]."""
    states: Tensor = model.vision_model(pixels)
    return states


def forced_logits(model: Blip, states: Tensor, token_ids: Tensor) -> Tensor:
    """Compute logits f32[R,T,V] of the token after each of token_ids i64[R,T], from image states f[B,N,D]."""
    shape = model.shape
    cross = [tensor for layer in model.text_decoder.layers for tensor in layer.get_submodule("crossattention").key_value(states)]  # type: ignore[operator]
    empty = states.new_zeros(len(token_ids), shape.text_heads, 0, shape.head_width)
    positions = torch.arange(token_ids.shape[1], device=token_ids.device)
    return model.decode(token_ids, positions, [empty] * (2 * shape.text_layers), cross)[0]


FORCED = ForcedDecoding(
    image_states=image_states,
    forced_logits=forced_logits,
    computes_states=lambda name: name.startswith("vision_model."),
)
