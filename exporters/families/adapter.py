"""The interface between the exporters and a model family, and the table of families that can be exported.

To add a family, write a module with a `FamilyAdapter`, add one entry to `FAMILIES`, and add its runtime side to `runtimes.families`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporters.families.architectures import FAMILIES
from exporters.families.folding import Fold
from exporters.gate.gate import AnyReference, OnGateFailure, Reference
from exporters.gate.labelled_image import LabelledImage
from exporters.recipe import Recipe
from runtimes.artifact.manifest import ImageSpec, TokenizerSpec
from runtimes.decoding.session import Inputs
from runtimes.decoding.tokenizer import CaptionTokenizer
from runtimes.engine_registry import load_target
from runtimes.families.registry import ModelSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from runtimes.engines.pytorch.session import TorchSession


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """The parts of config.json that the manifest stores."""

    model: ModelSpec
    tokenizer: TokenizerSpec


@dataclass(frozen=True, kw_only=True)
class GraphExport:
    """One ONNX graph and how to trace it."""

    role: str
    """Role in the artifact, and name of the recipe's component that applies to this graph."""
    module: "nn.Module"
    """Traced to obtain the graph."""
    attention: "nn.Module"
    """Part of `module` whose self-attention may be fused into one operator of ONNX Runtime."""
    example: "tuple[Tensor, ...]"
    """Example arguments of `module`. Axes that are not in `axes` get their fixed size from these tensors."""
    inputs: list[str]
    outputs: list[str]
    axes: dict[str, dict[int, str]]
    """Name of an input or output → axis → name, for each axis of variable size."""
    layers: "Mapping[str, nn.Module]" = field(default_factory=dict)
    """Name of a layer → its module, for all modules with constant weights that the graph may multiply by."""


@dataclass(frozen=True, kw_only=True)
class ForcedDecoding:
    """How a family's torch module computes the logits of given tokens, in two stages."""

    image_states: "Callable[[Any, Tensor], Tensor]"
    """(module, pixels f32[B,3,S,S]) → image states f[B,N,D]."""
    forced_logits: "Callable[[Any, Tensor, Tensor], Tensor]"
    """(module, image states f[B,N,D], token ids i64[R,T]) → logits f32[R,T,V] of the token after each. R is a multiple of B; the rows of
    an image are adjacent."""
    computes_states: Callable[[str], bool]
    """Name of a parameter → whether `image_states` depends on it. States are stored if none of these parameters is trained."""


@dataclass(frozen=True, kw_only=True)
class FamilyAdapter:
    """The functions and tables of one task of a family. Model specs and torch modules are of the family's own classes."""

    family: str
    task: str
    """(family, task) is the key of `runtimes.families.registry.FAMILIES`."""
    contracts: Mapping[str, str]
    """Layout of a recipe → contract of the graphs. Recipes of other layouts cannot export this task."""
    components: tuple[str, ...]
    """Components that a recipe can configure."""
    per_token: frozenset[str]
    """Components that run once per token; the others run once per image, question or text. Empty if the model generates no texts:
    then there are no GPTQ, gate retries and drafts, and tuning, sensitivity and fine-tuning are refused."""
    head_tables: Mapping[str, str]
    """Head → word embeddings of the torch module. They are one tensor, stored under the latter name, unless the checkpoint is untied."""
    lookup_tables: tuple[str, ...] = ()
    """Tables of word embeddings that no head shares."""
    own_parts: frozenset[str] = frozenset()
    """See `exporters.families.architectures.OWN_PARTS`."""
    by_name_only: frozenset[str] = frozenset()
    """Recipes that `toolkit export` makes only if the user names them, because they do not pass the gate with models of this task."""
    drafts: bool = True
    """Whether texts are long enough for a draft table."""
    read_config: Callable[[Mapping[str, Any]], CheckpointConfig]
    """Parses config.json. Raises ValueError if it uses an unsupported feature."""
    image_processor: Callable[[], Any]
    """Returns the class of transformers' image processor whose pixels are the reference."""
    scaled: Callable[[Any, ImageSpec, float], tuple[ModelSpec, ImageSpec]]
    """(model, image, scale) → model and image for `scale` times the patches per side."""
    named_weights: "Callable[[Mapping[str, Tensor]], dict[str, Tensor]]"
    """(tensors of a checkpoint by name) → tensors of the torch module, f32. Raises ValueError if it cannot represent them."""
    saved_weights: "Callable[[Mapping[str, Tensor]], dict[str, Tensor]]"
    """(tensors of the torch module by name) → tensors with the shapes of a checkpoint of transformers."""
    fitted_weights: "Callable[[dict[str, Tensor], Any], dict[str, Tensor]]"
    """(weights by name, model) → weights by name, resized to a model from `scaled`."""
    component_of: Callable[[str], str]
    """Name of a parameter or submodule → its component."""
    layer_of: Callable[[str], str]
    """Name of a Linear → name of its layer in recipes, which several Linears share if graphs join them into one product."""
    forced: ForcedDecoding | None
    """Logits of given tokens, for fine-tuning; None if the task cannot be fine-tuned."""
    graphs: Callable[[Any], list[GraphExport]]
    """Torch module → its graphs of the layout `split`. The module is modified and cannot be used afterwards."""
    untied_model: "Callable[[Path, Mapping[str, Tensor]], Any]"
    """(directory, weights from `saved_weights`) → transformers' FP32 model whose heads share no memory with their word embeddings."""
    folds: Callable[[Any], tuple[Fold, ...]]
    """Model → where scales of channels can be folded into weights (SmoothQuant)."""
    run: Callable[..., object]
    """(module, pixels, tokenizer, components, **`calibration_inputs`) → runs the components as an engine does, so that forward hooks can
    record activations."""
    torch_session: "type[TorchSession]"
    """Session that runs the torch module."""
    calibration_inputs: Callable[[CaptionTokenizer, int], Inputs] = lambda tokenizer, index: {}
    """(tokenizer, index of a calibration image) → inputs besides its pixels, for `runtimes.decoding.session.begin`."""
    reference: Callable[..., Any]
    """(directory, images, defaults, threads, *, tied, weights) → reference run of the checkpoint, or of the weights if given."""
    reference_class: type[AnyReference] = Reference
    """Class of the result of `reference`."""
    evaluate: Callable[[Any, Recipe, Sequence[LabelledImage], Any, OnGateFailure], dict[str, Any]]
    """(loaded artifact, recipe, images, reference, what to do on failure) → the gate's findings. Raises GateError if the gate fails and
    `OnGateFailure` is "fail"."""
    evaluate_joined: Callable[[Any, Recipe, Sequence[LabelledImage], dict[str, Any], OnGateFailure], dict[str, Any]]
    """Like `evaluate` for an artifact with one graph. The dict is the findings on the split graphs that it was joined from. Not called if
    `contracts` has no such layout."""


def find_family(architecture: str) -> FamilyAdapter | None:
    """Return the adapter of an architecture, or None if it is not supported."""
    target = FAMILIES.get(architecture)
    return None if target is None else load_target(target)
