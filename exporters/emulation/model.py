"""A checkpoint's torch module whose layers compute in the format of a recipe, and can change it."""

import hashlib
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from exporters.checkpoint.checkpoint import Checkpoint
from exporters.recipe import Layer, Recipe
from exporters.rounding.schemes import Scheme, scheme_of
from runtimes.engines.pytorch.session import TorchSession

Formats = Mapping[str, Layer]
"""Layer → its format."""
MAX_IMAGE_STATES = 256
"""1.8 MB each with BLIP-base's shapes."""


class EmulatedLinear(nn.Module):
    """Linear that rounds its weights and activations. Without a scheme it computes in FP32."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias
        self.scheme: Scheme | None = None
        self.values = weight

    def use(self, scheme: Scheme | None) -> bool:
        """Compute with a scheme from now on; return whether it is another one than before."""
        changed = scheme != self.scheme
        if changed:
            self.scheme, self.values = scheme, self.weight if scheme is None else scheme.weights(self.weight)
        return changed

    def forward(self, x: Tensor) -> Tensor:
        """f[...,K] → f[...,N]. All rows are one run of the engine, so they share a scale if the scheme has one per run."""
        if self.scheme is not None:
            x = self.scheme.activations(x.reshape(1, -1, x.shape[-1])).reshape(x.shape)
        return functional.linear(x, self.values, self.bias)


class EmulatedEmbedding(nn.Module):
    """Embedding that looks up rows of the rounded weights of a layer."""

    def __init__(self, layer: EmulatedLinear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, token_ids: Tensor) -> Tensor:
        """i64[R,T] → f32[R,T,D]."""
        return functional.embedding(token_ids, self.layer.values)


class EmulatedModel:
    """The module of a checkpoint. Its layers are in FP32 until `use` is called."""

    def __init__(self, checkpoint: Checkpoint, runtime: str) -> None:
        """Load the weights.

        Args:
            checkpoint: With the image scale and the smoothing of the recipe.
            runtime: Engine whose arithmetic the layers have.
        """
        family, self.runtime = checkpoint.family, runtime
        self._session = family.torch_session
        self.module = checkpoint.load_model()
        self.layers: dict[str, list[EmulatedLinear]] = {name: [] for names in checkpoint.layers().values() for name in names}
        """Layer → its Linears: three if graphs join query, key and value."""
        for name, linear in [(name, module) for name, module in self.module.named_modules() if isinstance(module, nn.Linear)]:
            emulated = EmulatedLinear(linear.weight.data, None if linear.bias is None else linear.bias.data)
            self._replace(name, emulated)
            self.layers[family.layer_of(name)].append(emulated)
        self._tables: set[str] = set()
        for table, layer in checkpoint.tables.items():
            embedding = table.removesuffix(".weight")
            if not self.layers[layer]:
                self.layers[layer].append(EmulatedLinear(self.module.get_parameter(table).data, None))
            self._tables.add(layer)
            self._replace(embedding, EmulatedEmbedding(self.layers[layer][0]))
        self._in_vision = set(self.module.vision_model.modules())
        self._image_states: dict[bytes, Tensor] = {}
        """Hash of an image's pixels → its image states, with the current formats."""
        self._compute_image_states = self.module.image_states
        self.module.image_states = self._kept_image_states

    def scheme(self, layer: str, layer_format: Layer) -> Scheme | None:
        """Return the arithmetic of a layer in a format; see `scheme_of`."""
        inputs = self.layers[layer][0].weight.shape[1]
        return scheme_of(layer_format, inputs=inputs, is_table=layer in self._tables, runtime=self.runtime)

    def use(self, formats: Formats) -> None:
        """Compute in these formats from now on; layers that are not named in FP32."""
        for layer, linears in self.layers.items():
            for linear in linears:
                if linear.use(self.scheme(layer, formats.get(layer, Layer()))) and linear in self._in_vision:
                    self._image_states.clear()

    def session(self, threads: int) -> TorchSession:
        """Return a session that encodes each image in a run of its own, as artifacts with one activation scale per run do."""
        return self._session(self.module, device="cpu", threads=threads, precision="emulated", engine="emulated")

    def _kept_image_states(self, pixels: Tensor) -> Tensor:
        """Return the image states f[1,N,D] of pixels f32[1,3,S,S]. They are kept, since most changes of formats concern other layers."""
        if torch.is_grad_enabled():
            return self._compute_image_states(pixels)
        key = hashlib.blake2b(pixels.numpy().tobytes(), digest_size=16).digest()
        if key not in self._image_states:
            if len(self._image_states) >= MAX_IMAGE_STATES:
                self._image_states.clear()
            self._image_states[key] = self._compute_image_states(pixels)
        return self._image_states[key]

    def _replace(self, name: str, module: nn.Module) -> None:
        parent, _, child = name.rpartition(".")
        cast("nn.Module", self.module.get_submodule(parent)).add_module(child, module)


def formats_of(recipe: Recipe, layers: Mapping[str, list[str]]) -> dict[str, Layer]:
    """Return layer → format of a recipe.

    Args:
        recipe: The recipe.
        layers: Component → names of its layers, from `Checkpoint.layers`.
    """
    return {name: recipe.component(component).layer(name) for component, names in layers.items() for name in names}
