"""Find the layers of a recipe that need another format, so that an artifact that failed its gate passes it.

Layers are ordered by the estimated drift of their own format (`local_error`). The number of exceptions is found by a binary search over the
measured drift of the emulated model on calibration images. The gate's images are not used.
"""

from collections.abc import Callable, Iterator

from exporters.calibration.activations import SHIPPED
from exporters.checkpoint.checkpoint import Checkpoint
from exporters.emulation.drift import Emulation, evenly_spaced
from exporters.emulation.model import formats_of
from exporters.gate.drift import Drift
from exporters.gate.labelled_image import LabelledImage
from exporters.mixed_precision.candidates import candidates, stored_bytes, with_formats
from exporters.mixed_precision.local_error import LocalErrors
from exporters.recipe import Layer, Recipe

IMAGES = 24
"""Calibration images in use: every third for the estimates, the others to measure drift."""
SHARES = (1.0, 0.25, 0.0)
"""Of each try: the upper bound of the emulated drift as a share of the recipe's limit. 0: the exceptions with the least drift."""
REMAINING = 0.1
"""An exception is the smallest format whose estimated drift is at most this share of that of the layer's own format, and of the layer's
part of the recipe's limit. Without the second bound, layers with large outliers got exceptions that were as bad as the limit."""


def recipes_with_exceptions(checkpoint: Checkpoint, prepared: Checkpoint, recipe: Recipe, threads: int) -> Iterator[Recipe]:
    """Yield a recipe with growing numbers of exceptions, at most `len(SHARES)` times.

    Args:
        checkpoint: The reference.
        prepared: The checkpoint with the image scale and the smoothing of the recipe.
        recipe: Quantized, with a drift limit.
        threads: CPU threads.
    """
    assert recipe.drift_limit_nat is not None
    emulation, layers = Emulation(checkpoint, prepared, recipe.runtime, threads), prepared.layers()
    own = formats_of(recipe, layers)
    examples = emulation.examples([LabelledImage(path, ()) for path in evenly_spaced(SHIPPED, IMAGES)])
    exceptions = Exceptions(emulation, LocalErrors(emulation, examples[::3]), recipe)
    tested = [example for index, example in enumerate(examples) if index % 3]
    measured: dict[int, Drift] = {}

    def within(count: int, limit: float) -> bool:
        if count not in measured:
            measured[count] = emulation.drift(own | exceptions.first(count), tested)
        return measured[count].high <= limit

    count = 0
    for limit in (share * recipe.drift_limit_nat for share in SHARES):
        if count == len(exceptions):
            return
        count = smallest(count + 1, len(exceptions), lambda number, limit=limit: within(number, limit))  # type: ignore[misc]
        yield with_formats(recipe, exceptions.first(count), layers)


class Exceptions:
    """The quantized layers of a recipe in descending order of their estimated drift, with the best other format of each."""

    def __init__(self, emulation: Emulation, errors: LocalErrors, recipe: Recipe) -> None:
        self._emulation, self._errors, self._recipe = emulation, errors, recipe
        self._drift: list[tuple[float, str, str]] = []  # estimated drift, component, layer
        for component, layers in emulation.prepared.layers().items():
            for layer in layers:
                if (drift := errors.drift(layer, recipe.component(component).layer(layer))) > 0:
                    self._drift.append((drift, component, layer))
        self._drift.sort(key=lambda each: (-each[0], each[2]))
        assert recipe.drift_limit_nat is not None
        self._limit_of_a_layer = recipe.drift_limit_nat / max(len(self._drift), 1)
        self._best: dict[str, Layer] = {}

    def __len__(self) -> int:
        return len(self._drift)

    def first(self, count: int) -> dict[str, Layer]:
        """Return the exceptions of the first layers: layer → format."""
        for drift, component, layer in self._drift[:count]:
            if layer not in self._best:
                self._best[layer] = self._other_format(drift, component, layer)
        return {layer: self._best[layer] for _, _, layer in self._drift[:count]}

    def _other_format(self, drift: float, component: str, layer: str) -> Layer:
        """Return the smallest format whose drift is small enough; see `REMAINING`. FP32 has none, so there is always one."""
        outputs, inputs = self._emulation.model.layers[layer][0].weight.shape
        by_size = sorted(candidates(self._recipe, component), key=lambda each: stored_bytes(each, inputs, outputs))
        allowed = REMAINING * min(drift, max(self._limit_of_a_layer, 0.0))
        return next(each for each in by_size if self._errors.drift(layer, each) <= allowed)


def smallest(low: int, high: int, passes: Callable[[int], bool]) -> int:
    """Return the smallest number from `low` to `high` that passes, by a binary search; `high` if none passes."""
    while low < high:
        middle = (low + high) // 2
        if passes(middle):
            high = middle
        else:
            low = middle + 1
    return low
