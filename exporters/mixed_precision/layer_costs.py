"""Bytes and time per image of a layer in a format."""

from dataclasses import dataclass

from exporters.emulation.drift import Emulation
from exporters.mixed_precision.candidates import stored_bytes
from exporters.mixed_precision.layer_times import layer_seconds
from exporters.recipe import Layer

TOKENS = 11
"""Tokens per caption: the mean length of COCO's captions."""


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """What a layer costs in a format."""

    stored: int
    """Bytes of its weights and scales."""
    seconds: float
    """Time per image on this machine."""


def layer_cost(emulation: Emulation, layer: str, layer_format: Layer, rows: int) -> LayerCost:
    """Return the cost of a layer.

    Args:
        emulation: The model that has the layer.
        layer: Name of the layer.
        layer_format: The format.
        rows: Rows of a run if the layer runs once per image.
    """
    linears, family = emulation.model.layers[layer], emulation.prepared.family
    outputs, inputs = sum(linear.weight.shape[0] for linear in linears), linears[0].weight.shape[1]
    runs, run_rows = (TOKENS, 1) if family.component_of(layer) in family.per_token else (1, rows)
    seconds = layer_seconds(layer_format, inputs, outputs, run_rows, runtime=emulation.model.runtime, threads=emulation.threads)
    return LayerCost(stored=stored_bytes(layer_format, inputs, outputs), seconds=runs * seconds)
