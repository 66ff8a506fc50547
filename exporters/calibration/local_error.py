"""Compute the error of a linear layer's outputs that a recipe's quantization makes, on recorded activations.

Weights and activations are rounded as the engines round them: weights with the recipe's scales; activations with one range per run, or
with one scale per row and block for weights in blocks.
"""

import torch
from torch import Tensor

from exporters.calibration.activations import Activations
from exporters.recipes import Layer

BITS = {"qint8": 8, "quint8": 8, "qint4": 4}
BLOCK_ACTIVATION_BITS = 8
SMALLEST = torch.finfo(torch.float32).tiny
"""Smallest scale: a range of 0 must not divide by 0."""


def squared_error(activations: Activations, weight: Tensor, scales: Tensor, layer: Layer, activation_bits: int) -> float:
    """Return the sum of squared errors of the layer's outputs on the kept rows.

    Args:
        activations: Inputs of the layer.
        weight: f32[N,C].
        scales: f32[C]. The inputs are divided by them and the weights multiplied.
        layer: How the weights are stored; quantized.
        activation_bits: Bits of an activation if weights are not in blocks.
    """
    block = None if layer.block_size is None else min(layer.block_size, weight.shape[1] & -weight.shape[1])
    rows = activations.rows / scales
    if block is None:
        lowest = (activations.lowest / scales).amin(dim=1).clamp_max(0)[:, None, None]
        highest = (activations.highest / scales).amax(dim=1).clamp_min(0)[:, None, None]
        rounded = _rounded_range(rows, lowest, highest, activation_bits)
    else:
        rounded = _rounded_magnitude(rows.unflatten(-1, (-1, block)), BLOCK_ACTIVATION_BITS).flatten(-2)
    outputs = rounded @ rounded_weight(weight * scales, layer, block).T
    return float((outputs - activations.rows @ weight.T).square().sum())


def rounded_weight(weight: Tensor, layer: Layer, block: int | None) -> Tensor:
    """Return a weight f32[N,C] after quantization, f32[N,C].

    Args:
        weight: The weight.
        layer: How it is stored; quantized.
        block: Inputs per block that the exporter uses, or None.
    """
    bits = BITS[layer.weights] - layer.reduce_range
    if block is not None:
        return _rounded_magnitude(weight.unflatten(-1, (-1, block)), bits).flatten(-2)
    rows = weight if layer.per_channel else weight.flatten()[None]
    if layer.weights == "quint8":
        lowest, highest = rows.amin(dim=1, keepdim=True).clamp_max(0), rows.amax(dim=1, keepdim=True).clamp_min(0)
        return _rounded_range(rows, lowest, highest, bits).reshape(weight.shape)
    return _rounded_magnitude(rows, bits).reshape(weight.shape)


def _rounded_magnitude(values: Tensor, bits: int) -> Tensor:
    """Round f32[...,n] symmetrically with one scale per last axis."""
    largest = 2 ** (bits - 1) - 1
    scales = (values.abs().amax(dim=-1, keepdim=True) / largest).clamp_min(SMALLEST)
    return torch.round(values / scales) * scales


def _rounded_range(values: Tensor, lowest: Tensor, highest: Tensor, bits: int) -> Tensor:
    """Round with unsigned codes for the range from `lowest` (at most 0) to `highest` (at least 0)."""
    largest = 2**bits - 1
    scales = ((highest - lowest) / largest).clamp_min(SMALLEST)
    zero = torch.round(-lowest / scales)
    return (torch.clamp(torch.round(values / scales) + zero, 0, largest) - zero) * scales
