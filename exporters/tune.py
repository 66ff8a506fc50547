"""Search for the formats of a checkpoint's layers that meet a budget at the least cost, and write them as a recipe file.

1. Estimate the drift of every layer in every format (`mixed_precision.local_error`), and compute bytes and measure times.
2. Order the best assignments by their estimated drift (`mixed_precision.frontier`).
3. Find the cheapest one that is within the budget on the search images, by a binary search with emulated drift.
4. Give back single layers to the cheapest format as long as the drift stays within the budget.
5. Confirm once: export the recipe and measure the artifact on other images.

Steps 3 and 4 take at most `MAX_EVALUATIONS` evaluations. All results are stored in a journal, so that a stopped search continues.
"""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from exporters.calibration.activations import SHIPPED, Calibration
from exporters.calibration.smoothing import smoothed
from exporters.checkpoint.checkpoint import Checkpoint
from exporters.emulation.drift import Emulation, Example, evenly_spaced
from exporters.emulation.model import formats_of
from exporters.export import export
from exporters.gate.drift import Drift, drift_text
from exporters.gate.labelled_image import LabelledImage
from exporters.mixed_precision.budget import Budget, Verdict
from exporters.mixed_precision.candidates import candidates, with_formats
from exporters.mixed_precision.exceptions import smallest
from exporters.mixed_precision.frontier import Assignment, FormatChoice, Objective, frontier
from exporters.mixed_precision.journal import DriftJournal
from exporters.mixed_precision.layer_costs import layer_cost
from exporters.mixed_precision.local_error import LocalErrors
from exporters.onnx.storage import LARGE
from exporters.recipe import Recipe
from runtimes.artifact import json_dataclass
from runtimes.artifact.folder import open_artifact, sha256_of
from runtimes.errors import BudgetError, DatasetError
from runtimes.storage.atomic_write import locked, write_atomically

ESTIMATE_IMAGES = 16
"""Calibration images for the estimates. PTQ4ViT (Yuan et al. 2022) found that 32 images are enough to choose scales."""
MAX_EVALUATIONS = 20
GRAPH_BYTES = 400_000
"""Bytes of an artifact's graphs and manifest, roughly; the real size is measured at the end."""


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """Result of a search."""

    recipe: Recipe
    verdict: Verdict
    drift: Drift
    """Of the artifact, on the confirmation images."""
    size_bytes: int
    """Of the artifact."""
    evaluations: int
    formats: dict[str, dict[str, str]]
    """Component → layer → format."""


def tune(
    checkpoint: Checkpoint,
    recipe: Recipe,
    budget: Budget,
    objective: Objective,
    search: Sequence[LabelledImage],
    confirmation: Sequence[LabelledImage],
    journal: DriftJournal,
    *,
    calibration: Calibration,
    threads: int,
    on_step: Callable[[str], None] = lambda step: None,
) -> Tuned:
    """Search for formats and confirm the result.

    Args:
        checkpoint: The checkpoint.
        recipe: Its engine, device, smoothing and image scale; its formats are candidates, too.
        budget: Limits.
        objective: What is minimized within the budget.
        search: Images of the search, with or without captions.
        confirmation: Other images, with captions.
        journal: Results so far; new results are added.
        calibration: Images for smoothing and for the estimates, different from the others.
        threads: CPU threads.
        on_step: Called with a description of each step.

    Raises:
        DatasetError: Two of the three sets have an image in common, or an image cannot be read.
        RequestError: The checkpoint generates no texts.
        BudgetError: Nothing meets the budget; the message names the nearest result.
    """
    checkpoint.require_generator("tune")
    check_disjoint({"calibration": calibration.images, "search": paths_of(search), "confirmation": paths_of(confirmation)})
    check_disjoint({"calibration": SHIPPED, "confirmation": paths_of(confirmation)})  # `export` smooths with all of them
    searching = Search(checkpoint, recipe, search, journal, calibration=calibration, threads=threads, on_step=on_step)
    other = searching.size_of_the_rest()
    limit = float("inf") if budget.size_bytes is None else budget.size_bytes - other
    ordered = frontier(searching.choices(), objective, limit)
    if not ordered:
        least = other + sum(min(choice.stored for choice in each) for each in searching.choices().values())
        raise BudgetError(f"no formats meet {budget}: the smallest artifact has {least / 1e6:.1f} MB")
    cheapest = searching.cheapest(ordered, budget, objective)
    tuned = replace(
        with_formats(searching.recipe, {layer: choice.layer_format for layer, choice in cheapest.items()}, checkpoint.layers()),
        name=f"{recipe.name}-tuned",
        why=f"Found by toolkit tune: {budget}, least {objective}.",
        drift_limit_nat=max(budget.drift_nat, recipe.drift_limit_nat or 0),
    )
    on_step("confirm on other images")

    def confirm() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            (path,) = export(checkpoint, [tuned], Path(folder), confirmation, on_gate_failure="write")
            artifact = open_artifact(path)
            gate = artifact.manifest.gate
            drift = {"nat": gate["drift_nat_per_token"], "low": gate["drift_low"], "high": gate["drift_high"]}
            return {**drift, "bytes": artifact.total_bytes, "images": gate["images"], "recipe": json_dataclass.dump(tuned)}

    result = journal.result(f"confirmation {tuned.sha256}", confirm)
    low, high = (float("nan") if result[key] is None else result[key] for key in ("low", "high"))
    drift = Drift(nat=result["nat"], low=low, high=high, spread=float("nan"), images=result["images"])
    return Tuned(
        recipe=tuned,
        verdict=budget.judge(drift, result["bytes"]),
        drift=drift,
        size_bytes=result["bytes"],
        evaluations=searching.evaluations,
        formats={
            component: {layer: str(cheapest[layer].layer_format) for layer in layers} for component, layers in checkpoint.layers().items()
        },
    )


