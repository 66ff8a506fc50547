"""BLIP image captioning as a torch module. `encode` computes the cross-attention K/V of an image; `decode` computes logits from token ids.

Parameter names are those of Hugging Face's `BlipForConditionalGeneration`, so the tensors of a checkpoint load by name. transformers
computes keys and values of cross-attention at every step. They depend on the image only, so `encode` computes them once for every decoder
layer. The K hypotheses of an image are folded into the query axis, so that they share one copy.

Axes: B images, K hypotheses per image, R = B*K decoder rows, S pixels per side, N vision tokens, D width, H heads, Dh width of a head,
P past tokens, T new tokens, M positions whose logits are returned, V vocabulary.
Sources: Li et al. 2022 (BLIP), Dosovitskiy et al. 2021 (ViT), Devlin et al. 2019 (BERT, post-norm).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from runtimes.engines.pytorch.layers import ACTIVATIONS, Attend, Conv2d, Embedding, LayerNorm, Linear, SelfAttend, split_heads
from runtimes.families.blip import BlipSpec


class VisionAttention(nn.Module):
    """Self-attention of the vision encoder, with one product for query, key and value."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.width = width
        self.attend = SelfAttend(heads)
        self.qkv = Linear(width, 3 * width)
        self.projection = Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """f[B,N,D] → f[B,N,D]."""
        context, _ = self.attend(*self.qkv(x).split(self.width, dim=-1), None, None)
        return self.projection(context)


class VisionMLP(nn.Module):
    """Feed-forward block of the vision encoder."""

    def __init__(self, width: int, inner: int, activation: str) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.fc1 = Linear(width, inner)
        self.fc2 = Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """f[B,N,D] → f[B,N,D]."""
        return self.fc2(self.activation(self.fc1(x)))


class VisionLayer(nn.Module):
    """Pre-norm transformer layer."""

    def __init__(self, shape: BlipSpec) -> None:
        super().__init__()
        self.self_attn = VisionAttention(shape.vision_width, shape.vision_heads)
        self.layer_norm1 = LayerNorm(shape.vision_width, eps=shape.vision_norm_eps)
        self.mlp = VisionMLP(shape.vision_width, shape.vision_inner, shape.vision_activation)
        self.layer_norm2 = LayerNorm(shape.vision_width, eps=shape.vision_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """f[B,N,D] → f[B,N,D]."""
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class VisionEmbeddings(nn.Module):
    """Embeddings of patches, class token and positions."""

    def __init__(self, shape: BlipSpec) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.zeros(1, 1, shape.vision_width))
        self.patch_embedding = Conv2d(3, shape.vision_width, kernel_size=shape.patch_px, stride=shape.patch_px)
        self.position_embedding = nn.Parameter(torch.zeros(1, shape.vision_tokens, shape.vision_width))

    def forward(self, pixels: Tensor) -> Tensor:
        """f[B,3,S,S] → f[B,N,D]."""
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        return torch.cat([self.class_embedding.expand(pixels.shape[0], -1, -1), patches], dim=1) + self.position_embedding


