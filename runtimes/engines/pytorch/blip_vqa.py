"""BLIP visual question answering as a torch module: a question encoder between the captioner's vision encoder and decoder.

Parameter names are those of Hugging Face's `BlipForQuestionAnswering`. The question encoder attends to all tokens of its question and to
the image. The decoder generates the answer and attends to the states of the question, not to the image.

Axes: B images, R questions (a multiple of B; those of an image are adjacent), T tokens of a question; others as in
`runtimes.engines.pytorch.blip`. Source: Li et al. 2022 (BLIP), section 4.3.
"""

from collections.abc import Sequence

from torch import Tensor

from runtimes.engines.pytorch.blip import Blip, keys_and_values, text_model
from runtimes.families.blip_vqa import BlipVqaSpec


class BlipVqa(Blip):
    """A BLIP model that answers questions. The caller loads the weights."""

    def __init__(self, shape: BlipVqaSpec) -> None:
        super().__init__(shape, shape.text_width)
        self.text_encoder = text_model(shape, shape.vision_width)

    def encode(self, pixels: Tensor) -> list[Tensor]:
        """Compute key and value f[B,H,N,Dh] of each layer of the question encoder from pixels f32[B,3,S,S]."""
        return keys_and_values(self.text_encoder["encoder"]["layer"], self.image_states(pixels))  # type: ignore[index]

    def question_states(self, question_ids: Tensor, image: Sequence[Tensor]) -> Tensor:
        """Compute states f[R,T,D] of questions from their ids i64[R,T] and from `encode`, without a mask: R questions of one length."""
        x = self.text_encoder["embeddings"](question_ids, 0)
        images, rows = image[0].shape[0], question_ids.shape[0]
        for index, layer in enumerate(self.text_encoder["encoder"]["layer"]):  # type: ignore[index]
            x, _ = layer(x, None, image[2 * index : 2 * index + 2], images, rows, None)
        return x

    def ask(self, question_ids: Tensor, image: Sequence[Tensor]) -> list[Tensor]:
        """Compute the cross-attention key and value f[R,H,T,Dh] of each decoder layer; see `question_states`."""
        return keys_and_values(self.text_decoder.layers, self.question_states(question_ids, image))

    def cross(self, pixels: Tensor, **inputs: Tensor) -> list[Tensor]:
        """See `Blip.cross`: from pixels f32[B,3,S,S] and `question_ids` i64[R,T]."""
        return self.ask(inputs["question_ids"], self.encode(pixels))
