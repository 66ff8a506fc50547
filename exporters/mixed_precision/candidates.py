"""The formats that a search tries for a layer, and the bytes of a layer in each."""

from collections.abc import Mapping
from dataclasses import replace

from exporters.recipe import Component, Layer, Recipe
from exporters.rounding.blocks import BITS, SMALLEST_BLOCK

FORMATS: Mapping[str, tuple[Layer, ...]] = {
    "ort": (
        Layer(weights="qint4", block_size=32),
        *(Layer(weights="qint8", block_size=size) for size in (64, 32)),
        Layer(weights="fp16"),
        Layer(),
    ),
    "torch": (Layer(weights="qint8", per_channel=True), Layer()),
}
"""Engine → formats of a layer, from the smallest to the most exact. With these blocks, a row alone and among others has equal bits."""

HALF_BYTES, FLOAT_BYTES = 2, 4


def candidates(recipe: Recipe, component: str) -> tuple[Layer, ...]:
    """Return the formats to try for the layers of a component: its own format in the recipe, and those of the engine."""
    return tuple(dict.fromkeys((recipe.component(component).own_format, *FORMATS[recipe.runtime])))


def stored_bytes(layer_format: Layer, inputs: int, outputs: int) -> int:
    """Return the bytes of a layer's weights f[N,K] with their scales and zero points."""
    values = inputs * outputs
    if not layer_format.quantized:
        return values * (HALF_BYTES if layer_format.weights == "fp16" else FLOAT_BYTES)
    if layer_format.block_size is None:
        return values + outputs * (FLOAT_BYTES + 1)
    block = min(layer_format.block_size, inputs & -inputs)
    if block < SMALLEST_BLOCK:
        return values * HALF_BYTES
    return values * BITS[layer_format.weights] // 8 + values // block * HALF_BYTES


def with_formats(recipe: Recipe, formats: Mapping[str, Layer], layers: Mapping[str, list[str]]) -> Recipe:
    """Return a recipe whose layers have these formats.

    Args:
        recipe: The recipe; its components keep their smoothing.
        formats: Layer → format. Layers that are not named keep theirs.
        layers: Component → names of its layers, from `Checkpoint.layers`.
    """
    components: dict[str, Component] = {}
    for name, names in layers.items():
        component = recipe.component(name)
        changed = {layer: formats[layer] for layer in names if layer in formats and component.layer(layer) != formats[layer]}
        components[name] = replace(component, layers={**component.layers, **changed})
    return replace(recipe, components=components)
