"""What an exporter needs from a model family, and the table of the families that can be exported.

A new family is a module with a `FamilyAdapter`, one entry of `FAMILIES`, and its runtime side in `runtimes.families`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exporters.gate.gate import OnGateFailure, Reference
from exporters.gate.labelled_image import LabelledImage
from exporters.recipes import Recipe
from runtimes.artifact.generation import GenerationConfig
from runtimes.artifact.manifest import ImageSpec, TokenizerSpec
from runtimes.captioner import Captioner
from runtimes.engine_registry import load_target
from runtimes.families.registry import ModelSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

FAMILIES = {"BlipForConditionalGeneration": "exporters.families.blip_caption:BLIP_CAPTION"}
"""Name in `architectures` of a config.json → adapter, imported when a checkpoint has that name."""

MODEL_TYPES = {"blip": "BlipForConditionalGeneration"}
"""`model_type` of a config.json that names no architecture → the one that is meant: some captioners were saved so."""


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """What a checkpoint's config.json says, in the manifest's words."""

    model: ModelSpec
    tokenizer: TokenizerSpec
    defaults: GenerationConfig


@dataclass(frozen=True, kw_only=True)
class GraphExport:
    """One ONNX graph to trace."""

    role: str
    """Its role in the artifact, and the component whose part of the recipe it follows."""
    module: "nn.Module"
    attention: "nn.Module"
    """Part of `module` whose self-attention may become one operator of ONNX Runtime."""
    example: "tuple[Tensor, ...]"
    """Arguments of `module`; the sizes of axes that `axes` does not name are taken from them."""
    inputs: list[str]
    outputs: list[str]
    axes: dict[str, dict[int, str]]
    """Input or output → axis → name of each axis whose size may change."""


@dataclass(frozen=True, kw_only=True)
class FamilyAdapter:
    """A family and one of its tasks. Models and modules are the family's own classes."""

    family: str
    task: str
    """With `family` the key of `runtimes.families.registry.FAMILIES`."""
    components: tuple[str, ...]
    """Parts that a recipe may treat differently."""
    tied: Mapping[str, str]
    """Parameter of the torch module → the parameter that is the same tensor and is stored."""
    read_config: Callable[[Mapping[str, Any]], CheckpointConfig]
    """Reads a config.json; ValueError for what this toolkit does not support."""
    image_processor: Callable[[], Any]
    """Returns transformers' image processor class whose pixels are the reference."""
    scaled: Callable[[Any, ImageSpec, float], tuple[ModelSpec, ImageSpec]]
    """Returns the sizes of a model for images of a part of their side."""
    named_weights: "Callable[[Mapping[str, Tensor]], dict[str, Tensor]]"
    """Returns a checkpoint's tensors under the torch module's names; ValueError for what the module cannot hold."""
    fitted_weights: "Callable[[dict[str, Tensor], Any], dict[str, Tensor]]"
    """Returns the weights for a model from `scaled`."""
    component_of: Callable[[str], str]
    """Returns which component a parameter or submodule belongs to."""
    graphs: Callable[[Any], list[GraphExport]]
    """Returns the graphs of contract `split/1`. The module is changed and is of no use afterwards."""
    reference: Callable[..., Reference]
    """Runs the checkpoint itself: (directory, gate's images, defaults, threads, *, allow_bin)."""
    evaluate: Callable[[Captioner, Recipe, Sequence[LabelledImage], Reference, OnGateFailure], dict[str, Any]]
    """Returns the gate's findings on an artifact; GateError where it fails and must not."""
    evaluate_joined: Callable[[Captioner, Recipe, Sequence[LabelledImage], dict[str, Any], OnGateFailure], dict[str, Any]]
    """Returns the findings on the single graph of an artifact whose split graphs have the given ones."""


def find_family(architecture: str) -> FamilyAdapter | None:
    """Return the adapter of an architecture, or None where this toolkit has none."""
    target = FAMILIES.get(architecture)
    return None if target is None else load_target(target)
