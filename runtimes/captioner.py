"""The `Captioner` that `runtimes.load` returns: image reading, an engine's session and the search, the same for every artifact."""

import logging
import os
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence, Sized
from contextlib import closing
from itertools import islice, repeat
from time import perf_counter
from typing import Any, Self, Unpack, cast

import numpy as np

from runtimes.artifact.generation import GenerationConfig, GenerationOptions
from runtimes.artifact.manifest import Manifest
from runtimes.caption import Caption, CaptionerInfo, CaptionToken, FinishReason, LoadTimings
from runtimes.decoding.drafts.drafter import Drafter
from runtimes.decoding.guarded_session import guarded
from runtimes.decoding.hypothesis import Hypothesis
from runtimes.decoding.request import Prompt, checked_config, prompt_ids_of, require_steps
from runtimes.decoding.scoring import sequence_log_probability, token_log_probabilities
from runtimes.decoding.search import PhaseTimer, generate, generate_tokens, run_by_length, run_loop
from runtimes.decoding.session import Float32, Int64, LoopSession, Session, State, require
from runtimes.decoding.tokenizer import CaptionTokenizer
from runtimes.errors import EnvironmentFailedError, OutOfMemoryError, RequestError, ToolkitError, UnavailableError, first_line
from runtimes.images.prefetch import read_ahead
from runtimes.images.reading import MAX_PIXELS, ImageInput, Images, each_image, image_name, is_image, read_pixels

logger = logging.getLogger(__name__)


