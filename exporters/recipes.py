"""Quantization recipes as data: what each artifact stores its weights as, and why.

A recipe is a row of `RECIPES` or a JSON file with the same fields; it is embedded in the manifest of whatever is made from it.
"""

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from runtimes.artifact import json_dataclass
from runtimes.artifact.manifest import Target
from runtimes.engine_registry import ENGINES
from runtimes.errors import RecipeError, UnknownNameError
from runtimes.families.signature import SINGLE, SPLIT


@dataclass(frozen=True, kw_only=True)
class Component:
    """How the constant weights of one component (of BLIP: encoder or decoder) are stored."""

    weights: Literal["fp32", "fp16", "qint8", "quint8", "qint4"] = "fp32"
    """qint8 and qint4: symmetric, signed; quint8: with a zero point."""
    per_channel: bool = False
    """One scale per output channel instead of one per tensor."""
    block_size: int | None = None
    """That many neighbouring inputs of an output share a scale, in weights and in activations; a power of two."""
    reduce_range: bool = False
    """7 bits: U8S8 products saturate in 16 bits on x86 without VNNI (onnxruntime#6004)."""
    keep_fp32: tuple[str, ...] = ()
    """Glob patterns of node or module names that stay in float; the ONNX exporter stores the large ones of them as FP16."""

    def __post_init__(self) -> None:
        if self.reduce_range and (not self.quantized or self.block_size):
            raise ValueError("reduce_range needs INT8 weights without blocks")
        if self.block_size is not None and self.weights not in ("qint8", "qint4"):
            raise ValueError("block_size needs qint8 or qint4 weights")
        if self.block_size is not None and (self.block_size < 16 or self.block_size & (self.block_size - 1)):
            raise ValueError("block_size must be a power of two, at least 16")
        if self.block_size is not None and self.per_channel:
            raise ValueError("a block has its own scale: block_size and per_channel exclude each other")
        if self.weights == "qint4" and self.block_size is None:
            raise ValueError("qint4 needs block_size")

    @property
    def quantized(self) -> bool:
        """Whether products run on integers."""
        return self.weights in ("qint8", "quint8", "qint4")


DEFAULT = "*"
"""In `Recipe.components`: all components that are not named."""

