"""Caption images with an artifact: the class that `runtimes.load` returns, and what it returns.

It composes image reading, an engine's session and the shared search, and is the same for every artifact.
"""

import logging
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from time import perf_counter
from typing import Any, Self, cast

import numpy as np

from runtimes.artifact.generation import GenerationConfig
from runtimes.artifact.manifest import Manifest
from runtimes.caption import Caption, CaptionerInfo, LoadTimings
from runtimes.decoding.guarded_session import guarded
from runtimes.decoding.scoring import score_sequences
from runtimes.decoding.search import Hypothesis, PhaseTimer, generate, run_by_length, run_loop
from runtimes.decoding.session import Float32, Int64, LoopSession, Session, State, require
from runtimes.decoding.tokenizer import CaptionTokenizer
from runtimes.errors import OutOfMemoryError, RequestError, ToolkitError, UnavailableError, first_line
from runtimes.images.prefetch import read_ahead
from runtimes.images.reading import MAX_PIXELS, ImageInput, Images, each_image, is_image, preprocess, read_image

logger = logging.getLogger(__name__)


class Captioner:
    """An artifact that is ready to caption. Made by `runtimes.load`.

    It may be used from several threads at once. As a context manager it is closed at the end of the block.
    """

    def __init__(
        self,
        session: Session | LoopSession,
        tokenizer: CaptionTokenizer,
        manifest: Manifest,
        max_pixels: int = MAX_PIXELS,
        timings: LoadTimings | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.manifest = manifest
        self.timings = timings or LoadTimings()
        self._max_pixels = max_pixels
        self._session: Session | LoopSession | None = guarded(session, manifest.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the model's memory; what is asked of the captioner afterwards is a `RequestError`. Closing twice does nothing."""
        self._session = None

    @property
    def session(self) -> Session | LoopSession:
        """The engine's session.

        Raises:
            RequestError: The captioner is closed.
        """
        if self._session is None:
            raise RequestError(f"{self.manifest.name}: this captioner is closed; load the artifact again")
        return self._session

    @session.setter
    def session(self, session: Session | LoopSession) -> None:
        self._session = session

    @property
    def stepwise_session(self) -> Session:
        """The session of an artifact that runs token by token.

        Raises:
            RequestError: The artifact's whole loop is one graph, or the captioner is closed.
        """
        return require(self.session, "step")

    def info(self) -> CaptionerInfo:
        """Return what is in use.

        Raises:
            RequestError: The captioner is closed.
        """
        manifest = self.manifest
        return CaptionerInfo(
            artifact=manifest.name,
            digest=manifest.digest,
            recipe=manifest.recipe["name"],
            task=manifest.task,
            family=manifest.family,
            engine=self.session.info(),
            image=manifest.image,
            max_pixels=self._max_pixels,
            defaults=manifest.defaults,
        )

    def caption(
        self,
        images: Images,
        *,
        prompt: str | None = None,
        num_beams: int | None = None,
        min_length: int | None = None,
        max_length: int | None = None,
        length_penalty: float | None = None,
        batch_size: int = 1,
        workers: int = 0,
        phase_timer: PhaseTimer | None = None,
    ) -> list[Caption]:
        """Caption one image or several.

        An image that cannot be read becomes a `Caption` with `error`; the others are captioned. What is None is the artifact's default
        (`info().defaults`).

        Args:
            images: One image, or an iterable of them: a path, the bytes of a file, a PIL image, or an array u8[H,W,3] (RGB), u8[H,W,4]
                (RGBA, alpha is dropped) or u8[H,W] (grey). Files and bytes are rotated as their EXIF data says. A PIL image is taken as it
                is: apply `PIL.ImageOps.exif_transpose` to one that you opened yourself.
            prompt: Words that every caption starts with; they stay in the text.
            num_beams: Beams of the search; 1 is greedy search.
            min_length: Shortest caption, in tokens, start token and prompt included.
            max_length: Longest caption, likewise.
            length_penalty: See `GenerationConfig`.
            batch_size: Images per run of the model; halved and retried where memory runs out. Captions of a `pytorch-int8` artifact
                may differ a little between batch sizes, as the rows of its decoder share one activation scale; others do not.
            workers: Threads that read images ahead of the model; 0 reads each batch before it runs. Captions are the same.
            phase_timer: Called with a phase and its seconds, for benchmarks; "read" is the time that the model waited for its images.

        Returns:
            One `Caption` per image, in order; of one image, a list of one.

        Raises:
            RequestError: The request contradicts itself or the artifact's limits, or the captioner is closed.
            EngineError: The engine failed while it ran.
            OutOfMemoryError, UnavailableError: There is not enough memory for one image; on a GPU, the latter.
        """
        return list(
            self.stream(
                images,
                prompt=prompt,
                num_beams=num_beams,
                min_length=min_length,
                max_length=max_length,
                length_penalty=length_penalty,
                batch_size=batch_size,
                workers=workers,
                phase_timer=phase_timer,
            )
        )

    def stream(
        self,
        images: Images,
        *,
        prompt: str | None = None,
        num_beams: int | None = None,
        min_length: int | None = None,
        max_length: int | None = None,
        length_penalty: float | None = None,
        batch_size: int = 1,
        workers: int = 0,
        phase_timer: PhaseTimer | None = None,
    ) -> Generator[Caption, None, None]:
        """Caption images as `caption` does, and yield each batch's captions as soon as it is done.

        At most `2 * batch_size + workers` images are taken from `images` ahead of the captions that were yielded, `batch_size` without
        workers; no more pixels f32[3,H,W] than those are in memory. Close the generator to stop early; its threads end.

        Args and errors: see `caption`. The request is checked at once, before the first caption is asked for. What `images` itself raises
        passes unchanged.
        """
        prompt_ids = self.tokenizer.prompt_ids(prompt)
        decoding = self._decoding(
            prompt_ids, num_beams=num_beams, min_length=min_length, max_length=max_length, length_penalty=length_penalty
        )
        if batch_size < 1:
            raise RequestError("batch_size must be at least 1")
        if workers < 0:
            raise RequestError("workers must not be negative")
        return self._stream(each_image(images), prompt_ids, decoding, batch_size, workers, phase_timer or (lambda phase, seconds: None))

    def score(self, images: Images, *, captions: Sequence[str | Sequence[str]] | str) -> list[Float32]:
        """Return the natural-log probability of given captions, end token included, with every token given the right ones before it.

        The decoder of a `pytorch-int8` artifact has one activation scale per run, so its scores depend a little on which captions share a
        run: compare drifts of the same grouping only.

        Args:
            images: As for `caption`; an iterator is read to its end first.
            captions: One caption or several per image; several share one run of the vision tower. Of one image that is given alone, its
                caption or captions themselves.

        Returns:
            f32[K] per image, K its number of captions, in order.

        Raises:
            ImageReadError: An image cannot be read.
            RequestError: Images and captions do not pair up, an image has no caption, the artifact can only caption, or the captioner is
                closed.
            EngineError, OutOfMemoryError: See `caption`.
        """
        listed = list(each_image(images))
        groups: Sequence[Any] = [captions] if is_image(images) else captions
        if len(listed) != len(groups):
            raise RequestError(f"{len(listed)} images but captions for {len(groups)}")
        scores: list[Float32] = []
        for image, group in zip(listed, groups, strict=True):
            ids = [self.caption_ids(caption) for caption in ([group] if isinstance(group, str) else group)]
            if not ids:
                raise RequestError("score needs at least one caption per image")
            inputs = {"pixels": self._pixels(image)[None]}
            scores.append(score_sequences(require(self.session, "score"), inputs, ids, self.manifest.tokenizer.pad_id))
        return scores

    def caption_ids(self, caption: str) -> list[int]:
        """Return the ids that `score` scores: [DEC] words [SEP], cut where the artifact has no more positions."""
        return self.tokenizer.caption_ids(caption)[: self.manifest.model.max_positions]

    def strip_prompt(self, caption: Caption, prompt: str | None) -> str:
        """Return a caption's text without the prompt it started with."""
        return self.tokenizer.text(caption.token_ids[len(self.tokenizer.prompt_ids(prompt)) :])

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
        require(self.session, *(("beams",) if decoding.num_beams > 1 else ()))
        return decoding

    def _pixels(self, image: ImageInput) -> Float32:
        return preprocess(read_image(image, max_pixels=self._max_pixels), self.manifest.image)

    def _read(self, image: ImageInput) -> Float32 | ToolkitError:
        """Return pixels f32[3,S,S], or why there are none."""
        try:
            return self._pixels(image)
        except ToolkitError as error:
            return error.with_traceback(None)  # which would keep the image in memory

    def _stream(
        self,
        images: Iterable[ImageInput],
        prompt_ids: list[int],
        decoding: GenerationConfig,
        batch_size: int,
        workers: int,
        phase_timer: PhaseTimer,
    ) -> Generator[Caption, None, None]:
        with closing(read_ahead(self._read, images, workers, ahead=batch_size + workers)) as reading:
            while True:
                started = perf_counter()
                if not (read := list(islice(reading, batch_size))):
                    return
                phase_timer("read", perf_counter() - started)
                yield from self._caption_batch(read, prompt_ids, decoding, phase_timer)

    def _caption_batch(
        self, read: list[Float32 | ToolkitError], prompt_ids: list[int], decoding: GenerationConfig, phase_timer: PhaseTimer
    ) -> Iterator[Caption]:
        """Caption what `_read` returned, and empty the list: the pixels are needed in one array only."""
        errors = [each if isinstance(each, ToolkitError) else None for each in read]
        pixels = [each for each in read if not isinstance(each, ToolkitError)]
        read.clear()
        hypotheses = iter(self._search(np.stack(pixels), [prompt_ids] * len(pixels), decoding, phase_timer) if pixels else [])
        for error in errors:
            if error is not None:
                yield Caption(text="", token_ids=(), score=None, error=str(error), code=error.code)
            else:
                best = next(hypotheses)
                yield Caption(text=self.tokenizer.text(best.token_ids), token_ids=best.token_ids, score=best.score)

    def _search(self, pixels: Float32, prompts: list[list[int]], decoding: GenerationConfig, phase_timer: PhaseTimer) -> list[Hypothesis]:
        """Caption images that have a prompt each."""
        return run_by_length(prompts, lambda places, alike: self._generate(pixels[places], alike, decoding, phase_timer))

    def _generate(self, pixels: Float32, prompts: Int64, decoding: GenerationConfig, phase_timer: PhaseTimer) -> list[Hypothesis]:
        try:
            if "loop" in self.session.capabilities:
                loop = cast("LoopSession", self.session)
                return run_loop(loop, {"pixels": pixels}, prompts, self.manifest.tokenizer, decoding, phase_timer)
            # No name is kept for the state: what the search drops must be free, and so must a batch that did not fit.
            return generate(
                self.stepwise_session, self._encode(pixels, phase_timer), prompts, self.manifest.tokenizer, decoding, phase_timer
            )
        except MemoryError as error:
            if len(pixels) == 1 and self.session.info().device != "cpu":
                raise UnavailableError(f"not enough device memory for one image: {first_line(error)}. Use --device cpu.") from error
            if len(pixels) == 1:
                raise OutOfMemoryError(f"one image with {self.manifest.name}") from error
        half = len(pixels) // 2
        logger.warning("out of memory with %d images at once; trying %d", len(pixels), half)
        parts = (slice(half), slice(half, None))
        return [each for part in parts for each in self._generate(pixels[part], prompts[part], decoding, phase_timer)]

    def _encode(self, pixels: Float32, phase_timer: PhaseTimer) -> State:
        started = perf_counter()
        state = self.stepwise_session.encode({"pixels": pixels})
        phase_timer("encode", perf_counter() - started)
        return state