class Search:
    """The estimates and the measured drift of assignments, each computed once and stored in the journal."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        recipe: Recipe,
        images: Sequence[LabelledImage],
        journal: DriftJournal,
        *,
        calibration: Calibration,
        threads: int,
        on_step: Callable[[str], None],
    ) -> None:
        self._checkpoint, self._images, self._journal = checkpoint, images, journal
        self._calibration, self._threads, self._on_step = calibration, threads, on_step
        self._layers = checkpoint.layers()
        self.evaluations = 0
        self._emulated: tuple[Recipe, Emulation, list[Example]] | None = None
        self.recipe = self._with_better_smoothing(recipe)
        self._choices: dict[str, list[FormatChoice]] | None = None

    def choices(self) -> dict[str, list[FormatChoice]]:
        """Return layer → its formats with estimates of drift, bytes and time."""
        if self._choices is None:
            self._on_step("estimate the drift of each layer")
            rows = self._journal.result("estimates", self._estimates)
            self._choices = {
                layer: [
                    FormatChoice(layer_format=each, drift=row["drift"], stored=row["bytes"], seconds=row["seconds"])
                    for each, row in zip(candidates(self.recipe, component), rows[layer], strict=True)
                ]
                for component, layers in self._layers.items()
                for layer in layers
            }
        return self._choices

    def cheapest(self, ordered: Sequence[Assignment], budget: Budget, objective: Objective) -> Assignment:
        """Return the cheapest assignment within the budget on the search images.

        Raises:
            BudgetError: The most exact assignment is not within the budget.
        """
        index = smallest(0, len(ordered) - 1, lambda number: self.drift(ordered[number]).high <= budget.drift_nat)
        formats, drift = ordered[index], self.drift(ordered[index])
        if drift.high > budget.drift_nat:
            stored = self.size_of_the_rest() + sum(choice.stored for choice in formats.values())
            raise BudgetError(
                f"no formats meet {budget}; the nearest has a drift of {drift_text(drift.nat, drift.low, drift.high)} nat/token on "
                f"the search images and about {stored / 1e6:.1f} MB"
            )
        cost = {"size": lambda choice: choice.stored, "time": lambda choice: choice.seconds}[objective]
        saved = {layer: cost(formats[layer]) - cost(cheap) for layer, cheap in ordered[0].items()}
        added = {layer: max(cheap.drift - formats[layer].drift, 1e-12) for layer, cheap in ordered[0].items()}
        for layer in sorted((layer for layer in saved if saved[layer] > 0), key=lambda layer: -saved[layer] / added[layer]):
            if self.evaluations >= MAX_EVALUATIONS:
                break
            smaller = formats | {layer: ordered[0][layer]}
            if budget.size_bytes is None or sum(c.stored for c in smaller.values()) + self.size_of_the_rest() <= budget.size_bytes:
                formats = smaller if self.drift(smaller).high <= budget.drift_nat else formats
        return formats

    def drift(self, assignment: Assignment) -> Drift:
        """Return the emulated drift of an assignment on the search images."""
        formats = {layer: choice.layer_format for layer, choice in assignment.items()}
        return self._drift(with_formats(self.recipe, formats, self._layers))

    def size_of_the_rest(self) -> int:
        """Return the bytes of an artifact without its layers, roughly."""
        named = {f"{name}.weight" for names in self._layers.values() for name in names}
        rest = GRAPH_BYTES + len(self._checkpoint.tokenizer_json)
        for name, parameter in self._checkpoint.empty_module().named_parameters():
            layer = self._checkpoint.family.layer_of(name.removesuffix(".weight"))
            table = name in self._checkpoint.family.head_tables.values()
            if name not in named and f"{layer}.weight" not in named and not table:
                rest += parameter.numel() * (2 if parameter.numel() >= LARGE else 4)
        return rest

    def _with_better_smoothing(self, recipe: Recipe) -> Recipe:
        """Return the recipe with or without its smoothing, whichever has less drift in its own formats."""
        plain = replace(recipe, components={name: replace(part, smooth=None) for name, part in recipe.components.items()})
        if plain == recipe:
            return recipe
        self._on_step("compare with and without smoothing")
        return min((recipe, plain), key=lambda each: self._drift(each).nat)

    def _drift(self, recipe: Recipe) -> Drift:
        """Return the emulated drift of a recipe on the search images."""

        def measure() -> dict[str, Any]:
            emulation, examples = self._emulation(recipe)
            drift = emulation.drift(formats_of(recipe, self._layers), examples)
            return {**asdict(drift), "recipe": json_dataclass.dump(recipe)}

        self.evaluations += 1
        self._on_step(f"evaluation {self.evaluations}")
        result = self._journal.result(f"drift {recipe.sha256}", measure)
        return Drift(**{key: value for key, value in result.items() if key != "recipe"})

    def _emulation(self, recipe: Recipe) -> tuple[Emulation, list[Example]]:
        """Return the emulated model for a recipe's smoothing, and the search images."""
        smoothing = {name: part.smooth for name, part in recipe.components.items()}
        if self._emulated is None or {name: part.smooth for name, part in self._emulated[0].components.items()} != smoothing:
            self._emulated = None  # frees the weights before others are loaded
            scaled = self._checkpoint.with_image_scale(recipe.image_scale)
            prepared = smoothed(scaled, recipe, self._calibration, self._threads)
            emulation = Emulation(self._checkpoint, prepared, recipe.runtime, self._threads)
            self._emulated = recipe, emulation, emulation.examples(self._images)
        return self._emulated[1:]

    def _estimates(self) -> dict[str, list[dict[str, float]]]:
        """Return layer → drift, bytes and seconds of each candidate."""
        emulation, _ = self._emulation(self.recipe)
        images = [LabelledImage(path, ()) for path in evenly_spaced(self._calibration.images, ESTIMATE_IMAGES)]
        errors = LocalErrors(emulation, emulation.examples(images))
        rows: dict[str, list[dict[str, float]]] = {}
        for component, layers in self._layers.items():
            for layer in layers:
                formats = candidates(self.recipe, component)
                costs = [layer_cost(emulation, layer, each, errors.rows(layer)) for each in formats]
                rows[layer] = [
                    {"drift": errors.drift(layer, each), "bytes": cost.stored, "seconds": cost.seconds}
                    for each, cost in zip(formats, costs, strict=True)
                ]
        return rows


def check_disjoint(sets: Mapping[str, Sequence[Path]]) -> None:
    """Check that no image is in two sets.

    Args:
        sets: Name of a set → its files.

    Raises:
        DatasetError: An image is in two sets, or cannot be read. The message names it.
    """
    seen: dict[str, tuple[str, Path]] = {}
    for name, paths in sets.items():
        for path in paths:
            try:
                digest = sha256_of(path)
            except OSError as error:
                raise DatasetError(str(path), f"cannot be read: {error.strerror or error}") from error
            first, other = seen.setdefault(digest, (name, path))
            if first != name:
                raise DatasetError(
                    str(path),
                    f"is one of the {name} images and equals {other}, one of the {first} images; the sets must have different images",
                )


def paths_of(images: Sequence[LabelledImage]) -> list[Path]:
    """Return the files of images."""
    return [image.path for image in images]


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe file for `toolkit export --recipe`."""
    with locked(path):
        write_atomically(path, (json.dumps(json_dataclass.dump(recipe), indent=1) + "\n").encode())