PRECISIONS: dict[Literal["int4", "int8", "fp16"], set[str]] = {"int4": {"qint4"}, "int8": {"qint8", "quint8"}, "fp16": {"fp16"}}
"""Number format → weights that are stored in it, smallest first."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to export: a runtime, the weights of each component, and how much worse the result may be."""

    name: str
    runtime: str
    """Name of an engine of `runtimes.engine_registry` that has a builder."""
    why: str
    """One sentence: what it is for."""
    device: Literal["cpu", "cuda"] = "cpu"
    cpu_features: tuple[str, ...] = ()
    """CPU features of which one is needed, in the words of `runtimes.host.facts`: without any of them the result is wrong or slow."""
    components: Mapping[str, Component] = field(default_factory=dict)
    """Name of a component, or `DEFAULT`, → its weights; what is left out stays in FP32."""
    layout: Literal["split", "single"] = "split"
    """An encoder and a decoder that a runtime calls token by token, or one ONNX graph that holds the whole greedy loop."""
    image_scale: float = 1.0
    """Part of the checkpoint's patches per side that images are resized to, rounded down; below 1 the artifact is approximate."""
    drift_limit_nat: float | None = None
    """Upper 95 % bound of the rise in negative log-probability per token; None: token ids must equal the checkpoint's."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", self.name):
            raise ValueError("a recipe's name is lower-case letters, digits, '.', '_' and '-', for folders are named after it")
        builders = [name for name, engine in ENGINES.items() if engine.builder]
        if self.runtime not in builders:
            raise ValueError(f"runtime {self.runtime!r} is not one of {', '.join(builders)}")
        parts = self.components.values()
        if self.runtime == "torch" and any(part.weights == "quint8" or part.reduce_range or part.block_size for part in parts):
            raise ValueError("the torch runtime takes full-range qint8 weights per channel only")
        if self.runtime == "torch" and any(part.quantized and not part.per_channel for part in parts):
            raise ValueError("the torch runtime quantizes per channel only")
        if self.precision == "fp16" and (DEFAULT not in self.components or {part.weights for part in parts} != {"fp16"}):
            raise ValueError(f"fp16 is for all components or none: name it for {DEFAULT!r} alone")
        if self.contract not in ENGINES[self.runtime].sessions:
            raise ValueError(f"the {self.runtime} runtime does not run layout {self.layout}")
        if not 0 < self.image_scale <= 1:
            raise ValueError("image_scale must be above 0 and at most 1")
        if self.drift_limit_nat is None and (self.precision != "fp32" or self.approximate):
            raise ValueError("a recipe that is approximate or not fp32 needs drift_limit_nat")

    def component(self, name: str) -> Component:
        """Return what a component's weights are stored as."""
        return self.components.get(name, self.components.get(DEFAULT, Component()))

    def check_components(self, known: Collection[str]) -> None:
        """Refuse names that the family of a checkpoint does not have.

        Raises:
            RecipeError: With the known ones.
        """
        if unknown := sorted(set(self.components) - {DEFAULT, *known}):
            raise RecipeError(
                f"{self.name}: unknown component(s) {', '.join(unknown)}; known: {', '.join(known)}, and {DEFAULT} for the others"
            )

    @property
    def contract(self) -> str:
        """What the graphs of its artifacts take and give."""
        return SINGLE if self.layout == "single" else SPLIT

    @property
    def approximate(self) -> bool:
        """Whether it computes something else than the checkpoint does, not only the same in other numbers."""
        return self.image_scale < 1

    @property
    def precision(self) -> Literal["fp32", "fp16", "int8", "int4"]:
        """The smallest number format of the weights."""
        weights = {part.weights for part in self.components.values()}
        for precision, names in PRECISIONS.items():
            if weights & names:
                return precision
        return "fp32"

    @property
    def target(self) -> Target:
        """Where its artifacts are meant to run."""
        return Target(
            device=self.device,
            precision=self.precision,
            cpu_features=self.cpu_features,
            approximate=self.approximate,
            # Weights in blocks are multiplied otherwise, and in torch the activations have 7 bits (`runtimes.engines.pytorch.int8_layers`).
            full_range=self.runtime == "ort"
            and any(part.weights == "qint8" and not part.reduce_range and not part.block_size for part in self.components.values()),
        )

    @property
    def sha256(self) -> str:
        """Hash of the recipe's content."""
        return hashlib.sha256(json_dataclass.canonical(json_dataclass.to_json(self))).hexdigest()


_INT8 = Component(weights="qint8", per_channel=True)
_INT7 = Component(weights="qint8", per_channel=True, reduce_range=True)
_BLOCKS8 = Component(weights="qint8", block_size=256)
_BLOCKS4 = Component(weights="qint4", block_size=128)
_FP16 = Component(weights="fp16")

