"""Caption pictures with an artifact: paths, bytes, PIL images or arrays go in; captions in the same order come out.

Composes picture reading, a runtime's session and the shared search; this is what users touch, and it is the same for every artifact.
"""

import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from runtimes.artifact.generation import GenerationConfig
from runtimes.artifact.manifest import Manifest
from runtimes.decoding.search import Clock, Hypothesis, generate, log_softmax, run_loop
from runtimes.decoding.session import DeviceMemoryError, Float32, Session, State, WholeLoop
from runtimes.decoding.tokenizer import Tokens
from runtimes.errors import ArtifactCorruptError, RequestError, ToolkitError, UnavailableError, translate_errors
from runtimes.images.prefetch import read_ahead
from runtimes.images.reading import MAX_PIXELS, ImageInput, preprocess, read_image

logger = logging.getLogger(__name__)

GREEDY_ONLY = "this artifact holds its whole loop in one graph and captions greedily; use a split recipe for beams and scores"


@dataclass(frozen=True, kw_only=True)
class Caption:
    """What an artifact says of a picture, or why it could not."""

    text: str
    token_ids: tuple[int, ...]
    """All ids, [DEC] and the end token included."""
    score: float | None
    """Natural-log probability of the generated tokens / generated length ** length_penalty."""
    error: str | None = None
    """One line if the picture could not be captioned; then there is no text."""
    code: str | None = None
    """Of the error, see `ToolkitError.code`."""


@dataclass(frozen=True, kw_only=True)
class Opening:
    """Where the time of opening an artifact went, in seconds."""

    import_s: float = 0.0
    """The runtime's library, if it was not imported before."""
    hash_s: float = 0.0
    """Checking the files, in a thread beside importing and loading."""


