"""BLIP image captioning as a torch module. `encode` computes the cross-attention K/V of an image; `decode` computes logits from token ids.

Parameter names are those of Hugging Face's `BlipForConditionalGeneration`, so the tensors of a checkpoint load by name. transformers
computes keys and values of cross-attention at every step. They depend on the image only, so `encode` computes them once for every decoder
layer. The K hypotheses of an image are folded into the query axis, so that they share one copy.

Axes: B images, K hypotheses per image, R = B*K decoder rows, S pixels per side, N vision tokens, D width, H heads, Dh width of a head,
P past tokens, T new tokens, M positions whose logits are returned, V vocabulary.
Sources: Li et al. 2022 (BLIP), Devlin et al. 2019 (BERT, post-norm).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from runtimes.engines.pytorch.layers import ACTIVATIONS, Attend, EmbeddingTable, LayerNorm, Linear, SelfAttend, split_heads
from runtimes.engines.pytorch.vision import VisionModel
from runtimes.families.blip import BlipSpec


class Projections(nn.Module):
    """Query, key and value projections of a decoder attention. The inputs of key and value may have another width than the query's."""

    def __init__(self, width: int, source_width: int) -> None:
        super().__init__()
        self.query = Linear(width, width)
        self.key = Linear(source_width, width)
        self.value = Linear(source_width, width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project f[R,T,D] to query, key and value f[R,T,D]; for self-attention only."""
        return self.query(x), self.key(x), self.value(x)


class AddNorm(nn.Module):
    """Projection, residual sum, then layer norm (post-norm)."""

    def __init__(self, source_width: int, width: int, norm_eps: float) -> None:
        super().__init__()
        self.dense = Linear(source_width, width)
        self.LayerNorm = LayerNorm(width, eps=norm_eps)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """f[R,T,D'], f[R,T,D] → f[R,T,D]."""
        return self.LayerNorm(self.dense(x) + residual)


class SelfAttention(nn.Module):
    """Self-attention with KV cache, projections, output and norm. Checkpoints name the projections `self`."""

    def __init__(self, shape: BlipSpec) -> None:
        super().__init__()
        self.attend = SelfAttend(shape.text_heads)
        self.add_module("self", Projections(shape.text_width, shape.text_width))
        self.output = AddNorm(shape.text_width, shape.text_width, shape.text_norm_eps)

    def forward(self, x: Tensor, past: tuple[Tensor, Tensor] | None, mask: Tensor | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Map x f[R,T,D], past K/V f[R,H,P,Dh] and mask f[T,P+T] to f[R,T,D] and present K/V f[R,H,P+T,Dh]."""
        context, present = self.attend(*self.get_submodule("self")(x), past, mask)
        return self.output(context, x), present


class CrossAttention(nn.Module):
    """Cross-attention to the states of a source, such as an image, whose K rows share its keys and values.

    Checkpoints name the projections `self`.
    """

    def __init__(self, shape: BlipSpec, source_width: int) -> None:
        super().__init__()
        self.heads = shape.text_heads
        self.attend = Attend()
        self.add_module("self", Projections(shape.text_width, source_width))
        self.output = AddNorm(shape.text_width, shape.text_width, shape.text_norm_eps)

    def key_value(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """f[B,N,D] → key and value f[B,H,N,Dh]."""
        projections = self.get_submodule("self")
        return tuple(split_heads(project(states), states.shape[0], self.heads) for project in (projections.key, projections.value))  # type: ignore[return-value,operator]

    def forward(self, x: Tensor, cross: tuple[Tensor, Tensor], images: int, rows: int) -> Tensor:
        """Attend from x f[R,T,D] to key and value f[B,H,N,Dh]; return f[R,T,D].

        Args:
            x: f[R,T,D].
            cross: Key and value f[B,H,N,Dh].
            images: B.
            rows: R.
        """
        query = split_heads(self.get_submodule("self").query(x), images, self.heads)  # type: ignore[operator]
        return self.output(self.attend(query, *cross).reshape(rows, -1, int(x.shape[-1])), x)


class TextLayer(nn.Module):
    """BERT layer: self-attention, with KV cache in a decoder; cross-attention to states of `source_width`; feed-forward block."""

    def __init__(self, shape: BlipSpec, source_width: int) -> None:
        super().__init__()
        self.attention = SelfAttention(shape)
        self.crossattention = CrossAttention(shape, source_width)
        self.intermediate = nn.ModuleDict({"dense": Linear(shape.text_width, shape.text_inner)})
        self.output = AddNorm(shape.text_inner, shape.text_width, shape.text_norm_eps)
        self.activation = ACTIVATIONS[shape.text_activation]

    def forward(
        self,
        x: Tensor,
        past: tuple[Tensor, Tensor] | None,
        cross: tuple[Tensor, Tensor],
        images: int,
        rows: int,
        mask: Tensor | None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Map x f[R,T,D], past K/V f[R,H,P,Dh], cross K/V f[B,H,N,Dh] and mask f[T,P+T] to f[R,T,D] and present K/V f[R,H,P+T,Dh]."""
        x, present = self.attention(x, past, mask)
        return self.feed_forward(self.crossattention(x, cross, images, rows)), present

    def feed_forward(self, x: Tensor) -> Tensor:
        """f[R,T,D] → f[R,T,D]."""
        return self.output(self.activation(self.intermediate["dense"](x)), x)


class TextEmbeddings(nn.Module):
    """Embeddings of token ids and positions."""

    def __init__(self, shape: BlipSpec) -> None:
        super().__init__()
        self.word_embeddings: nn.Module = EmbeddingTable(shape.vocabulary, shape.text_width)
        self.position_embeddings = EmbeddingTable(shape.max_positions, shape.text_width)
        self.LayerNorm = LayerNorm(shape.text_width, eps=shape.text_norm_eps)

    def forward(self, token_ids: Tensor, past: int) -> Tensor:
        """Embed token_ids i64[R,T], which follow `past` earlier ones, as f[R,T,D]."""
        positions = self.position_embeddings.weight[past : past + token_ids.shape[1]]
        return self.LayerNorm(self.word_embeddings(token_ids) + positions)


class Predictions(nn.Module):
    """The head: transform, norm, product with the word embeddings (tied) or with a matrix of its own (untied), bias."""

    def __init__(self, shape: BlipSpec) -> None:
        super().__init__()
        self.transform = nn.ModuleDict(
            {
                "dense": Linear(shape.text_width, shape.text_width),
                "LayerNorm": LayerNorm(shape.text_width, eps=shape.text_norm_eps),
            }
        )
        self.decoder: nn.Module = Linear(shape.text_width, shape.vocabulary, bias=False)
        self.bias = nn.Parameter(torch.zeros(shape.vocabulary))
        self.activation = ACTIVATIONS[shape.text_activation]

    def forward(self, x: Tensor) -> Tensor:
        """f[R,M,D] → logits f[R,M,V]."""
        x = self.transform["LayerNorm"](self.activation(self.transform["dense"](x)))
        return self.decoder(x) + self.bias


def text_model(shape: BlipSpec, source_width: int) -> nn.ModuleDict:
    """Return embeddings and layers of a BERT with cross-attention to states of `source_width`, under the names of checkpoints."""
    layers = nn.ModuleList(TextLayer(shape, source_width) for _ in range(shape.text_layers))
    return nn.ModuleDict({"embeddings": TextEmbeddings(shape), "encoder": nn.ModuleDict({"layer": layers})})


def keys_and_values(layers: nn.ModuleList, states: Tensor) -> list[Tensor]:
    """Compute the cross-attention key and value f[B,H,N,Dh] of each layer (k0, v0, k1, v1, ...) from states f[B,N,D]."""
    return [tensor for layer in layers for tensor in layer.crossattention.key_value(states)]  # type: ignore[union-attr,operator]


class TextDecoder(nn.Module):
    """The BERT decoder with its head."""

    def __init__(self, shape: BlipSpec, source_width: int) -> None:
        super().__init__()
        self.bert = text_model(shape, source_width)
        self.cls = nn.ModuleDict({"predictions": Predictions(shape)})

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder's layers, first to last."""
        return self.bert["encoder"]["layer"]  # type: ignore[index]


class Blip(nn.Module):
    """A BLIP captioner. The caller loads the weights. The decoder of other tasks attends to states of another `source_width`."""

    HEAD_TABLES: Mapping[str, str] = {
        "text_decoder.cls.predictions.decoder.weight": "text_decoder.bert.embeddings.word_embeddings.weight",
    }
    """Head → word embeddings of the same shape. In a tied model they are one tensor, stored under the latter name."""

    def __init__(self, shape: BlipSpec, source_width: int | None = None) -> None:
        super().__init__()
        self.shape = shape
        self.vision_model = VisionModel(shape)
        self.text_decoder = TextDecoder(shape, source_width or shape.vision_width)
        if shape.tied:
            self.text_decoder.cls["predictions"].decoder.weight = self.text_decoder.bert["embeddings"].word_embeddings.weight  # type: ignore[union-attr]

    def image_states(self, pixels: Tensor) -> Tensor:
        """Compute image states f[B,N,D] from pixels f32[B,3,S,S]."""
        states: Tensor = self.vision_model(pixels.to(self.vision_model.post_layernorm.weight.dtype))
        return states

    def encode(self, pixels: Tensor) -> list[Tensor]:
        """Compute the cross-attention key and value f[B,H,N,Dh] of each decoder layer (k0, v0, k1, v1, ...) from pixels f32[B,3,S,S]."""
        return keys_and_values(self.text_decoder.layers, self.image_states(pixels))

    def cross(self, pixels: Tensor, **inputs: Tensor) -> list[Tensor]:
        """Compute what the decoder attends to, key and value per layer, from pixels and the other inputs of the task."""
        return self.encode(pixels)

    def decode(self, token_ids: Tensor, positions: Tensor, past: Sequence[Tensor], cross: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Run the decoder on new tokens.

        Args:
            token_ids: i64[R,T], the new tokens of each row.
            positions: i64[M], indices of the new tokens whose logits are returned.
            past: Key and value f[R,H,P,Dh] per layer of the P earlier tokens; P may be 0.
            cross: Key and value f[B,H,N,Dh] per layer from `encode`.

        Returns:
            Logits f32[R,M,V], and the present key and value f[R,H,P+T,Dh] per layer.
        """
        count, before = token_ids.shape[1], past[0].shape[2]
        x = self.text_decoder.bert["embeddings"](token_ids, before)
        new = torch.arange(count, device=token_ids.device)
        old = torch.arange(before + count, device=token_ids.device)
        mask = torch.where(old[None, :] <= new[:, None] + before, 0.0, torch.finfo(x.dtype).min).to(x.dtype)
        images, rows = cross[0].shape[0], token_ids.shape[0]  # read once for all layers: each read is five nodes in a graph
        present: list[Tensor] = []
        for index, layer in enumerate(self.text_decoder.layers):
            pair = slice(2 * index, 2 * index + 2)
            x, layer_present = layer(x, past[pair], cross[pair], images, rows, mask)
            present.extend(layer_present)
        return self.text_decoder.cls["predictions"](x.index_select(1, positions)).float(), present
