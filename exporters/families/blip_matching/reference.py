"""transformers' `BlipForImageTextRetrieval` as the reference: similarities and matching probabilities in FP32."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import transformers

from exporters.families.hf_text_model import pillow_processor, readable_pixels
from exporters.families.tokenizer import load_tokenizer
from exporters.gate.labelled_image import LabelledImage
from exporters.gate.matching import MatchingReference, all_captions, first_captions
from runtimes.artifact.generation import GenerationConfig
from runtimes.decoding.search import PhaseTimer
from runtimes.decoding.session import Float32
from runtimes.errors import CheckpointError, first_line
from runtimes.images.reading import ImageInput, Images, each_image, read_image
from runtimes.tasks.results import Match

MATCH = 1
"""Index of "the text describes the image" among the logits of transformers' matching head."""
TEXTS_PER_RUN = 32


class HfMatcher:
    """transformers' matcher with the methods of `runtimes.tasks.matcher.Matcher`. Texts are padded and masked, as in its processor."""

    def __init__(
        self, directory: Path, threads: int, *, tied: bool = True, weights: Mapping[str, torch.Tensor] | None = None, device: str = "cpu"
    ) -> None:
        """Load a checkpoint.

        Args:
            directory: The checkpoint's folder.
            threads: CPU threads.
            tied: Not used, because a matcher has no head of words.
            weights: The weights by transformers' names, for a checkpoint whose files have other names.
            device: Device of torch that the model runs on.

        Raises:
            CheckpointError: transformers cannot load it.
        """
        torch.set_num_threads(threads)
        self._device = torch.device(device)
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        try:
            self.model = transformers_matcher(directory, weights).eval().to(device)
            self._images = pillow_processor().from_pretrained(directory)
            self._tokenizer = load_tokenizer(directory, self.model.config.text_config.pad_token_id)
        except Exception as error:  # transformers passes on the exceptions of its parsers
            raise CheckpointError(str(directory), f"transformers cannot load it: {first_line(error)}") from error

    @torch.inference_mode()
    def embed_images(self, images: Images) -> Float32:
        """Return normalized embeddings f32[B,E]; see `Matcher.embed_images`."""
        return torch.cat([self._image_embeddings(self._states(self._pixels(image))) for image in each_image(images)]).cpu().numpy()

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Float32:
        """Return normalized embeddings f32[T,E]; see `Matcher.embed_texts`."""
        return self._text_embeddings(texts).cpu().numpy()

    def similarity(self, images: Images, texts: Sequence[str]) -> Float32:
        """Return cosines f32[B,T]; see `Matcher.similarity`."""
        return self.embed_images(images) @ self.embed_texts(texts).T

    @torch.inference_mode()
    def match(self, images: Images, texts: Sequence[str]) -> Float32:
        """Return probabilities f32[B,T]; see `Matcher.match`."""
        rows = [self._probabilities(self._states(self._pixels(image)), texts) for image in each_image(images)]
        return torch.cat(rows).cpu().numpy()

    @torch.inference_mode()
    def stream(
        self, images: Sequence[ImageInput], texts: Sequence[str], *, batch_size: int = 1, timer: PhaseTimer | None = None
    ) -> Iterator[Match]:
        """Yield the probabilities and similarities of each image, or its error; see `Matcher.stream`."""
        timer, embedded = timer or (lambda phase, seconds: None), self._text_embeddings(texts)
        for start in range(0, len(images), batch_size):
            started = perf_counter()
            pixels, errors = readable_pixels(images[start : start + batch_size], self._pixels)
            timer("read", perf_counter() - started)
            rows = iter(self._scores(torch.cat(pixels), texts, embedded, timer) if pixels else ())
            yield from (next(rows) if error is None else Match(error=error) for error in errors)

    def _scores(self, pixels: torch.Tensor, texts: Sequence[str], embedded: torch.Tensor, timer: PhaseTimer) -> list[Match]:
        started = perf_counter()
        states = self._states(pixels)
        timer("encode", perf_counter() - started)
        started = perf_counter()
        probabilities = self._probabilities(states, texts).tolist()
        similarities = (self._image_embeddings(states) @ embedded.T).tolist()
        timer("match", perf_counter() - started)
        return [Match(probabilities=tuple(p), similarities=tuple(s)) for p, s in zip(probabilities, similarities, strict=True)]

    def _probabilities(self, states: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        """Return the probabilities f32[B,T] of texts, from image states f32[B,N,D]."""
        columns = []
        for tokens in self._tokens(texts):
            count, images = len(tokens["input_ids"]), len(states)
            repeated = states.repeat_interleave(count, dim=0)
            encoded = self.model.text_encoder(
                **{name: each.repeat(images, 1) for name, each in tokens.items()},
                encoder_hidden_states=repeated,
                encoder_attention_mask=torch.ones(repeated.shape[:2], dtype=torch.int64, device=self._device),
            ).last_hidden_state
            columns.append(self.model.itm_head(encoded[:, 0]).softmax(dim=-1)[:, MATCH].reshape(images, count))
        return torch.cat(columns, dim=1)

    def _image_embeddings(self, states: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(self.model.vision_proj(states[:, 0]), dim=-1)

    def _text_embeddings(self, texts: Sequence[str]) -> torch.Tensor:
        rows = [self.model.text_proj(self.model.text_encoder(**tokens).last_hidden_state[:, 0]) for tokens in self._tokens(texts)]
        return torch.nn.functional.normalize(torch.cat(rows), dim=-1)

    def _pixels(self, image: Any) -> torch.Tensor:  # noqa: ANN401 - an ImageInput
        # Without input_data_format, transformers takes an image 1 or 3 pixels high for one with its channels first.
        processed = self._images(read_image(image), input_data_format="channels_last", return_tensors="pt")
        pixels: torch.Tensor = processed.pixel_values.to(self._device)
        return pixels

    def _states(self, pixels: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self.model.vision_model(pixels).last_hidden_state
        return states

    def _tokens(self, texts: Sequence[str]) -> list[Any]:
        parts = [list(texts[start : start + TEXTS_PER_RUN]) for start in range(0, len(texts), TEXTS_PER_RUN)]
        return [self._tokenizer(part, padding=True, return_tensors="pt", return_token_type_ids=False).to(self._device) for part in parts]


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
