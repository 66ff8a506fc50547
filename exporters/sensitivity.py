"""Measure how much each layer of a recipe contributes to its drift: only this layer is quantized, then every layer except it.

The formats are emulated in the torch module, so no layer needs an export. Each result is stored in a journal.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from exporters.calibration.activations import Calibration
from exporters.calibration.smoothing import smoothed
from exporters.checkpoint.checkpoint import Checkpoint
from exporters.emulation.drift import Emulation
from exporters.emulation.model import formats_of
from exporters.gate.drift import Drift
from exporters.gate.labelled_image import LabelledImage
from exporters.mixed_precision.journal import DriftJournal
from exporters.mixed_precision.layer_costs import layer_cost
from exporters.mixed_precision.local_error import LocalErrors
from exporters.recipe import Layer, Recipe
from runtimes.errors import RecipeError


@dataclass(frozen=True, kw_only=True)
class LayerSensitivity:
    """The contribution of one layer."""

    layer: str
    component: str
    layer_format: str
    only: Drift
    """Only this layer is quantized."""
    rest: Drift
    """Every layer except this one is quantized."""
    estimate: float
    """Estimated drift of this layer alone, see `mixed_precision.local_error`."""
    bytes_saved: int
    """By its format, compared with FP32."""
    seconds_saved: float
    """Per image, on this machine."""


@dataclass(frozen=True, kw_only=True)
class LayerSensitivities:
    """The contributions of all quantized layers, and the drift of the whole recipe."""

    whole: Drift
    layers: tuple[LayerSensitivity, ...]
    """In descending order of `only - rest`: the layers that gain most from another format come first."""


def measure_sensitivity(
    checkpoint: Checkpoint,
    recipe: Recipe,
    images: Sequence[LabelledImage],
    journal: DriftJournal,
    *,
    calibration: Calibration,
    threads: int,
    on_step: Callable[[str], None] = lambda step: None,
) -> LayerSensitivities:
    """Measure every quantized layer of a recipe.

    Args:
        checkpoint: The checkpoint.
        recipe: A quantized recipe.
        images: Images, with or without captions.
        journal: Results so far; new results are added.
        calibration: Images for smoothing.
        threads: CPU threads.
        on_step: Called with the name of each layer.

    Raises:
        RecipeError: The recipe quantizes no layer.
        ImageReadError: An image cannot be read.
        RequestError: The checkpoint generates no texts.
    """
    checkpoint.require_generator("sensitivity")
    scaled = checkpoint.with_image_scale(recipe.image_scale)
    prepared = smoothed(scaled, recipe, calibration, threads)
    emulation, own = Emulation(checkpoint, prepared, recipe.runtime, threads), formats_of(recipe, checkpoint.layers())
    quantized = [layer for layer in own if emulation.model.scheme(layer, own[layer]) is not None]
    if not quantized:
        raise RecipeError(f"{recipe.name}: no layer of this checkpoint is quantized")
    examples = emulation.examples(images)

    def drift(key: str, formats: dict[str, Layer]) -> Drift:
        return Drift(**journal.result(key, lambda: asdict(emulation.drift(formats, examples))))

    on_step("the whole recipe")
    whole = drift("whole", own)
    errors = LocalErrors(emulation, examples[:8])
    only, rest = dict[str, Drift](), dict[str, Drift]()
    for number, layer in enumerate(quantized, start=1):
        on_step(f"layer {number} of {len(quantized)}: only {layer}")
        only[layer] = drift(f"only {layer}", {layer: own[layer]})
    for number, layer in enumerate(quantized, start=1):  # a loop of its own, so that all layers of the decoder have the same image states
        on_step(f"layer {number} of {len(quantized)}: all except {layer}")
        rest[layer] = drift(f"except {layer}", {name: each for name, each in own.items() if name != layer})
    layers = []
    for layer in quantized:

        def costs(layer: str = layer) -> dict[str, Any]:
            before, after = (layer_cost(emulation, layer, each, errors.rows(layer)) for each in (Layer(), own[layer]))
            saved = {"bytes_saved": before.stored - after.stored, "seconds_saved": before.seconds - after.seconds}
            return {**saved, "estimate": errors.drift(layer, own[layer])}

        component = checkpoint.family.component_of(layer)
        layers.append(
            LayerSensitivity(
                layer=layer,
                component=component,
                layer_format=str(own[layer]),
                only=only[layer],
                rest=rest[layer],
                **journal.result(f"cost {layer}", costs),
            )
        )
    return LayerSensitivities(whole=whole, layers=tuple(sorted(layers, key=lambda each: (each.rest.nat - each.only.nat, each.layer))))