RECIPES = (
    Recipe(name="pytorch-fp32", runtime="torch", why="The reference in our own module; also the fallback where INT8 has no engine."),
    Recipe(
        name="pytorch-int8",
        runtime="torch",
        why="Dynamic INT8 on every Linear for machines that have torch anyway.",
        components={DEFAULT: _INT8},
        drift_limit_nat=0.03,
    ),
    Recipe(
        name="pytorch-fp16",
        runtime="torch",
        why="Half the memory and the tensor cores of a CUDA GPU.",
        device="cuda",
        components={DEFAULT: _FP16},
        drift_limit_nat=0.01,
    ),
    Recipe(name="onnx-fp32", runtime="ort", why="Token-exact, standard operators only: also for OpenVINO, TensorRT and JavaScript."),
    Recipe(
        name="onnx-int8",
        runtime="ort",
        why="Portable INT8: the encoder's 7-bit weights cannot saturate, so it is right on every CPU.",
        components={"encoder": _INT7, "decoder": _BLOCKS8},
        drift_limit_nat=0.02,
    ),
    Recipe(
        name="onnx-int8-single",
        runtime="ort",
        why="onnx-int8 with its whole loop in one graph: a device calls it once, images in, ids out; greedy only.",
        components={"encoder": _INT7, "decoder": _BLOCKS8},
        layout="single",
        drift_limit_nat=0.02,
    ),
    Recipe(
        name="onnx-int4",
        runtime="ort",
        why="The smallest: an INT8 encoder, which is bound by arithmetic, and a 4-bit decoder, which is bound by memory.",
        components={"encoder": _INT7, "decoder": _BLOCKS4},
        drift_limit_nat=0.05,
    ),
    Recipe(
        name="onnx-int8-full",
        runtime="ort",
        why="Full-range weights for CPUs that add INT8 products in 32 bits: x86 with VNNI, 64-bit ARM with dot products.",
        cpu_features=("vnni", "dotprod"),
        components={"encoder": _INT8, "decoder": _BLOCKS8},
        drift_limit_nat=0.02,
    ),
    Recipe(
        name="onnx-int8-fast",
        runtime="ort",
        why="Approximate: images at three quarters of the width and height, half the work of the encoder; only where it is named.",
        components={"encoder": _INT7, "decoder": _BLOCKS8},
        image_scale=0.75,
        drift_limit_nat=0.1,
    ),
    Recipe(
        name="onnx-fp16",
        runtime="ort",
        why="FP16 graphs for the CUDA execution provider.",
        device="cuda",
        components={DEFAULT: _FP16},
        drift_limit_nat=0.01,
    ),
)

DEPLOYABLE = frozenset({"onnx-int8", "onnx-int4", "pytorch-int8", "onnx-fp32", "onnx-fp16", "pytorch-fp16"})
"""Recipes that an export makes when none is named; those for a GPU only where one is found."""

ALL = "all"
"""Name that stands for every shipped recipe."""


def deployable_recipes(*, cuda: bool) -> list[Recipe]:
    """Return the recipes that an export makes when none is named, in the order of the table."""
    return [recipe for recipe in RECIPES if recipe.name in DEPLOYABLE and (cuda or recipe.device == "cpu")]


def find_recipes(names_or_files: Sequence[str], *, cuda: bool) -> list[Recipe]:
    """Return the named recipes: "all" stands for every shipped one, and no name for the deployable set.

    Args:
        names_or_files: What the user named; see `find_recipe`.
        cuda: Whether this machine has an NVIDIA GPU.

    Raises:
        UnknownNameError, RecipeError: See `find_recipe`.
    """
    if not names_or_files:
        return deployable_recipes(cuda=cuda)
    return [recipe for name in names_or_files for recipe in (RECIPES if name == ALL else (find_recipe(name),))]


def find_recipe(name_or_file: str) -> Recipe:
    """Return a shipped recipe by name, or read one from a .json file.

    Raises:
        UnknownNameError: No recipe has that name.
        RecipeError: The file cannot be read or says something unknown.
    """
    by_name = {recipe.name: recipe for recipe in RECIPES}
    if name_or_file in by_name:
        return by_name[name_or_file]
    if not name_or_file.endswith(".json"):
        raise UnknownNameError("recipe", name_or_file, [*by_name, ALL])
    try:
        parsed = json.loads(Path(name_or_file).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise RecipeError(f"{name_or_file}: cannot read this recipe: {error}") from error
    recipe, problems = json_dataclass.from_json(Recipe, parsed)
    if recipe is None:
        raise RecipeError(f"{name_or_file}: {'; '.join(problems)}")
    return recipe
