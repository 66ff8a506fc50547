"""The arithmetic of each format of a layer, by engine: which weights and which activations a product computes with.

Approximations: products are added in FP32 instead of INT32. 4-bit weights are rounded to nearest, while exports round them with GPTQ, which
loses less. Tensors that belong to no layer (positions, patches) stay in FP32, while quantized graphs store them in FP16.
`tests/exporters/emulation` compares the drift with that of artifacts.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from exporters.finetune.fake_quantize import BlockScheme, ChannelScheme, Scheme
from exporters.onnx.blockwise import BITS, SMALLEST_BLOCK
from exporters.recipes import Layer
from runtimes.engines.pytorch.int8_layers import quantize_rows
from runtimes.errors import RecipeError

TORCH_ACTIVATION_CODES = 127
"""Largest activation code of `runtimes.engines.pytorch.int8_layers.Int8Linear`: 7 bits."""
ORT_CODES = {False: 127, True: 64}
"""`Layer.reduce_range` → largest weight code."""


@dataclass(frozen=True)
class HalfScheme:
    """Weights stored in FP16, activations in FP32."""

    def weights(self, weight: Tensor) -> Tensor:
        """See `Scheme.weights`."""
        return weight.detach().half().float()

    def activations(self, x: Tensor) -> Tensor:
        """See `Scheme.activations`."""
        return x


@dataclass(frozen=True)
class TorchScheme:
    """Full-range weights with one scale per output, and 7-bit activations with one scale per run (`quantized.linear_dynamic`)."""

    def weights(self, weight: Tensor) -> Tensor:
        """See `Scheme.weights`."""
        codes, scales = quantize_rows(weight.detach())
        return codes.float() * scales[:, None]

    def activations(self, x: Tensor) -> Tensor:
        """See `Scheme.activations`. Each element of the first axis is one run."""
        runs = x.flatten(1)
        low, high = runs.amin(1).clamp(max=0), runs.amax(1).clamp(min=0)
        scale = ((high - low) / TORCH_ACTIVATION_CODES).clamp(min=torch.finfo(torch.float32).tiny).view(-1, *(1,) * (x.dim() - 1))
        zero = (-low.view_as(scale) / scale).round()
        return ((x / scale).round() + zero).clamp(0, TORCH_ACTIVATION_CODES).sub(zero).mul(scale)


def scheme_of(layer: Layer, *, inputs: int, is_table: bool, runtime: str) -> Scheme | None:
    """Return the arithmetic of a layer, or None for FP32.

    Args:
        layer: The format.
        inputs: Number of inputs, K.
        is_table: Whether the weights are word embeddings, too.
        runtime: Engine of the artifact.

    Raises:
        RecipeError: The format has unsigned weights or one scale per tensor.
    """
    if layer.weights == "fp16":
        return HalfScheme()
    if not layer.quantized:
        return None
    if runtime == "torch":
        return TorchScheme()
    if layer.block_size is not None:
        block = min(layer.block_size, inputs & -inputs)
        return BlockScheme(BITS[layer.weights], block, is_table=is_table) if block >= SMALLEST_BLOCK else None
    if layer.weights != "qint8" or not layer.per_channel:
        raise RecipeError("a search of formats supports qint8 weights per channel or in blocks, and qint4 weights in blocks")
    return ChannelScheme(levels=ORT_CODES[layer.reduce_range])
