"""The ONNX graphs of a BLIP matcher, contract `matching/1`.

Axes: B images, R texts (a multiple of B; the texts of an image are adjacent), S pixels per side, N vision tokens, T tokens, E width of an
embedding, H heads, Dh width of a head.

    encoder  pixels f32[B,3,S,S] → image_embeddings f32[B,E], cross_key_i, cross_value_i f[B,H,N,Dh] of every text layer i
    text     token_ids i64[R,T], with_image i64[], cross_key_i, cross_value_i → text_embeddings f32[R,E], probabilities f32[R]

With with_image 0, the text is encoded alone: then the cross inputs may have any values, such as one token of zeros, and only
text_embeddings is defined. With 1, only probabilities is defined. One graph for both stores the weights of the text encoder once.
"""

import torch
from torch import Tensor, nn

from exporters.families.adapter import GraphExport
from exporters.families.blip_graphs import IMAGES, ROWS, join_text, key_value_examples, layers_of, scale_queries
from runtimes.engines.pytorch.blip_matching import BlipMatching


class MatchingEncoder(nn.Module):
    """The graph from pixels to image embeddings and cross-attention K/V."""

    def __init__(self, model: BlipMatching) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Pixels f32[B,3,S,S] → embeddings f32[B,E], then key and value f[B,H,N,Dh] per text layer."""
        return tuple(self.model.encode(pixels))


class TextGraph(nn.Module):
    """The graph from token ids to text embeddings and probabilities."""

    def __init__(self, model: BlipMatching) -> None:
        super().__init__()
        self.model = model

    def forward(self, token_ids: Tensor, with_image: Tensor, *cross: Tensor) -> tuple[Tensor, Tensor]:
        """See `BlipMatching.text_graph`."""
        return self.model.text_graph(token_ids, with_image, cross)


def matching_graphs(model: BlipMatching) -> list[GraphExport]:
    """Return encoder and text graph of an FP32 or FP16 module. The module is modified and cannot be used afterwards."""
    shape = model.shape
    scale_queries(model)
    join_text(model)
    layers = layers_of(model)
    cross, example, cross_axes = key_value_examples(model, "cross", IMAGES, shape.vision_tokens)
    return [
        GraphExport(
            role="encoder",
            module=MatchingEncoder(model),
            attention=model.vision_model,
            example=(torch.zeros(IMAGES, 3, shape.image_px, shape.image_px),),
            inputs=["pixels"],
            outputs=["image_embeddings", *cross],
            axes={"pixels": {0: "images"}, "image_embeddings": {0: "images"}, **cross_axes},
            layers=layers,
        ),
        GraphExport(
            role="text",
            module=TextGraph(model),
            attention=model.text_encoder,
            example=(torch.zeros(ROWS, 3, dtype=torch.int64), torch.tensor(1), *example),
            inputs=["token_ids", "with_image", *cross],
            outputs=["text_embeddings", "probabilities"],
            axes={
                "token_ids": {0: "rows", 1: "tokens"},
                "text_embeddings": {0: "rows"},
                "probabilities": {0: "rows"},
                **cross_axes,
            },
            layers=layers,
        ),
    ]
