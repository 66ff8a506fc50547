"""A quantization recipe: how an artifact's weights are stored, for which engine, and how much quality it may lose.

The manifest of an artifact contains its recipe.
"""

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Literal

from runtimes.artifact import json_dataclass
from runtimes.artifact.manifest import Target
from runtimes.engine_registry import ENGINES
from runtimes.errors import RecipeError
from runtimes.families.signature import SINGLE, SPLIT


@dataclass(frozen=True, kw_only=True)
class Layer:
    """How the weights of one layer are stored. A layer is a product with constant weights, named after its torch module."""

    weights: Literal["fp32", "fp16", "qint8", "quint8", "qint4"] = "fp32"
    """Number format. qint8 and qint4 are signed and symmetric; quint8 has a zero point."""
    per_channel: bool = False
    """Use one scale per output channel instead of one per tensor."""
    block_size: int | None = None
    """Use one scale per block of this many consecutive inputs, for weights and activations. A power of two, at least 16."""
    reduce_range: bool = False
    """Quantize weights to 7 bits: on x86 without VNNI, sums of two U8S8 products saturate at 16 bits (onnxruntime#6004)."""

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
        """Whether the weights are integers."""
        return self.weights in ("qint8", "quint8", "qint4")

    def __str__(self) -> str:
        return self.weights + (f" in blocks of {self.block_size}" if self.block_size else "") + (", 7 bits" if self.reduce_range else "")


@dataclass(frozen=True, kw_only=True)
class Component(Layer):
    """How the weights of one component are stored. BLIP has an encoder and a decoder, and for questions the component `question`."""

    layers: Mapping[str, Layer] = field(default_factory=dict)
    """Exceptions: name of a layer, or glob pattern of names → format. An exact name comes before patterns, the longest pattern first."""
    smooth: Literal["auto"] | float | None = None
    """SmoothQuant: move scales of activations into weights before quantization. "auto", or its alpha from 0 (none) to 1 for all layers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.smooth is not None and not any(each.quantized for each in self.formats):
            raise ValueError("smooth needs quantized weights")
        if isinstance(self.smooth, (int, float)) and not 0 <= self.smooth <= 1:
            raise ValueError("smooth must be 'auto', null or a number from 0 to 1")

    def layer(self, name: str) -> Layer:
        """Return how the weights of a layer are stored."""
        if name in self.layers:
            return self.layers[name]
        matching = [pattern for pattern in self.layers if fnmatchcase(name, pattern)]
        return self.layers[max(matching, key=lambda pattern: (len(pattern), pattern))] if matching else self.own_format

    @property
    def own_format(self) -> Layer:
        """The format of layers without an exception."""
        return Layer(weights=self.weights, per_channel=self.per_channel, block_size=self.block_size, reduce_range=self.reduce_range)

    @property
    def formats(self) -> list[Layer]:
        """The component's own format and those of its exceptions."""
        return [self, *self.layers.values()]


DEFAULT = "*"
"""Key in `Recipe.components` for all components without an entry of their own."""

