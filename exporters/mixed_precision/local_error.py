"""Estimate how much the format of a single layer adds to drift, without evaluating the model.

A format changes the output y of a layer by e. To second order, the divergence from FP32 grows by half the squared product of e with the
gradient of the captions' log-probability with respect to y (the Fisher information; Theis et al. 2018, "Faster gaze prediction with dense
networks and Fisher pruning"). Gradients and inputs are recorded in one pass; then each format costs one product per layer. The estimates of
layers are added up, which ignores that errors of layers can cancel out or amplify each other.

Axes: I images, R sampled rows, K inputs, N outputs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from exporters.emulation.drift import Emulation, Example
from exporters.emulation.model import EmulatedLinear
from exporters.recipe import Layer
from runtimes.engines.pytorch.threads import CpuThreads

ROWS = 48
"""Rows per image and layer. Their probability is proportional to gradient times activation, so that tokens with outliers are included."""
SEED = 0


@dataclass
class Samples:
    """Inputs of a Linear and gradients with respect to its outputs, at sampled rows."""

    inputs: list[Tensor] = field(default_factory=list)
    """Per image f32[R+2,K]. The last two rows are the least and the greatest input of the image, which fix the scale of a run."""
    gradients: list[Tensor] = field(default_factory=list)
    """Per image f32[R,N]."""
    weights: list[Tensor] = field(default_factory=list)
    """Per image f32[R]: the inverse of the expected number of times that a row is sampled."""
    rows: int = 0
    """Rows of one run, before sampling."""


class LocalErrors:
    """Recorded samples of all layers of a model, and the estimated drift of each format."""

    def __init__(self, emulation: Emulation, examples: Sequence[Example]) -> None:
        """Run the FP32 model forward and backward once per image."""
        self._model = emulation.model
        self._model.use({})
        self._samples: dict[EmulatedLinear, Samples] = {linear: Samples() for each in self._model.layers.values() for linear in each}
        self._tokens = sum(each.tokens for each in examples)
        generator = torch.Generator().manual_seed(SEED)
        hooks = [linear.register_forward_hook(_recorder(samples, generator)) for linear, samples in self._samples.items()]
        try:
            with CpuThreads(emulation.threads):
                for example in examples:
                    _log_probability(self._model.module, example, emulation.prepared.tokenizer.pad_id).backward()
        finally:
            for hook in hooks:
                hook.remove()

    def rows(self, layer: str) -> int:
        """Return the number of rows that a layer has in one run."""
        return self._samples[self._model.layers[layer][0]].rows

    @torch.inference_mode()
    def drift(self, layer: str, layer_format: Layer) -> float:
        """Return the estimated drift in nat per token if only this layer has this format."""
        scheme = self._model.scheme(layer, layer_format)
        if scheme is None:
            return 0.0
        total = 0.0
        for linear in self._model.layers[layer]:
            samples, rounded = self._samples[linear], scheme.weights(linear.weight)
            if not samples.inputs:  # a table that is only looked up
                continue
            inputs = torch.stack(samples.inputs)
            exact = functional.linear(inputs[:, :-2], linear.weight)
            error = functional.linear(scheme.activations(inputs)[:, :-2], rounded) - exact
            change = (error * torch.stack(samples.gradients)).sum(-1)
            total += float((torch.stack(samples.weights) * change.square()).sum())
        return total / 2 / self._tokens


def _recorder(samples: Samples, generator: torch.Generator) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    """Return a forward hook that records inputs and gradients of a layer."""

    def forward(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        inputs = arguments[0].detach().flatten(0, -2)
        samples.rows = len(inputs)

        def backward(gradient: Tensor) -> None:
            gradients = gradient.flatten(0, -2)
            importance = gradients.norm(dim=-1) * inputs.abs().amax(dim=-1)
            importance = importance / importance.sum().clamp_min(torch.finfo(torch.float32).tiny) + 1 / len(importance)
            index = torch.multinomial(importance, ROWS, replacement=True, generator=generator)
            ends = torch.stack([inputs.amin().expand(inputs.shape[1]), inputs.amax().expand(inputs.shape[1])])
            samples.inputs.append(torch.cat([inputs[index], ends]))
            samples.gradients.append(gradients[index].clone())
            samples.weights.append(importance.sum() / importance[index] / ROWS)

        tracked = output if output.requires_grad else output.requires_grad_()
        tracked.register_hook(backward)
        return tracked

    return forward


def _log_probability(module: Any, example: Example, pad_id: int) -> Tensor:  # noqa: ANN401 - the family's module
    """Return the sum of log-probabilities of an example's captions, with a graph for the backward pass."""
    width = max(map(len, example.captions)) - 1
    fed = np.full((len(example.captions), width), pad_id, dtype=np.int64)
    targets = np.full((len(example.captions), width), -1, dtype=np.int64)
    for row, ids in enumerate(example.captions):
        fed[row, : len(ids) - 1], targets[row, : len(ids) - 1] = ids[:-1], ids[1:]
    shape = module.shape
    inputs = {name: torch.from_numpy(array) for name, array in example.inputs.items()}
    inputs["pixels"].requires_grad_()
    cross = module.cross(**inputs)
    empty = torch.zeros(len(fed), shape.text_heads, 0, shape.head_width)
    logits, _ = module.decode(torch.from_numpy(fed), torch.arange(width), [empty] * len(cross), cross)
    return -functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(targets).flatten(), ignore_index=-1, reduction="sum")
