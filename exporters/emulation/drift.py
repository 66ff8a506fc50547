"""Measure the drift of a model in the formats of a recipe, on images with captions."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from exporters.checkpoint.checkpoint import Checkpoint
from exporters.emulation.model import EmulatedModel, Formats
from exporters.gate.drift import Drift, measure_drift
from exporters.gate.labelled_image import LabelledImage
from runtimes.artifact.generation import GenerationConfig
from runtimes.decoding.scoring import sequence_log_probability, token_log_probabilities
from runtimes.decoding.search import generate
from runtimes.decoding.session import Inputs, Session, begin
from runtimes.decoding.tokenizer import CaptionTokenizer
from runtimes.images.reading import preprocess, read_image

T = TypeVar("T")

MAX_IMAGES = 128
"""Of more images, this many are used, evenly spaced: their pixels stay in memory."""
OWN_CAPTIONS = 5
"""Captions per image that the checkpoint itself samples, if people wrote none."""
SEED = 0


@dataclass(frozen=True)
class Example:
    """An image, the token ids of its texts from the start token on, and their log-probability in FP32."""

    inputs: Inputs
    """See `runtimes.decoding.session.begin`."""
    captions: tuple[tuple[int, ...], ...]
    log_probability: float
    """Sum over the captions, in nat."""

    @property
    def tokens(self) -> int:
        """Number of tokens that are scored: all but the start tokens."""
        return sum(len(ids) - 1 for ids in self.captions)


class Emulation:
    """The drift of a checkpoint in any formats, without an export."""

    def __init__(self, checkpoint: Checkpoint, prepared: Checkpoint, runtime: str, threads: int) -> None:
        """Load the weights.

        Args:
            checkpoint: The reference.
            prepared: The checkpoint with the image scale and the smoothing of the recipe.
            runtime: Engine whose arithmetic is emulated.
            threads: CPU threads.
        """
        self.prepared, self.threads = prepared, threads
        self.model = EmulatedModel(prepared, runtime)
        self._session = self.model.session(threads)
        self._checkpoint = checkpoint
        self._exact = self._session if checkpoint.image == prepared.image else EmulatedModel(checkpoint, runtime).session(threads)

    def examples(self, images: Sequence[LabelledImage]) -> list[Example]:
        """Read images and tokenize their captions.

        An image without captions gets captions that the checkpoint samples. The mean of the drift on those is the Kullback-Leibler
        divergence of the model's distribution from FP32's, per token. An image without a question gets one of the family's
        questions, if its task has some.

        Args:
            images: Images, with or without captions.

        Raises:
            ImageReadError: An image cannot be read.
        """
        self.model.use({})
        tokenizer = CaptionTokenizer(self._checkpoint.tokenizer_json, self._checkpoint.tokenizer)
        limit, examples = self._checkpoint.model.max_positions, []
        for index, image in enumerate(evenly_spaced(images, MAX_IMAGES)):
            read = read_image(image.path)
            question = (
                self._checkpoint.family.calibration_inputs(tokenizer, index)
                if image.question is None
                else {"question_ids": np.array([tokenizer.encoder_ids(image.question)])}
            )
            inputs = {"pixels": preprocess(read, self._checkpoint.image)[None], **question}
            captions = tuple(tuple(tokenizer.text_ids(caption)[:limit]) for caption in image.texts)
            captions = captions or self._sampled(inputs, tokenizer.prompt_ids(None))
            score = self._score(self._exact, inputs, captions)
            if self._exact is not self._session:
                inputs["pixels"] = preprocess(read, self.prepared.image)[None]
            examples.append(Example(inputs, captions, score))
        return examples

    def drift(self, formats: Formats, examples: Sequence[Example]) -> Drift:
        """Return the drift with these formats of layers; layers that are not named are in FP32."""
        self.model.use(formats)
        rows = [(each.log_probability - self._score(self._session, each.inputs, each.captions), each.tokens) for each in examples]
        decreases, tokens = np.array(rows, dtype=np.float64).T
        return measure_drift(decreases, tokens)

    def _score(self, session: Session, inputs: Inputs, captions: Sequence[Sequence[int]]) -> float:
        """Return the sum of the captions' log-probabilities."""
        scores = token_log_probabilities(session, begin(session, inputs), captions, self._checkpoint.tokenizer.pad_id)
        return sum(map(sequence_log_probability, scores, captions))

    def _sampled(self, inputs: Inputs, prompt: list[int]) -> tuple[tuple[int, ...], ...]:
        """Return the token ids of captions that the FP32 model samples for one image."""
        config = GenerationConfig(do_sample=True, top_k=0, seed=SEED, num_return_sequences=OWN_CAPTIONS)
        state, prompts = begin(self._exact, inputs), np.array([prompt], dtype=np.int64)
        keys = [zlib.crc32(inputs["pixels"].tobytes())]
        (first,) = generate(self._exact, state, prompts, self._checkpoint.tokenizer, config, lambda phase, seconds: None, keys)
        return tuple(each.token_ids for each in (first, *first.alternatives))


def evenly_spaced(images: Sequence[T], count: int) -> list[T]:
    """Return `count` of the images, or all if there are fewer."""
    return list(images) if len(images) <= count else [images[len(images) * index // count] for index in range(count)]