PRECISIONS: dict[Literal["int4", "int8", "fp16"], set[str]] = {"int4": {"qint4"}, "int8": {"qint8", "quint8"}, "fp16": {"fp16"}}
"""Precision → the values of `Component.weights` that have it, smallest first."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to export an artifact: its engine, the weights of each component, and the limit of the gate."""

    name: str
    """Part of the artifact's folder name."""
    runtime: str
    """Engine that runs the artifact: "ort", "torch" or another one of `runtimes.engine_registry` that has a builder."""
    why: str
    """What the recipe is for, in one sentence."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Device that the artifact is meant for."""
    cpu_features: tuple[str, ...] = ()
    """The CPU needs at least one of these features (names of `runtimes.host.facts`). Without any, captions are wrong or slow to compute."""
    components: Mapping[str, Component] = field(default_factory=dict)
    """Name of a component, or "*" for all others → how its weights are stored. Components without an entry stay in FP32."""
    layout: Literal["split", "single"] = "split"
    """split: an encoder graph and a decoder graph that runs once per token; single: one ONNX graph with the whole greedy search."""
    image_scale: float = 1.0
    """Patches per image side, relative to the checkpoint's and rounded down. Below 1, the artifact is approximate."""
    drift_limit_nat: float | None = None
    """The gate fails if the upper 95 % bound of drift, in nat per token, is above it. None: token ids must equal the checkpoint's."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", self.name):
            raise ValueError("a recipe's name is part of folder names: it must consist of lower-case letters, digits, '.', '_' and '-'")
        builders = [name for name, engine in ENGINES.items() if engine.builder]
        if self.runtime not in builders:
            raise ValueError(f"runtime {self.runtime!r} is not one of {', '.join(builders)}")
        parts, formats = self.components.values(), self._formats
        if self.runtime == "torch" and any(each.weights == "quint8" or each.reduce_range or each.block_size for each in formats):
            raise ValueError("the torch runtime supports only full-range qint8 weights per channel")
        if self.runtime == "torch" and any(each.quantized and not each.per_channel for each in formats):
            raise ValueError("the torch runtime quantizes per channel only")
        if any(part.weights == "fp16" for part in parts) and (set(self.components) != {DEFAULT} or self.components[DEFAULT].layers):
            raise ValueError(f"fp16 is for all components or none: set it for {DEFAULT!r} only, without layers")
        if self.runtime == "torch" and any(layer.weights == "fp16" for part in parts for layer in part.layers.values()):
            raise ValueError("the torch runtime stores layers in fp32 or qint8; fp16 is for all components or none")
        if self.contract not in ENGINES[self.runtime].sessions:
            raise ValueError(f"the {self.runtime} runtime does not run layout {self.layout}")
        if not 0 < self.image_scale <= 1:
            raise ValueError("image_scale must be above 0 and at most 1")
        if self.drift_limit_nat is None and (self.approximate or any(each.weights != "fp32" for each in formats)):
            raise ValueError("a recipe that is approximate or not fp32 needs drift_limit_nat")

    def component(self, name: str) -> Component:
        """Return how a component's weights are stored."""
        return self.components.get(name, self.components.get(DEFAULT, Component()))

    def check_components(self, known: Collection[str]) -> None:
        """Check that every named component exists.

        Args:
            known: Components of the checkpoint's family.

        Raises:
            RecipeError: A component is not in `known`.
        """
        if unknown := sorted(set(self.components) - {DEFAULT, *known}):
            raise RecipeError(
                f"{self.name}: unknown component(s) {', '.join(unknown)}; known: {', '.join(known)}, and {DEFAULT} for the others"
            )

    def check_layers(self, layers: Mapping[str, Sequence[str]]) -> None:
        """Check that every pattern of `Component.layers` matches a layer.

        Args:
            layers: Component → names of its layers.

        Raises:
            RecipeError: A pattern matches none. The message lists similar names.
        """
        for key, part in self.components.items():
            names = [
                name
                for component, known in layers.items()
                if key in (component, DEFAULT) and self.component(component) is part
                for name in known
            ]
            for pattern in part.layers:
                if not any(fnmatchcase(name, pattern) for name in names):
                    near = get_close_matches(pattern, names, n=3, cutoff=0) or ["none"]
                    raise RecipeError(f"{self.name}: components.{key}.layers: no layer matches {pattern!r}; similar: {', '.join(near)}")

    @property
    def _formats(self) -> list[Layer]:
        """The formats of all components and their exceptions."""
        return [each for part in self.components.values() for each in part.formats]

    @property
    def contract(self) -> str:
        """Contract of the artifact's graphs: the names and shapes of their inputs and outputs."""
        return SINGLE if self.layout == "single" else SPLIT

    @property
    def approximate(self) -> bool:
        """Whether the artifact changes the computation (smaller images), in addition to the number formats."""
        return self.image_scale < 1

    @property
    def precision(self) -> Literal["fp32", "fp16", "int8", "int4"]:
        """The lowest precision of any component, or of a single layer with an integer format."""
        weights = {part.weights for part in self.components.values()} | {each.weights for each in self._formats if each.quantized}
        for precision, names in PRECISIONS.items():
            if weights & names:
                return precision
        return "fp32"

    @property
    def target(self) -> Target:
        """The machine that the artifact is meant for."""
        return Target(
            device=self.device,
            precision=self.precision,
            cpu_features=self.cpu_features,
            approximate=self.approximate,
            # Only these products can saturate: weights in blocks have other kernels, and in torch, activations have 7 bits.
            full_range=self.runtime == "ort"
            and any(each.weights == "qint8" and not each.reduce_range and not each.block_size for each in self._formats),
        )

    @property
    def sha256(self) -> str:
        """SHA-256 of the recipe's canonical JSON."""
        return hashlib.sha256(json_dataclass.canonical_json(json_dataclass.dump(self))).hexdigest()
