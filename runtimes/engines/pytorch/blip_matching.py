"""BLIP image-text matching as a torch module: embeddings of images and texts, and the probability that a text describes an image.

Parameter names are those of transformers' `BlipForImageTextRetrieval`, so the tensors of a checkpoint load by name.
Axes: B images, R texts (a multiple of B; the texts of an image are adjacent), S pixels per side, T tokens, N vision tokens, E width of an
embedding, H heads, Dh width of a head.
Source: Li et al. 2022 (BLIP), section 3.2: image-text contrastive loss and image-text matching loss.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from runtimes.engines.pytorch.blip import keys_and_values, text_model
from runtimes.engines.pytorch.layers import Linear
from runtimes.engines.pytorch.vision import VisionModel
from runtimes.families.blip_matching import BlipMatchingSpec

MATCH = 1
"""Index of "the text describes the image" among the logits of the matching head."""


class BlipMatching(nn.Module):
    """A BLIP matcher. The caller loads the weights."""

    HEAD_TABLES: Mapping[str, str] = {}
    """Empty: no head has the shape of the word embeddings."""

    def __init__(self, shape: BlipMatchingSpec) -> None:
        super().__init__()
        self.shape = shape
        self.vision_model = VisionModel(shape)
        self.text_encoder = text_model(shape, shape.vision_width)
        self.vision_proj = Linear(shape.vision_width, shape.embedding_width)
        self.text_proj = Linear(shape.text_width, shape.embedding_width)
        self.itm_head = Linear(shape.text_width, 2)

    def encode(self, pixels: Tensor) -> list[Tensor]:
        """Encode images f32[B,3,S,S].

        Returns:
            Normalized embeddings f32[B,E], then the cross-attention key and value f[B,H,N,Dh] of each text layer (k0, v0, k1, v1, ...).
        """
        image = self.vision_model(pixels.to(self.vision_model.post_layernorm.weight.dtype))
        return [_normalized(self.vision_proj(image[:, :1])), *keys_and_values(self.text_encoder["encoder"]["layer"], image)]  # type: ignore[index]

    def embed_texts(self, token_ids: Tensor) -> Tensor:
        """Compute normalized embeddings f32[R,E] of texts i64[R,T]."""
        return self._embedding(self._states(token_ids, (), None))

    def match(self, token_ids: Tensor, cross: Sequence[Tensor]) -> Tensor:
        """Compute the probability f32[R] that texts i64[R,T] describe their images, whose `cross` is from `encode`."""
        return self._probability(self._states(token_ids, cross, None))

    def text_graph(self, token_ids: Tensor, with_image: Tensor, cross: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Compute what `embed_texts` and `match` do with one set of operators, for export.

        Args:
            token_ids: i64[R,T].
            with_image: i64[]; 0: encode texts alone, 1: with their images.
            cross: Key and value f[B,H,N,Dh] per text layer.

        Returns:
            Normalized embeddings f32[R,E], which are defined without images, and probabilities f32[R], which are defined with images.
        """
        states = self._states(token_ids, cross, with_image != 0)
        return self._embedding(states), self._probability(states)

    def _states(self, token_ids: Tensor, cross: Sequence[Tensor], with_image: Tensor | None) -> Tensor:
        """Encode texts of equal length, whose tokens attend to each other without a mask.

        Args:
            token_ids: i64[R,T].
            cross: Key and value f[B,H,N,Dh] per layer; empty: without images.
            with_image: bool[]; false skips the result of cross-attention. None: true.

        Returns:
            States f[R,T,D].
        """
        x = self.text_encoder["embeddings"](token_ids, 0)
        images, rows = (cross[0].shape[0] if cross else 0), token_ids.shape[0]
        for index, layer in enumerate(self.text_encoder["encoder"]["layer"]):  # type: ignore[index]
            x, _ = layer.attention(x, None, None)
            if cross:
                attended = layer.crossattention(x, (cross[2 * index], cross[2 * index + 1]), images, rows)
                x = attended if with_image is None else torch.where(with_image, attended, x)
            x = layer.feed_forward(x)
        return x

    def _embedding(self, states: Tensor) -> Tensor:
        return _normalized(self.text_proj(states[:, :1]))

    def _probability(self, states: Tensor) -> Tensor:
        return self.itm_head(states[:, :1])[:, 0].float().softmax(dim=-1)[:, MATCH]


def _normalized(vectors: Tensor) -> Tensor:
    """Return vectors f[R,1,E] with length 1, as f32[R,E]."""
    vectors = vectors[:, 0].float()
    return vectors / torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