class Captioner:
    """A loaded artifact. `runtimes.load` returns one.

    Several threads may use it at once. As a context manager, it is closed at the end of the block.
    """

    def __init__(
        self,
        session: Session | LoopSession,
        tokenizer: CaptionTokenizer,
        manifest: Manifest,
        max_pixels: int = MAX_PIXELS,
        timings: LoadTimings | None = None,
        *,
        reduce_large: bool = False,
    ) -> None:
        self.tokenizer, self.manifest = tokenizer, manifest
        self.timings, self._process = timings or LoadTimings(), os.getpid()
        self._max_pixels, self._reduce_large = max_pixels, reduce_large
        self._session: Session | LoopSession | None = guarded(session, manifest.name)
        self.reload: tuple[Callable[..., Captioner], tuple[Any, ...]] | None = None
        """Function and arguments that load the same artifact again; set by `runtimes.load`."""
        self.drafter: Drafter | None = None  # for greedy search of one image; set by `runtimes.load`

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the path and the settings; unpickling loads the artifact again.

        Raises:
            RequestError: The captioner is closed, or was not made by `runtimes.load`.
        """
        if self._session is None or self.reload is None:
            raise RequestError(f"{self.manifest.name}: only a captioner that is open and was made by runtimes.load can be pickled")
        return self.reload

    def close(self) -> None:
        """Release the model's memory. Later calls raise `RequestError`; a second `close` does nothing."""
        self._session = None

    @property
    def session(self) -> Session | LoopSession:
        """The engine's session.

        Raises:
            RequestError: The captioner is closed, or it was loaded before this process was forked.
        """
        if self._session is None:
            raise RequestError(f"{self.manifest.name}: this captioner is closed; load the artifact again")
        if os.getpid() != self._process:  # the threads of the engine are not in this process, so a run would wait for them forever
            raise RequestError(
                f"{self.manifest.name}: this captioner was loaded before a fork; load the artifact in each process after the fork "
                '(gunicorn: without --preload; multiprocessing: start method "spawn", or load in the initializer)'
            )
        return self._session

    @session.setter
    def session(self, session: Session | LoopSession) -> None:
        self._session = session

    @property
    def stepwise_session(self) -> Session:
        """The engine's session as one that runs token by token.

        Raises:
            RequestError: The artifact runs its whole loop in one graph, or the captioner is closed.
        """
        return require(self.session, "step")

    def info(self) -> CaptionerInfo:
        """Return the artifact, engine, device and settings in use.

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
        prompt: Prompt = None,
        batch_size: int = 1,
        workers: int = 0,
        generation_config: GenerationConfig | None = None,
        log_probabilities: bool = False,
        timer: PhaseTimer | None = None,
        **options: Unpack[GenerationOptions],
    ) -> list[Caption]:
        """Caption one image or several.

        An image that cannot be read yields a `Caption` with `error`, and the other images are captioned.

        Args:
            images: One image or an iterable of images. An image is a path, the bytes of a file, a PIL image, or an array u8[H,W,3] (RGB),
                u8[H,W,4] (RGBA) or u8[H,W] (grey). Files, bytes and PIL images are rotated by the EXIF orientation that they carry. Alpha
                is dropped, not blended, as transformers does.
            prompt: Text that every caption starts with, or a list with a text or None for each image. It is part of the returned text.
            batch_size: Images per run of the model. A batch that does not fit in memory is halved and retried. Captions do not depend on
                it, except for `pytorch-int8`: the rows of its decoder share one activation scale.
            workers: Threads that read images ahead of the model; 0 reads each batch before it runs. Captions do not depend on it.
            generation_config: All settings of the search, in place of the artifact's (`info().defaults`).
            log_probabilities: Whether captions have the log-probability of each token, see `Caption.log_probabilities`.
            timer: Callback for benchmarks, see `PhaseTimer`. "read" is the time that the model waited for images.
            options: Single settings of the search, by the names of `GenerationConfig`: `num_beams`, `max_length`, `repetition_penalty` and
                so on. A `max_length` without `max_new_tokens` replaces that setting of the artifact.

        Returns:
            One `Caption` per image, in order; a list of one for a single image.

        Raises:
            RequestError: An argument is invalid or exceeds a limit of the artifact, or the captioner is closed.
            EngineError: The engine failed during a run.
            OutOfMemoryError, UnavailableError: One image does not fit in memory (CPU, other devices).
        """
        return list(
            self.stream(
                images,
                prompt=prompt,
                batch_size=batch_size,
                workers=workers,
                generation_config=generation_config,
                log_probabilities=log_probabilities,
                timer=timer,
                **options,
            )
        )

    def stream(
        self,
        images: Images,
        *,
        prompt: Prompt = None,
        batch_size: int = 1,
        workers: int = 0,
        generation_config: GenerationConfig | None = None,
        log_probabilities: bool = False,
        timer: PhaseTimer | None = None,
        **options: Unpack[GenerationOptions],
    ) -> Generator[Caption, None, None]:
        """Caption images as `caption` does, and yield the captions of each batch when it is done.

        Arguments and errors are those of `caption`. Arguments are checked by the call itself, before the first `next`. Exceptions that
        the iterator `images` raises pass unchanged.

        With workers, at most `2 * batch_size + workers` images are read ahead of the yielded captions; without workers, `batch_size`.
        Close the generator to stop early; its threads end.
        """
        count = 1 if is_image(images) else len(images) if isinstance(images, Sized) else None
        prompts = prompt_ids_of(prompt, count, self.tokenizer)
        for length in {len(ids) for ids in (prompts or [self.tokenizer.prompt_ids(None)])}:
            config = checked_config(self.manifest, self.session, length, generation_config or self.manifest.defaults, options)
        require_steps(self.manifest, self.session, ("log_probabilities",) if log_probabilities else ())
        if batch_size < 1:
            raise RequestError("batch_size must be at least 1")
        if workers < 0:
            raise RequestError("workers must not be negative")
        each_prompt = iter(prompts) if isinstance(prompt, (list, tuple)) else repeat(prompts[0])
        timer = timer or (lambda phase, seconds: None)
        return self._stream(each_image(images), each_prompt, config, batch_size, workers, timer, log_probabilities=log_probabilities)

    def stream_tokens(
        self,
        image: ImageInput,
        *,
        prompt: str | None = None,
        generation_config: GenerationConfig | None = None,
        **options: Unpack[GenerationOptions],
    ) -> Generator[CaptionToken, None, None]:
        """Caption one image by greedy search or sampling, and yield each token when it is chosen.

        Arguments are those of `caption`. The call itself checks them and reads the image.

        Raises:
            ImageReadError: The image cannot be read.
            RequestError: An argument is invalid, the settings ask for beams or several captions, the artifact has its whole loop in one
                graph, or the captioner is closed.
            EngineError, OutOfMemoryError, UnavailableError: See `caption`.
        """
        if not is_image(image):
            raise RequestError(f"stream_tokens captions one image, not {type(image).__name__}")
        (prompt_ids,) = prompt_ids_of(prompt, 1, self.tokenizer)
        require_steps(self.manifest, self.session, ("stream_tokens",))
        config = checked_config(self.manifest, self.session, len(prompt_ids), generation_config or self.manifest.defaults, options)
        if config.num_beams > 1 or config.num_return_sequences > 1:
            raise RequestError("stream_tokens needs num_beams 1 and num_return_sequences 1: beams are ranked when all are complete")
        return self._stream_tokens(self._pixels(image), prompt_ids, config)

    def score(self, images: Images, *, captions: Sequence[str | Sequence[str]] | str) -> list[Float32]:
        """Return the natural-log probability of given captions by teacher forcing, end token included.

        With `pytorch-int8`, the captions of one run share an activation scale. Compare its scores only between equal groups of captions.

        Args:
            images: See `caption`. An iterator is consumed first.
            captions: For each image, a caption or a sequence of captions, which share one run of the encoder. For a single image, its
                caption or sequence of captions.

        Returns:
            For each image, f32[K] with K its number of captions, in order.

        Raises:
            ImageReadError: An image cannot be read.
            RequestError: The numbers of images and captions differ, an image has no caption, the session has no capability "score", or
                the captioner is closed.
            EngineError, OutOfMemoryError: See `caption`.
        """
        sources = list(each_image(images))
        groups: Sequence[Any] = [captions] if is_image(images) else captions
        if len(sources) != len(groups):
            raise RequestError(f"{len(sources)} images but captions for {len(groups)}")
        scores: list[Float32] = []
        for image, group in zip(sources, groups, strict=True):
            texts = [group] if isinstance(group, str) else list(group)
            rows = self.token_log_probabilities(image, captions=texts)
            values = [sequence_log_probability(row, self.caption_ids(text)) for row, text in zip(rows, texts, strict=True)]
            scores.append(np.array(values, dtype=np.float32))
        return scores

    def token_log_probabilities(self, image: ImageInput, *, captions: Sequence[str]) -> list[Float32]:
        """Return the natural-log probabilities of the whole vocabulary at every token of given captions, by teacher forcing.

        Args:
            image: One image, see `caption`.
            captions: Captions of this image. They share one run of the encoder.

        Returns:
            For each caption, f32[T,V] with T its number of tokens, end token included, and V the size of the vocabulary.

        Raises:
            ImageReadError, RequestError, EngineError, OutOfMemoryError: See `score`.
        """
        ids = [self.caption_ids(caption) for caption in captions]
        if not ids:
            raise RequestError("score needs at least one caption per image")
        inputs = {"pixels": self._pixels(image)[None]}
        return token_log_probabilities(require(self.session, "score"), inputs, ids, self.manifest.tokenizer.pad_id)

    def caption_ids(self, caption: str) -> list[int]:
        """Return the ids that `score` uses: start token, text, end token; cut at the number of positions of the model."""
        return self.tokenizer.caption_ids(caption)[: self.manifest.model.max_positions]

    def strip_prompt(self, caption: Caption, prompt: str | None) -> str:
        """Return the text of a caption without its prompt."""
        return self.tokenizer.text(caption.token_ids[len(self.tokenizer.prompt_ids(prompt)) :]).strip()

    def _pixels(self, image: ImageInput) -> Float32:
        return read_pixels(image, self.manifest.image, max_pixels=self._max_pixels, reduce_large=self._reduce_large)

    def _read(self, image: ImageInput) -> Float32 | ToolkitError:
        """Return pixels f32[3,S,S], or the error."""
        try:
            return self._pixels(image)
        except ToolkitError as error:
            return error.with_traceback(None)  # a traceback would keep the image in memory
        except MemoryError:
            return EnvironmentFailedError(image_name(image), "not enough memory")

    def _stream(
        self,
        images: Iterable[ImageInput],
        prompts: Iterator[list[int]],
        config: GenerationConfig,
        batch_size: int,
        workers: int,
        timer: PhaseTimer,
        *,
        log_probabilities: bool,
    ) -> Generator[Caption, None, None]:
        with closing(read_ahead(self._read, images, workers, ahead=batch_size + workers)) as reading:
            while True:
                started = perf_counter()
                if not (read := list(islice(reading, batch_size))):
                    if not isinstance(prompts, repeat) and next(prompts, None) is not None:
                        raise RequestError("prompt is a list, and there are fewer images than prompts")
                    return
                timer("read", perf_counter() - started)
                batch = list(islice(prompts, len(read)))
                if len(batch) < len(read):
                    raise RequestError("prompt is a list, and there are more images than prompts")
                for result in self._caption_batch(read, batch, config, timer):
                    yield result if isinstance(result, Caption) else self._caption(result, log_probabilities=log_probabilities)

    def _caption_batch(
        self, read: list[Float32 | ToolkitError], prompts: list[list[int]], config: GenerationConfig, timer: PhaseTimer
    ) -> Iterator[Hypothesis | Caption]:
        """Caption the results of `_read`; errors become captions. The list is cleared, so that the pixels are in memory once."""
        errors = [each if isinstance(each, ToolkitError) else None for each in read]
        pixels = [each for each in read if not isinstance(each, ToolkitError)]
        read.clear()
        prompts = [prompt for prompt, error in zip(prompts, errors, strict=True) if error is None]
        hypotheses = iter(self._search(np.stack(pixels), prompts, config, timer) if pixels else [])
        for error in errors:
            if error is not None:
                yield Caption(text="", token_ids=(), score=None, error=str(error), code=error.code)
            else:
                yield next(hypotheses)

    def _caption(self, hypothesis: Hypothesis, *, log_probabilities: bool) -> Caption:
        ids = hypothesis.token_ids
        return Caption(
            text=self.tokenizer.text(ids),
            token_ids=ids,
            score=hypothesis.score,
            log_probabilities=hypothesis.log_probabilities if log_probabilities else None,
            finish_reason="stop" if ids[-1] == self.manifest.tokenizer.eos_id else "length",
            alternatives=tuple(self._caption(other, log_probabilities=log_probabilities) for other in hypothesis.alternatives),
        )

    def _stream_tokens(self, pixels: Float32, prompt: list[int], config: GenerationConfig) -> Generator[CaptionToken, None, None]:
        ids, eos_id, longest = list(prompt), self.manifest.tokenizer.eos_id, config.max_length_after(len(prompt))
        try:
            state, key = self.stepwise_session.encode({"pixels": pixels[None]}), zlib.crc32(pixels.tobytes())
            steps = generate_tokens(self.stepwise_session, state, np.array([prompt]), self.manifest.tokenizer, config, key, self.drafter)
            for token_id, log_probability in steps:
                ids.append(token_id)
                reason: FinishReason | None = "stop" if token_id == eos_id else "length" if len(ids) == longest else None
                text = self.tokenizer.text(ids)
                yield CaptionToken(token_id=token_id, log_probability=log_probability, text=text, finish_reason=reason)
        except MemoryError as error:
            raise self._too_little_memory(error) from error

    def _search(self, pixels: Float32, prompts: list[list[int]], config: GenerationConfig, timer: PhaseTimer) -> list[Hypothesis]:
        """Caption images f32[B,3,S,S] with one prompt each."""
        return run_by_length(prompts, lambda indices, group: self._generate(pixels[indices], group, config, timer))

    def _generate(self, pixels: Float32, prompts: Int64, config: GenerationConfig, timer: PhaseTimer) -> list[Hypothesis]:
        try:
            if "loop" in self.session.capabilities:
                loop = cast("LoopSession", self.session)
                return run_loop(loop, {"pixels": pixels}, prompts, self.manifest.tokenizer, config, timer)
            # No variable refers to the state, so its memory is free when the search drops it or when the batch does not fit.
            keys = [zlib.crc32(image.tobytes()) for image in pixels] if config.do_sample else []
            session, spec = self.stepwise_session, self.manifest.tokenizer
            return generate(session, self._encode(pixels, timer), prompts, spec, config, timer, keys, self.drafter)
        except MemoryError as error:
            if len(pixels) == 1:
                raise self._too_little_memory(error) from error
        half = len(pixels) // 2
        logger.warning("out of memory with %d images at once; trying %d", len(pixels), half)
        parts = (slice(half), slice(half, None))
        return [each for part in parts for each in self._generate(pixels[part], prompts[part], config, timer)]

    def _too_little_memory(self, error: MemoryError) -> ToolkitError:
        """Return the error of one image that does not fit in memory."""
        if self.session.info().device == "cpu":
            return OutOfMemoryError(f"one image with {self.manifest.name}")
        return UnavailableError(f"not enough device memory for one image: {first_line(error)}. Use --device cpu.")

    def _encode(self, pixels: Float32, timer: PhaseTimer) -> State:
        started = perf_counter()
        state = self.stepwise_session.encode({"pixels": pixels})
        timer("encode", perf_counter() - started)
        return state
