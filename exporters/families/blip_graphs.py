"""The ONNX graphs of a BLIP captioner, contract `split/1`.

Axes: B images, R decoder rows (a multiple of B), S pixels per side, N vision tokens, P past tokens, T new tokens, M positions whose logits
are returned, V vocabulary, D width, H heads, Dh width of a head.

    encoder  pixels f32[B,3,S,S] → cross_key_i, cross_value_i f[B,H,N,Dh] of every decoder layer i
    decoder  token_ids i64[R,T], positions i64[M], past_key_i, past_value_i f[R,H,P,Dh], cross_key_i, cross_value_i
             → logits f32[R,M,V], present_key_i, present_value_i f[R,H,P+T,Dh]

P may be 0, so the same decoder graph runs the prompt and every later token.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from exporters.families.adapter import GraphExport
from runtimes.engines.pytorch.blip import Blip, SelfAttention, TextEmbeddings
from runtimes.engines.pytorch.vision import VisionAttention


def layer_names(prefix: str, layers: int) -> list[str]:
    """Return `prefix_key_0, prefix_value_0, prefix_key_1, ...`: the order of keys and values in `Blip.encode` and `Blip.decode`."""
    return [f"{prefix}_{kind}_{layer}" for layer in range(layers) for kind in ("key", "value")]


class Encoder(nn.Module):
    """The graph from pixels to cross-attention K/V of the layers that attend to the image."""

    def __init__(self, model: Blip) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Pixels f32[B,3,S,S] → key and value f[B,H,N,Dh] per layer."""
        return tuple(self.model.encode(pixels))


class Decoder(nn.Module):
    """The graph from tokens and K/V to logits."""

    def __init__(self, model: Blip) -> None:
        super().__init__()
        self.model = model
        self.layers = model.shape.text_layers

    def forward(self, token_ids: Tensor, positions: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Compute logits f32[R,M,V], then present key and value f[R,H,P+T,Dh] per layer.

        Args:
            token_ids: i64[R,T], the new tokens.
            positions: i64[M], indices of the new tokens whose logits are returned.
            state: Past key and value f[R,H,P,Dh] per layer, then cross key and value f[B,H,N,Dh] per layer.
        """
        logits, present = self.model.decode(token_ids, positions, state[: 2 * self.layers], state[2 * self.layers :])
        return (logits, *present)


class ColumnEmbedding(nn.Module):
    """Embedding that gathers columns of the head's matrix f[D,V], so that both share one tensor and the graph does not transpose it."""

    def __init__(self, table: nn.Parameter) -> None:
        super().__init__()
        self.table = table

    def forward(self, token_ids: Tensor) -> Tensor:
        """token_ids i64[R,T] → f[R,T,D]."""
        return self.table[:, token_ids].permute(1, 2, 0)


class ColumnHead(nn.Module):
    """Head whose matrix f[D,V] is also the table of `ColumnEmbedding`."""

    def __init__(self, table: nn.Parameter) -> None:
        super().__init__()
        self.table = table

    def forward(self, x: Tensor) -> Tensor:
        """f[R,M,D] → f[R,M,V]."""
        return x @ self.table


class JoinedProjections(nn.Module):
    """Query, key and value projections of one decoder layer as one product: a third of the calls, and its input is quantized once."""

    def __init__(self, query: nn.Linear, key: nn.Linear, value: nn.Linear) -> None:
        super().__init__()
        parts = (query, key, value)
        self.width = query.out_features
        self.qkv = nn.Linear(query.in_features, 3 * query.out_features, dtype=query.weight.dtype)
        self.qkv.weight = nn.Parameter(torch.cat([part.weight for part in parts]), requires_grad=False)
        self.qkv.bias = nn.Parameter(torch.cat([part.bias for part in parts]), requires_grad=False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """f[R,T,D] → query, key and value f[R,T,D]."""
        return self.qkv(x).split(self.width, dim=-1)


def prepare(model: Blip) -> dict[str, nn.Module]:
    """Modify a module for its export, and return the modules with constant weights by the names of their layers.

    Embedding and head then have one matrix f[D,V], or two if the head is untied; see `join_text` and `scale_queries` for the rest.
    """
    scale_queries(model)
    head = model.get_parameter("text_decoder.cls.predictions.decoder.weight")
    tables = join_text(model)
    table = tables["text_decoder.bert.embeddings"] if model.shape.tied else nn.Parameter(head.T.contiguous(), requires_grad=False)
    model.get_submodule("text_decoder.cls.predictions").add_module("decoder", ColumnHead(table))
    return layers_of(model)


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    """Return the modules with constant weights that a graph multiplies by, by the names of their layers."""
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | ColumnHead)}


