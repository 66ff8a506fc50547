"""Compute with the rounding errors of quantized weights and activations, in FP32 and with gradients.

The codes of weights come from the exporter's own functions, so an exported artifact has bit-equal weights. Activations are rounded as the
operators of ONNX Runtime round them. Gradients pass the rounding unchanged (straight-through estimator, Bengio et al. 2013).

Axes: K inputs, N outputs, R rows, T tokens.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from exporters.onnx.blockwise import quantize_blocks, ranges

INT8_MAX, UINT8_MAX = 127, 255


class Scheme(Protocol):
    """Arithmetic of one layer."""

    def weights(self, weight: Tensor) -> Tensor:
        """Return the values of a weight f32[N,K] after quantization, f32[N,K]."""
        ...

    def activations(self, x: Tensor) -> Tensor:
        """Return the values of activations f32[R,T,K] after quantization, f32[R,T,K]."""
        ...


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
class ChannelScheme:
    """Signed weights with one scale per output, and unsigned activations with one scale per run (`DynamicQuantizeMatMul`)."""

    levels: int
    """Largest code: 127, or 64 with `reduce_range`."""

    def weights(self, weight: Tensor) -> Tensor:
        """See `Scheme.weights`; the formula is that of `onnxruntime.quantization.quant_utils.compute_scale_zp`."""
        scales = (weight.detach().abs().amax(1, keepdim=True).double() / self.levels).float()
        scales = torch.where(scales < torch.finfo(torch.float32).tiny, 1, scales)
        return (weight.detach() / scales).round_().clamp_(-self.levels, self.levels).mul_(scales)

    def activations(self, x: Tensor) -> Tensor:
        """See `Scheme.activations`. Each element of the first axis is one run: the runtime encodes images one by one."""
        rows = x.flatten(1)
        low, high = rows.amin(1).clamp_(max=0), rows.amax(1).clamp_(min=0)
        scale = (high - low) / UINT8_MAX
        scale = torch.where(scale == 0, 1, scale).view(-1, *(1,) * (x.dim() - 1))
        zero = (-low.view_as(scale) / scale).round_().clamp_(0, UINT8_MAX)
        return ((x / scale).round_().add_(zero).clamp_(0, UINT8_MAX).sub_(zero)).mul_(scale)


class _StraightThrough(torch.autograd.Function):
    """Return the second argument; pass the gradient to the first."""

    @staticmethod
    def forward(ctx: object, exact: Tensor, rounded: Tensor) -> Tensor:
        return rounded.view_as(rounded)

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class FakeWeight:
    """The quantized values of one parameter, computed again after it has changed."""

    def __init__(self, parameter: nn.Parameter, scheme: Scheme) -> None:
        self.parameter, self.scheme = parameter, scheme
        self._values, self._version = torch.empty(0), -1

    @property
    def values(self) -> Tensor:
        """The quantized values f32[N,K], without a gradient."""
        if self._version != self.parameter._version:
            self._values, self._version = self.scheme.weights(self.parameter), self.parameter._version
        return self._values

    def __call__(self) -> Tensor:
        """Return the quantized values, with gradients to the parameter."""
        return _StraightThrough.apply(self.parameter, self.values) if self.parameter.requires_grad else self.values


class FakeQuantizedLinear(nn.Module):
    """Linear layer with quantized weights and activations."""

    def __init__(self, layer: nn.Linear, fake: FakeWeight) -> None:
        super().__init__()
        self.weight, self.bias, self.fake = layer.weight, layer.bias, fake

    def forward(self, x: Tensor) -> Tensor:
        """f[R,T,K] → f[R,T,N]."""
        with torch.no_grad():
            rounded = self.fake.scheme.activations(x.float())
        return functional.linear(_StraightThrough.apply(x, rounded.to(x.dtype)), self.fake(), self.bias)


class FakeQuantizedEmbedding(nn.Module):
    """Embedding with quantized rows."""

    def __init__(self, layer: nn.Embedding, fake: FakeWeight) -> None:
        super().__init__()
        self.weight, self.fake = layer.weight, fake

    def forward(self, token_ids: Tensor) -> Tensor:
        """i64[R,T] → f32[R,T,D]."""
        return functional.embedding(token_ids, self.fake())


def fake_quantize(model: nn.Module, schemes: Mapping[str, Scheme], fp16: Collection[str] = ()) -> dict[str, FakeWeight]:
    """Replace the layers of a module by fake-quantized ones, in place. Parameters keep their names.

    Args:
        model: FP32 module.
        schemes: Name of a Linear or Embedding → its scheme.
        fp16: Names of parameters to round to FP16, as the exporter stores them.

    Returns:
        Name of a parameter → its quantized values. A tied parameter appears under its first name.
    """
    fakes: dict[nn.Parameter, FakeWeight] = {}
    for name, scheme in schemes.items():
        layer = model.get_submodule(name)
        fake = fakes.setdefault(layer.weight, FakeWeight(layer.weight, scheme))  # type: ignore[arg-type]
        replacement = (FakeQuantizedLinear if isinstance(layer, nn.Linear) else FakeQuantizedEmbedding)(layer, fake)  # type: ignore[arg-type]
        parent, _, child = name.rpartition(".")
        model.get_submodule(parent).register_module(child, replacement)
    for name in fp16:
        parameter = model.get_parameter(name)
        parameter.data = parameter.data.half().float()
    return {name: fakes[parameter] for name, parameter in model.named_parameters() if parameter in fakes}
