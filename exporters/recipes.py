"""Quantization recipes as data: what each artifact stores its weights as, and why.

A recipe is a row of `RECIPES` or a JSON file with the same fields; it is embedded in the manifest of whatever is made from it.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runtimes import document
from runtimes.errors import RecipeError, UnknownNameError


@dataclass(frozen=True, kw_only=True)
class Component:
    """How the constant weights of one component (encoder or decoder) are stored."""

    weights: Literal["fp32", "fp16", "qint8", "quint8"] = "fp32"
    """qint8: symmetric, signed; quint8: with a zero point."""
    per_channel: bool = False
    """One scale per output channel instead of one per tensor."""
    reduce_range: bool = False
    """7 bits: U8S8 products saturate in 16 bits on x86 without VNNI (onnxruntime#6004)."""
    keep_fp32: tuple[str, ...] = ()
    """Glob patterns of node or module names that stay in float."""

    @property
    def quantized(self) -> bool:
        """Whether products run in INT8."""
        return self.weights in ("qint8", "quint8")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to export: a runtime, the weights of each component, and how much worse the result may be."""

    name: str
    runtime: Literal["ort", "torch"]
    why: str
    """One sentence: what it is for."""
    device: Literal["cpu", "cuda"] = "cpu"
    cpu_features: tuple[str, ...] = ()
    """CPU features without which the result is wrong or slow, in the words of `runtimes.host`."""
    encoder: Component = Component()
    decoder: Component = Component()
    drift_limit_nat: float | None = None
    """Upper 95 % bound of the rise in negative log-probability per token; None: token ids must equal the checkpoint's."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", self.name):
            raise ValueError("a recipe's name is lower-case letters, digits, '.', '_' and '-', for folders are named after it")
        for component in (self.encoder, self.decoder):
            if component.reduce_range and not component.quantized:
                raise ValueError("reduce_range needs INT8 weights")
            if self.runtime == "torch" and (component.weights == "quint8" or component.reduce_range):
                raise ValueError("the torch runtime takes full-range qint8 weights only")
        if self.runtime == "torch" and any(c.quantized and not c.per_channel for c in (self.encoder, self.decoder)):
            raise ValueError("the torch runtime quantizes per channel only")
        if "fp16" in {self.encoder.weights, self.decoder.weights} and self.encoder.weights != self.decoder.weights:
            raise ValueError("fp16 is for both components or none")
        if self.drift_limit_nat is None and self.precision != "fp32":
            raise ValueError("a recipe that is not fp32 needs drift_limit_nat")

    @property
    def precision(self) -> Literal["fp32", "fp16", "int8"]:
        """The smallest number format that products use."""
        weights = {self.encoder.weights, self.decoder.weights}
        return "int8" if weights & {"qint8", "quint8"} else "fp16" if "fp16" in weights else "fp32"

    @property
    def sha256(self) -> str:
        """Hash of the recipe's content."""
        return hashlib.sha256(document.canonical(document.to_json(self))).hexdigest()


_INT8 = Component(weights="qint8", per_channel=True)
_INT7 = Component(weights="qint8", per_channel=True, reduce_range=True)
_FP16 = Component(weights="fp16")

RECIPES = (
    Recipe(name="pytorch-fp32", runtime="torch", why="The reference in our own module; also the fallback where INT8 has no engine."),
    Recipe(
        name="pytorch-int8",
        runtime="torch",
        why="Dynamic INT8 on every Linear for machines that have torch anyway.",
        encoder=_INT8,
        decoder=_INT8,
        drift_limit_nat=0.03,
    ),
    Recipe(
        name="pytorch-fp16",
        runtime="torch",
        why="Half the memory and the tensor cores of a CUDA GPU.",
        device="cuda",
        encoder=_FP16,
        decoder=_FP16,
        drift_limit_nat=0.01,
    ),
    Recipe(name="onnx-fp32", runtime="ort", why="Token-exact, standard operators only: also for OpenVINO, TensorRT and JavaScript."),
    Recipe(
        name="onnx-int8",
        runtime="ort",
        why="Portable INT8: 7-bit weights cannot saturate, so it is right on every CPU.",
        encoder=_INT7,
        decoder=_INT7,
        drift_limit_nat=0.02,
    ),
    Recipe(
        name="onnx-int8-vnni",
        runtime="ort",
        why="Full-range weights for x86 with VNNI, which adds products in 32 bits.",
        cpu_features=("vnni",),
        encoder=_INT8,
        decoder=_INT8,
        drift_limit_nat=0.02,
    ),
    Recipe(
        name="onnx-int8-arm64",
        runtime="ort",
        why="Full-range weights for 64-bit ARM with dot products, which add in 32 bits.",
        cpu_features=("dotprod",),
        encoder=_INT8,
        decoder=_INT8,
        drift_limit_nat=0.02,
    ),
    Recipe(
        name="onnx-fp16",
        runtime="ort",
        why="FP16 graphs for the CUDA execution provider.",
        device="cuda",
        encoder=_FP16,
        decoder=_FP16,
        drift_limit_nat=0.01,
    ),
)


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
        raise UnknownNameError("recipe", name_or_file, by_name)
    try:
        parsed = json.loads(Path(name_or_file).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise RecipeError(f"{name_or_file}: cannot read this recipe: {error}") from error
    recipe, problems = document.from_json(Recipe, parsed)
    if recipe is None:
        raise RecipeError(f"{name_or_file}: {'; '.join(problems)}")
    return recipe
