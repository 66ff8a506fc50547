"""What an exporter needs from a model family, and the table of the families that can be exported.

A new family is a module with a class that implements `FamilyAdapter`, one entry of `FAMILIES`, and its runtime side in `runtimes.families`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

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

FAMILIES = {"BlipForConditionalGeneration": "exporters.families.blip_caption:BlipCaption"}
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


class FamilyAdapter(Protocol):
    """A family and one of its tasks."""

    family: str
    task: str
    """With `family` the key of `runtimes.families.registry.FAMILIES`."""
    components: tuple[str, ...]
    """Parts that a recipe may treat differently."""
    tied: Mapping[str, str]
    """Parameter of the torch module → the parameter that is the same tensor and is stored."""

    def read_config(self, config: Mapping[str, Any]) -> CheckpointConfig:
        """Read a config.json; ValueError for what this toolkit does not support."""
        ...

    def image_processor(self) -> Any:  # noqa: ANN401 - transformers is untyped
        """Return transformers' image processor class whose pixels are the reference."""
        ...

    def scaled(self, model: Any, image: ImageSpec, scale: float, /) -> tuple[ModelSpec, ImageSpec]:  # noqa: ANN401 - its own spec
        """Return the sizes for images of `scale` times the side."""
        ...

    def named_weights(self, raw: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
        """Return a checkpoint's tensors under the torch module's names; ValueError for what the module cannot hold."""
        ...

    def fitted_weights(self, weights: "dict[str, Tensor]", model: Any) -> "dict[str, Tensor]":  # noqa: ANN401 - its own spec
        """Return the weights for a model from `scaled`."""
        ...

    def component_of(self, name: str) -> str:
        """Return which component a parameter or submodule belongs to."""
        ...

    def graphs(self, module: Any, /) -> list[GraphExport]:  # noqa: ANN401 - its own module
        """Return the graphs of contract `split/1`. The module is changed and is of no use afterwards."""
        ...

    def reference(
        self, directory: Path, images: Sequence[LabelledImage], defaults: GenerationConfig, threads: int, /, *, allow_bin: bool
    ) -> Reference:
        """Run the checkpoint itself on the gate's images."""
        ...

    def evaluate(
        self,
        captioner: Captioner,
        recipe: Recipe,
        images: Sequence[LabelledImage],
        reference: Reference,
        on_gate_failure: OnGateFailure,
        /,
    ) -> dict[str, Any]:
        """Return the gate's findings on an artifact; GateError where it fails and must not."""
        ...

    def evaluate_joined(
        self,
        captioner: Captioner,
        recipe: Recipe,
        images: Sequence[LabelledImage],
        findings: dict[str, Any],
        on_gate_failure: OnGateFailure,
        /,
    ) -> dict[str, Any]:
        """Return the findings on the single graph of an artifact whose split graphs have `findings`."""
        ...


def find_family(architecture: str) -> FamilyAdapter | None:
    """Return the adapter of an architecture, or None where this toolkit has none."""
    target = FAMILIES.get(architecture)
    return None if target is None else load_target(target)()
