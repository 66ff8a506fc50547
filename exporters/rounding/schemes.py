"""The values that a product computes with in each format of a layer, by engine, in FP32.

Weights in blocks have the values of `quantize_blocks`, which exports store too, except where GPTQ rounds them. Other weights and all
activations are rounded with the formulas of the engines. `tests/exporters/rounding` compares them with the operators.

Two things differ from an artifact. Products are added in FP32 instead of INT32. Tensors that belong to no layer (positions, patches) stay
in FP32, while quantized graphs store them in FP16.

Axes: K inputs, N outputs, R rows, T tokens.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from exporters.recipe import Layer
from exporters.rounding.blocks import blocks_of, quantize_blocks, ranges
from runtimes.engines.pytorch.int8_layers import quantize_rows

INT8_MAX, UINT8_MAX, UINT7_MAX = 127, 255, 127
"""Largest codes. `runtimes.engines.pytorch.int8_layers.Int8Linear` has activations of 7 bits."""
LEVELS = {("qint8", False): (-127, 127), ("qint8", True): (-64, 64), ("quint8", False): (0, 255), ("quint8", True): (0, 127)}
"""Weights and `reduce_range` → range of codes of ONNX Runtime's quantizer (`onnxruntime.quantization.quant_utils`)."""


class Scheme(Protocol):
    """Arithmetic of one layer."""

    def weights(self, weight: Tensor) -> Tensor:
        """Return the values of a weight f32[N,K] after quantization, f32[N,K]."""
        ...

    def activations(self, x: Tensor) -> Tensor:
        """Return the values of activations f32[R,T,K] after quantization, f32[R,T,K]. Each element of the first axis is one run."""
        ...


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
class BlockScheme:
    """Weights in blocks of inputs (`MatMulNBits`, `GatherBlockQuantized`)."""

    bits: int
    block: int
    is_table: bool
    """Whether the weight is a table of word embeddings."""

    def weights(self, weight: Tensor) -> Tensor:
        """See `Scheme.weights`."""
        values = weight.detach().cpu().numpy().T
        codes, scales = quantize_blocks(values, self.bits, self.block, ranges(self.bits, is_table=self.is_table))
        signed = torch.from_numpy(codes).float() - float(1 << (self.bits - 1))
        return (signed * torch.from_numpy(scales).unsqueeze(-1)).flatten(1).to(weight.device)

    def activations(self, x: Tensor) -> Tensor:
        """See `Scheme.activations`: one scale per row and block, absmax / 127, rounded half to even (mlas, QuantizeARow_CompInt8)."""
        blocks = x.unflatten(-1, (-1, self.block))
        largest = blocks.abs().amax(-1, keepdim=True)
        inverse = torch.where(largest > 0, INT8_MAX / largest, 0)
        return ((blocks * inverse).round_() * (largest / INT8_MAX)).flatten(-2)


@dataclass(frozen=True)
class DynamicScheme:
    """Weights with one scale per output or per tensor, and unsigned activations with one scale per run (`DynamicQuantizeMatMul`)."""

    lowest: int
    """Smallest code: 0, or minus the largest one. Then weights are symmetric."""
    largest: int
    per_channel: bool = True

    def weights(self, weight: Tensor) -> Tensor:
        """See `Scheme.weights`; the formulas are those of `onnxruntime.quantization.quant_utils.compute_scale_zp`."""
        rows = weight.detach() if self.per_channel else weight.detach().flatten()[None]
        low, high = rows.amin(1, keepdim=True).clamp_(max=0).double(), rows.amax(1, keepdim=True).clamp_(min=0).double()
        if self.lowest:
            high = torch.maximum(-low, high)
            low = -high
        scale = (high - low) / (self.largest - self.lowest)
        used = scale >= torch.finfo(torch.float32).tiny
        zero = torch.where(used, (self.lowest - low / scale).round(), 0).float()
        scale = torch.where(used, scale, 1).float()
        codes = (rows / scale).round_().add_(zero).clamp_(self.lowest, self.largest)
        return codes.sub_(zero).mul_(scale).view_as(weight)

    def activations(self, x: Tensor) -> Tensor:
        """See `Scheme.activations`."""
        return _rounded_per_run(x, UINT8_MAX)


@dataclass(frozen=True)
class TorchScheme:
    """Full-range weights with one scale per output, and 7-bit activations with one scale per run (`quantized.linear_dynamic`)."""

    def weights(self, weight: Tensor) -> Tensor:
        """See `Scheme.weights`."""
        codes, scales = quantize_rows(weight.detach())
        return codes.float() * scales[:, None]

    def activations(self, x: Tensor) -> Tensor:
        """See `Scheme.activations`."""
        return _rounded_per_run(x, UINT7_MAX)


def scheme_of(layer: Layer, *, inputs: int, is_table: bool, runtime: str) -> Scheme | None:
    """Return the arithmetic of a layer, or None for FP32.

    Args:
        layer: The format.
        inputs: Number of inputs, K.
        is_table: Whether the weights are word embeddings, too.
        runtime: Engine of the artifact.
    """
    if layer.weights == "fp16":
        return HalfScheme()
    if not layer.quantized:
        return None
    if runtime == "torch":
        return TorchScheme()
    if layer.block_size is not None:
        blocks = blocks_of(layer, inputs)
        return BlockScheme(blocks.bits, blocks.size, is_table=is_table) if blocks else None
    return DynamicScheme(*LEVELS[layer.weights, layer.reduce_range], per_channel=layer.per_channel)


def _rounded_per_run(x: Tensor, largest: int) -> Tensor:
    """Round x f32[R,...] to codes from 0 to `largest`, with one scale and zero point per element of the first axis."""
    runs = x.flatten(1)
    low, high = runs.amin(1).clamp_(max=0), runs.amax(1).clamp_(min=0)
    scale = (high - low) / largest
    scale = torch.where(scale == 0, 1, scale).view(-1, *(1,) * (x.dim() - 1))
    zero = (-low.view_as(scale) / scale).round_().clamp_(0, largest)
    return (x / scale).round_().add_(zero).clamp_(0, largest).sub_(zero).mul_(scale)