class VisionModel(nn.Module):
    """The vision encoder (ViT)."""

    def __init__(self, shape: BlipSpec) -> None:
        super().__init__()
        self.embeddings = VisionEmbeddings(shape)
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList(VisionLayer(shape) for _ in range(shape.vision_layers))
        self.post_layernorm = LayerNorm(shape.vision_width, eps=shape.vision_norm_eps)

    def forward(self, pixels: Tensor) -> Tensor:
        """f[B,3,S,S] → f[B,N,D]."""
        x = self.embeddings(pixels)
        for layer in self.encoder.get_submodule("layers").children():
            x = layer(x)
        return self.post_layernorm(x)


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

    def forward(self, x: Tensor, past: tuple[Tensor, Tensor], mask: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Map x f[R,T,D], past K/V f[R,H,P,Dh] and mask f[T,P+T] to f[R,T,D] and present K/V f[R,H,P+T,Dh]."""
        context, present = self.attend(*self.get_submodule("self")(x), past, mask)
        return self.output(context, x), present


class CrossAttention(nn.Module):
    """Cross-attention to an image, whose K rows share its keys and values. Checkpoints name the projections `self`."""

    def __init__(self, shape: BlipSpec) -> None:
        super().__init__()
        self.heads = shape.text_heads
        self.attend = Attend()
        self.add_module("self", Projections(shape.text_width, shape.vision_width))
        self.output = AddNorm(shape.text_width, shape.text_width, shape.text_norm_eps)

    def key_value(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """f[B,N,D] → key and value f[B,H,N,Dh]."""
        projections = self.get_submodule("self")
        return tuple(split_heads(project(image), image.shape[0], self.heads) for project in (projections.key, projections.value))  # type: ignore[return-value,operator]

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
    """Decoder layer: self-attention with KV cache, cross-attention to the image, feed-forward block."""

    def __init__(self, shape: BlipSpec) -> None:
        super().__init__()
        self.attention = SelfAttention(shape)
        self.crossattention = CrossAttention(shape)
        self.intermediate = nn.ModuleDict({"dense": Linear(shape.text_width, shape.text_inner)})
        self.output = AddNorm(shape.text_inner, shape.text_width, shape.text_norm_eps)
        self.activation = ACTIVATIONS[shape.text_activation]

    def forward(
        self, x: Tensor, past: tuple[Tensor, Tensor], cross: tuple[Tensor, Tensor], images: int, rows: int, mask: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Map x f[R,T,D], past K/V f[R,H,P,Dh], cross K/V f[B,H,N,Dh] and mask f[T,P+T] to f[R,T,D] and present K/V f[R,H,P+T,Dh]."""
        x, present = self.attention(x, past, mask)
        x = self.crossattention(x, cross, images, rows)
        return self.output(self.activation(self.intermediate["dense"](x)), x), present


class TextEmbeddings(nn.Module):
    """Embeddings of token ids and positions."""

    def __init__(self, shape: BlipSpec) -> None:
        super().__init__()
        self.word_embeddings: nn.Module = Embedding(shape.vocabulary, shape.text_width)
        self.position_embeddings = Embedding(shape.max_positions, shape.text_width)
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


class TextDecoder(nn.Module):
    """The BERT decoder with its head."""

    def __init__(self, shape: BlipSpec) -> None:
        super().__init__()
        self.bert = nn.ModuleDict(
            {
                "embeddings": TextEmbeddings(shape),
                "encoder": nn.ModuleDict({"layer": nn.ModuleList(TextLayer(shape) for _ in range(shape.text_layers))}),
            }
        )
        self.cls = nn.ModuleDict({"predictions": Predictions(shape)})

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder's layers, first to last."""
        return self.bert["encoder"]["layer"]  # type: ignore[index]


class Blip(nn.Module):
    """A BLIP captioner. The caller loads the weights."""

    HEAD_TABLES: Mapping[str, str] = {
        "text_decoder.cls.predictions.decoder.weight": "text_decoder.bert.embeddings.word_embeddings.weight",
    }
    """Head → word embeddings of the same shape. In a tied model they are one tensor, stored under the latter name."""

    def __init__(self, shape: BlipSpec) -> None:
        super().__init__()
        self.shape = shape
        self.vision_model = VisionModel(shape)
        self.text_decoder = TextDecoder(shape)
        if shape.tied:
            self.text_decoder.cls["predictions"].decoder.weight = self.text_decoder.bert["embeddings"].word_embeddings.weight  # type: ignore[union-attr]

    def encode(self, pixels: Tensor) -> list[Tensor]:
        """Compute the cross-attention key and value f[B,H,N,Dh] of each decoder layer (k0, v0, k1, v1, ...) from pixels f32[B,3,S,S]."""
        image = self.vision_model(pixels.to(self.vision_model.post_layernorm.weight.dtype))
        return [tensor for layer in self.text_decoder.layers for tensor in layer.crossattention.key_value(image)]  # type: ignore[union-attr,operator]

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