def scale_queries(model: nn.Module) -> None:
    """Multiply the query of image attention by its scale in the weights, where that is exact, so that no run of the graph does; in place.

    A scale that is a power of two changes neither the bits of FP32 nor the codes of quantized weights.
    """
    for attention in [module for module in model.modules() if isinstance(module, VisionAttention)]:
        scale = (attention.width // attention.attend.heads) ** -0.5
        if math.frexp(scale)[0] != 0.5:  # the mantissa of a power of two
            continue
        for parameter in attention.qkv.parameters():
            parameter[: attention.width] *= scale
        attention.attend.attend.scale = 1.0


def join_text(model: nn.Module) -> dict[str, nn.Parameter]:
    """Join query, key and value of each text layer, and turn word embeddings into matrices f[D,V]; in place.

    Returns:
        Name of embeddings → their matrix.
    """
    for attention in [module for module in model.modules() if isinstance(module, SelfAttention)]:
        parts = attention.get_submodule("self")
        attention.add_module("self", JoinedProjections(parts.query, parts.key, parts.value))  # type: ignore[arg-type]
    tables = {}
    for name, embeddings in [(name, module) for name, module in model.named_modules() if isinstance(module, TextEmbeddings)]:
        words = embeddings.get_parameter("word_embeddings.weight")
        tables[name] = nn.Parameter(words.T.contiguous(), requires_grad=False)
        embeddings.add_module("word_embeddings", ColumnEmbedding(tables[name]))
    return tables


def key_value_examples(
    model: Any,  # noqa: ANN401 - the family's module
    kind: str,
    rows: int,
    tokens: int,
) -> tuple[list[str], list[Tensor], dict[str, dict[int, str]]]:
    """Return names, example tensors and variable axes of the keys and values `kind` of each text layer; see `GraphExport`."""
    shape, dtype = model.shape, model.vision_model.post_layernorm.weight.dtype
    names = layer_names(kind, shape.text_layers)
    example = [torch.zeros(rows, shape.text_heads, tokens, shape.head_width, dtype=dtype) for _ in names]
    return names, example, dict.fromkeys(names, AXES[kind])


AXES = {
    "past": {0: "rows", 2: "past"},
    "present": {0: "rows", 2: "past_and_new"},
    "cross": {0: "images", 2: "vision_tokens"},
    "image": {0: "images", 2: "vision_tokens"},
}
"""Kind of keys and values → their axes of variable size."""
# All variable axes of examples are longer than 1: tracing may treat an axis of length 1 as a constant.
IMAGES, ROWS, PAST, NEW = 2, 4, 3, 2


def encoder_graph(model: Blip, layers: dict[str, nn.Module], outputs: str) -> GraphExport:
    """Return the encoder graph. `outputs` is the kind of the keys and values that it computes."""
    names, _, axes = key_value_examples(model, outputs, 1, 1)
    return GraphExport(
        role="encoder",
        module=Encoder(model),
        attention=model.vision_model,
        example=(torch.zeros(IMAGES, 3, model.shape.image_px, model.shape.image_px),),
        inputs=["pixels"],
        outputs=names,
        axes={"pixels": {0: "images"}, **axes},
        layers=layers,
    )


def decoder_graph(model: Blip, layers: dict[str, nn.Module]) -> GraphExport:
    """Return the decoder graph."""
    past, past_example, past_axes = key_value_examples(model, "past", ROWS, PAST)
    cross, cross_example, cross_axes = key_value_examples(model, "cross", IMAGES, model.shape.vision_tokens)
    present, _, present_axes = key_value_examples(model, "present", 1, 1)
    return GraphExport(
        role="decoder",
        module=Decoder(model),
        attention=model.text_decoder,
        example=(torch.zeros(ROWS, NEW, dtype=torch.int64), torch.arange(NEW), *past_example, *cross_example),
        inputs=["token_ids", "positions", *past, *cross],
        outputs=["logits", *present],
        axes={
            "token_ids": {0: "rows", 1: "new"},
            "positions": {0: "positions"},
            "logits": {0: "rows", 1: "positions"},
            **past_axes,
            **cross_axes,
            **present_axes,
        },
        layers=layers,
    )


def blip_graphs(model: Blip) -> list[GraphExport]:
    """Return encoder and decoder graph of an FP32 or FP16 module. The module is modified and cannot be used afterwards."""
    layers = prepare(model)
    return [encoder_graph(model, layers, "cross"), decoder_graph(model, layers)]
