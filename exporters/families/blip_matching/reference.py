"""transformers' `BlipForImageTextRetrieval` as the reference: similarities and matching probabilities in FP32."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from exporters.families.hf_text_model import pillow_processor
from exporters.families.tokenizer import load_tokenizer
from exporters.gate.labelled_image import LabelledImage
from exporters.gate.matching import MatchingReference, all_captions, first_captions
from runtimes.artifact.generation import GenerationConfig
from runtimes.decoding.session import Float32
from runtimes.errors import CheckpointError, first_line
from runtimes.images.reading import Images, each_image, read_image

MATCH = 1
"""Index of "the text describes the image" among the logits of transformers' matching head."""
TEXTS_PER_RUN = 32


class HfMatcher:
    """transformers' matcher with the methods of `runtimes.tasks.matcher.Matcher`. Texts are padded and masked, as in its processor."""

    def __init__(self, directory: Path, threads: int, *, weights: Mapping[str, torch.Tensor] | None = None) -> None:
        """Load a checkpoint.

        Args:
            directory: The checkpoint's folder.
            threads: CPU threads.
            weights: The weights by transformers' names, for a checkpoint whose files have other names.

        Raises:
            CheckpointError: transformers cannot load it.
        """
        torch.set_num_threads(threads)
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        try:
            self.model = transformers_matcher(directory, weights).eval()
            self._images = pillow_processor().from_pretrained(directory)
            self._tokenizer = load_tokenizer(directory)
        except Exception as error:  # transformers passes on the exceptions of its parsers
            raise CheckpointError(str(directory), f"transformers cannot load it: {first_line(error)}") from error

    @torch.inference_mode()
    def embed_images(self, images: Images) -> Float32:
        """Return normalized embeddings f32[B,E]; see `Matcher.embed_images`."""
        rows = [self.model.vision_proj(self._states(image)[:, 0]) for image in each_image(images)]
        return torch.nn.functional.normalize(torch.cat(rows), dim=-1).numpy()

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Float32:
        """Return normalized embeddings f32[T,E]; see `Matcher.embed_texts`."""
        rows = [self.model.text_proj(self.model.text_encoder(**tokens).last_hidden_state[:, 0]) for tokens in self._tokens(texts)]
        return torch.nn.functional.normalize(torch.cat(rows), dim=-1).numpy()

    def similarity(self, images: Images, texts: Sequence[str]) -> Float32:
        """Return cosines f32[B,T]; see `Matcher.similarity`."""
        return self.embed_images(images) @ self.embed_texts(texts).T

    @torch.inference_mode()
    def match(self, images: Images, texts: Sequence[str]) -> Float32:
        """Return probabilities f32[B,T]; see `Matcher.match`."""
        rows = []
        for states in map(self._states, each_image(images)):
            attended = torch.ones(states.shape[:2], dtype=torch.int64)
            probabilities = []
            for tokens in self._tokens(texts):
                count = len(tokens["input_ids"])
                image = {"encoder_hidden_states": states.expand(count, -1, -1), "encoder_attention_mask": attended.expand(count, -1)}
                encoded = self.model.text_encoder(**tokens, **image).last_hidden_state
                probabilities.append(self.model.itm_head(encoded[:, 0]).softmax(dim=-1)[:, MATCH])
            rows.append(torch.cat(probabilities).numpy())
        return np.stack(rows)

    def _states(self, image: Any) -> torch.Tensor:  # noqa: ANN401 - an ImageInput
        # Without input_data_format, transformers takes an image 1 or 3 pixels high for one with its channels first.
        pixels = self._images(read_image(image), input_data_format="channels_last", return_tensors="pt").pixel_values
        states: torch.Tensor = self.model.vision_model(pixels).last_hidden_state
        return states

    def _tokens(self, texts: Sequence[str]) -> list[Any]:
        parts = [list(texts[start : start + TEXTS_PER_RUN]) for start in range(0, len(texts), TEXTS_PER_RUN)]
        return [self._tokenizer(part, padding=True, return_tensors="pt", return_token_type_ids=False) for part in parts]


def transformers_matcher(directory: Path, weights: Mapping[str, torch.Tensor] | None) -> Any:  # noqa: ANN401 - transformers is untyped
    """Return transformers' FP32 model of a checkpoint, from its files or from weights by transformers' names."""
    config = transformers.BlipConfig.from_pretrained(directory)
    state = None if weights is None else {name: tensor.clone() for name, tensor in weights.items()}
    source = directory if weights is None else None
    return transformers.BlipForImageTextRetrieval.from_pretrained(source, config=config, state_dict=state, dtype=torch.float32)


def run_reference(
    directory: Path,
    images: Sequence[LabelledImage],
    defaults: GenerationConfig,
    threads: int,
    *,
    tied: bool,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> MatchingReference:
    """Run transformers on the gate's images; see `FamilyAdapter.reference`. A matcher has neither decoding settings nor a tied head."""
    matcher, paths = HfMatcher(directory, threads, weights=weights), [image.path for image in images]
    return MatchingReference(
        transformers=transformers.__version__,
        similarities=_rows(matcher.similarity(paths, all_captions(images)[0])),
        probabilities=_rows(matcher.match(paths, first_captions(images)[0])),
    )


def _rows(values: Float32) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in values.tolist())