class Captioner:
    """An artifact that is ready to caption. Made by `runtimes.load`."""

    def __init__(
        self,
        session: Session | WholeLoop,
        tokens: Tokens,
        manifest: Manifest,
        max_pixels: int = MAX_PIXELS,
        opening: Opening | None = None,
    ) -> None:
        self.session = session
        self.tokens = tokens
        self.manifest = manifest
        self.opening = opening or Opening()
        self._max_pixels = max_pixels

    @property
    def stepped(self) -> Session:
        """The session of an artifact that runs token by token.

        Raises:
            RequestError: This one's whole loop is one graph.
        """
        if isinstance(self.session, WholeLoop):
            raise RequestError(GREEDY_ONLY)
        return self.session

    def caption(
        self,
        images: Sequence[ImageInput],
        prompt: str | None = None,
        beams: int | None = None,
        min_length: int | None = None,
        max_length: int | None = None,
        batch_size: int = 1,
        length_penalty: float | None = None,
        *,
        workers: int = 0,
        clock: Clock | None = None,
    ) -> list[Caption]:
        """Caption pictures; a bad one becomes a row with `error`, the others go on.

        What is None is taken from the artifact's `manifest.defaults`.

        Args:
            images: Paths, bytes, PIL images or arrays u8[H,W,3].
            prompt: Words that every caption starts with; they stay in the text.
            beams: 1 is greedy search.
            min_length: No caption is shorter, in tokens with [DEC] and prompt.
            max_length: No caption is longer, likewise.
            batch_size: Pictures per run; halved and retried where a GPU runs out of memory. INT8 activations share one scale per run, so
                an INT8 artifact's captions may differ a little between batch sizes; FP32 ones do not.
            length_penalty: See `GenerationConfig`.
            workers: Threads that read pictures ahead of the model; 0 reads each batch before it runs. Captions are the same.
            clock: Told the seconds of each phase, for benchmarks; "read" is what the model waited for its pictures.

        Raises:
            RequestError: The request contradicts itself or the artifact's limits.
        """
        return list(self.stream(images, prompt, beams, min_length, max_length, batch_size, length_penalty, workers=workers, clock=clock))

    def stream(
        self,
        images: Sequence[ImageInput],
        prompt: str | None = None,
        beams: int | None = None,
        min_length: int | None = None,
        max_length: int | None = None,
        batch_size: int = 1,
        length_penalty: float | None = None,
        *,
        workers: int = 0,
        clock: Clock | None = None,
    ) -> Generator[Caption, None, None]:
        """As `caption`, but each batch's captions come as soon as it is done, and no more than the pixels of two batches are in memory.

        Close it to stop early: its threads end.
        """
        if isinstance(images, str | bytes) or not isinstance(images, Sequence):
            raise RequestError("images must be a list of pictures, even if it is one")
        prompt_ids = self.tokens.prompt_ids(prompt)
        decoding = self._decoding(prompt_ids, num_beams=beams, min_length=min_length, max_length=max_length, length_penalty=length_penalty)
        if batch_size < 1:
            raise RequestError("batch_size must be at least 1")
        if workers < 0:
            raise RequestError("workers must not be negative")
        return self._stream(images, prompt_ids, decoding, batch_size, workers, clock or (lambda phase, seconds: None))

    def score(self, images: Sequence[ImageInput], captions: Sequence[str | Sequence[str]]) -> list[Float32]:
        """Return the natural-log probability of given captions, end token included, with every token given the right ones before it.

        An INT8 artifact quantizes activations with one scale per run, so its scores depend a little on which captions share a run: compare
        drifts of the same grouping only.

        Args:
            images: As for `caption`.
            captions: One caption or several per image; several share one run of the vision tower.

        Returns:
            f32[K] per image, K its number of captions, in order.

        Raises:
            ImageReadError: A picture cannot be read.
            RequestError: Images and captions do not pair up, an image has no caption, or the artifact can only caption.
        """
        if len(images) != len(captions):
            raise RequestError(f"{len(images)} images but captions for {len(captions)}")
        scores: list[Float32] = []
        for image, listed in zip(images, captions, strict=True):
            hypotheses = [listed] if isinstance(listed, str) else list(listed)
            if not hypotheses:
                raise RequestError("score needs at least one caption per image")
            ids = [self.caption_ids(caption) for caption in hypotheses]
            with translate_errors(self._failed):
                scores.append(self._score_one(self._pixels(image)[None], ids))
        return scores

    def caption_ids(self, caption: str) -> list[int]:
        """Return the ids that `score` scores: [DEC] words [SEP], cut where the artifact has no more positions."""
        return self.tokens.caption_ids(caption)[: self.manifest.model.max_positions]

    def strip_prompt(self, caption: Caption, prompt: str | None) -> str:
        """Return a caption's text without the prompt it started with."""
        return self.tokens.text(caption.token_ids[len(self.tokens.prompt_ids(prompt)) :])

    def _decoding(self, prompt_ids: list[int], **asked: Any) -> GenerationConfig:  # noqa: ANN401 - fields of GenerationConfig, or None
        try:
            decoding = replace(self.manifest.defaults, **{name: value for name, value in asked.items() if value is not None})
        except ValueError as error:
            raise RequestError(str(error)) from error
        limit, vocabulary = self.manifest.model.max_positions, self.manifest.model.vocabulary
        if decoding.max_length > limit:
            raise RequestError(f"max_length {decoding.max_length} is more than the {limit} positions of this model")
        if (prompt := len(prompt_ids)) >= decoding.max_length:
            raise RequestError(f"the prompt takes {prompt} tokens, so max_length must be more than that; it is {decoding.max_length}")
        if 2 * decoding.num_beams >= vocabulary:
            raise RequestError(f"{decoding.num_beams} beams are too many for a vocabulary of {vocabulary}")
        if decoding.num_beams > 1 and isinstance(self.session, WholeLoop):
            raise RequestError(GREEDY_ONLY)
        return decoding

    def _failed(self, problem: str) -> ToolkitError:
        """A runtime checks a graph's shapes when it runs: that it loaded does not mean that it can."""
        return ArtifactCorruptError(Path(self.manifest.name), f"failed while it ran: {problem}")

    def _pixels(self, image: ImageInput) -> Float32:
        return preprocess(read_image(image, max_pixels=self._max_pixels), self.manifest.image)

    def _read(self, image: ImageInput) -> Float32 | ToolkitError:
        """Return pixels f32[3,S,S], or why there are none."""
        try:
            return self._pixels(image)
        except ToolkitError as error:
            return error.with_traceback(None)  # which would keep the picture in memory

    def _stream(
        self, images: Sequence[ImageInput], prompt_ids: list[int], decoding: GenerationConfig, batch_size: int, workers: int, clock: Clock
    ) -> Generator[Caption, None, None]:
        with closing(read_ahead(self._read, images, workers, ahead=batch_size + workers)) as reading:
            for _ in range(0, len(images), batch_size):
                started = perf_counter()
                read = list(islice(reading, batch_size))
                clock("read", perf_counter() - started)
                yield from self._caption_batch(read, prompt_ids, decoding, clock)

    def _caption_batch(
        self, read: list[Float32 | ToolkitError], prompt_ids: list[int], decoding: GenerationConfig, clock: Clock
    ) -> Iterator[Caption]:
        """Caption what `_read` gave."""
        pixels = [found for found in read if not isinstance(found, ToolkitError)]
        with translate_errors(self._failed):
            hypotheses = iter(self._generate(np.stack(pixels), prompt_ids, decoding, clock) if pixels else [])
        for each in read:
            if isinstance(each, ToolkitError):
                yield Caption(text="", token_ids=(), score=None, error=str(each), code=each.code)
            else:
                found = next(hypotheses)
                yield Caption(text=self.tokens.text(found.token_ids), token_ids=found.token_ids, score=found.score)

    def _generate(self, pixels: Float32, prompt_ids: list[int], decoding: GenerationConfig, clock: Clock) -> list[Hypothesis]:
        try:
            if isinstance(self.session, WholeLoop):
                return run_loop(self.session, pixels, prompt_ids, self.manifest.tokenizer, decoding, clock)
            # No name is kept for the state: what the search drops must be free, and so must a batch that did not fit.
            return generate(self.session, self._encode(pixels, clock), len(pixels), prompt_ids, self.manifest.tokenizer, decoding, clock)
        except DeviceMemoryError as error:
            if len(pixels) == 1:
                raise UnavailableError(f"not enough device memory for one picture: {error}. Use --device cpu.") from error
        half = len(pixels) // 2
        logger.warning("out of device memory with %d pictures at once; trying %d", len(pixels), half)
        parts = (pixels[:half], pixels[half:])
        return [found for part in parts for found in self._generate(part, prompt_ids, decoding, clock)]

    def _encode(self, pixels: Float32, clock: Clock) -> State:
        started = perf_counter()
        state = self.stepped.encode(pixels)
        clock("encode", perf_counter() - started)
        return state

    def _score_one(self, pixels: Float32, ids: list[list[int]]) -> Float32:
        """Teacher-forced: pixels f32[1,3,S,S] and K captions → f32[K]. Padding on the right is never attended to by what counts."""
        width = max(map(len, ids)) - 1
        inputs = np.full((len(ids), width), self.manifest.tokenizer.pad_id, dtype=np.int64)
        for row, sequence in enumerate(ids):
            inputs[row, : len(sequence) - 1] = sequence[:-1]
        session = self.stepped
        state = session.encode(pixels)
        state = session.select(state, np.zeros(len(ids), dtype=np.int64), np.zeros(1, dtype=np.int64))
        logits, _ = session.step(inputs, state, np.arange(width, dtype=np.int64))
        scores = np.zeros(len(ids), dtype=np.float32)
        for row, sequence in enumerate(ids):
            targets = np.array(sequence[1:])
            scores[row] = log_softmax(logits[row, : len(targets)])[np.arange(len(targets)), targets].sum()
        return scores
