"""Compute with the rounding errors of quantized weights and activations, in FP32 and with gradients.

The values are those of `exporters.rounding`, so an exported artifact has bit-equal weights. Gradients pass the rounding unchanged
(straight-through estimator, Bengio et al. 2013).

Axes: K inputs, N outputs, R rows, T tokens.
"""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from exporters.rounding.schemes import Scheme


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
