"""The `Captioner` that `runtimes.load` returns for the task "caption"."""

from collections.abc import Generator, Iterator, Sequence, Sized
from functools import partial
from itertools import repeat
from typing import Any, Unpack, cast

from runtimes.artifact.generation import GenerationConfig, GenerationOptions
from runtimes.decoding.hypothesis import Hypothesis
from runtimes.decoding.request import Prompt, checked_config, prompt_ids_of, require_steps
from runtimes.decoding.search import PhaseTimer, by_length, run_loop
from runtimes.decoding.session import Float32, LoopSession
from runtimes.errors import RequestError
from runtimes.images.reading import ImageInput, Images, each_image, is_image
from runtimes.tasks.results import Caption, GeneratedToken
from runtimes.tasks.text_generator import DecoderRun, TextGenerator


class Captioner(TextGenerator[list[int], Caption]):
    """A loaded artifact that captions images. In the terms of `TextGenerator`, a query is the token ids of a prompt.

    Several threads may use it at once. As a context manager, it is closed at the end of the block.
    """

    ARGUMENT = "prompt"

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
                so on. If only `max_length` is given, the artifact's `max_new_tokens`
                does not apply.

        Returns:
            One `Caption` per image, in order; a list of one for a single image.

        Raises:
            RequestError: An argument is invalid or exceeds a limit of the artifact, or the model is closed.
            EngineError: The engine failed during a run.
            OutOfMemoryError: One image does not fit in the CPU's memory.
            UnavailableError: One image does not fit in the memory of another device.
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
        lengths = map(len, prompts or [self.tokenizer.prompt_ids(None)])
        config = self._config(lengths, generation_config, options, batch_size, workers, log_probabilities=log_probabilities)
        queries = iter([ids] for ids in prompts) if isinstance(prompt, (list, tuple)) else repeat([prompts[0]])
        timer = timer or (lambda phase, seconds: None)
        return self._stream(each_image(images), queries, config, batch_size, workers, timer, log_probabilities=log_probabilities)

    def stream_tokens(
        self,
        image: ImageInput,
        *,
        prompt: str | None = None,
        generation_config: GenerationConfig | None = None,
        **options: Unpack[GenerationOptions],
    ) -> Generator[GeneratedToken, None, None]:
        """Caption one image by greedy search or sampling, and yield each token when it is chosen.

        Arguments are those of `caption`. The call itself checks them and reads the image.

        Raises:
            ImageReadError: The image cannot be read.
            RequestError: An argument is invalid, the settings ask for beams or several captions, the artifact has its whole loop in one
                graph, or the model is closed.
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
                the model is closed.
            EngineError, OutOfMemoryError: See `caption`.
        """
        sources = list(each_image(images))
        groups: Sequence[Any] = [captions] if is_image(images) else captions
        if len(sources) != len(groups):
            raise RequestError(f"{len(sources)} images but captions for {len(groups)}")
        scores: list[Float32] = []
        for image, group in zip(sources, groups, strict=True):
            texts = [group] if isinstance(group, str) else list(group)
            scores.append(self._totals(texts, self.token_log_probabilities(image, captions=texts)))
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
        pixels = self._pixels(image)[None]
        return self._log_probabilities(partial(self._encode, pixels), captions)

    def generate(self, images: Sequence[ImageInput], questions: Sequence[str | None], **arguments: Any) -> list[Caption]:  # noqa: ANN401
        """See `TextGenerator.generate`. Captions have no questions."""
        if any(question is not None for question in questions):
            raise RequestError(f"{self.manifest.name}: captions images and answers no questions")
        return self.caption(images, **arguments)

    def reference_log_probabilities(self, image: ImageInput, question: str | None, texts: Sequence[str]) -> list[Float32]:
        """See `TextGenerator.reference_log_probabilities`."""
        return self.token_log_probabilities(image, captions=texts)

    def _result(self, query: list[int], **fields: Any) -> Caption:  # noqa: ANN401
        return Caption(**fields)

    def _runs(self, pixels: Float32, queries: Sequence[tuple[int, list[int]]], timer: PhaseTimer) -> Iterator[DecoderRun]:
        for indices, prompts in by_length([prompt for _, prompt in queries]):
            images = pixels if len(indices) == len(pixels) else pixels[indices]
            yield DecoderRun(queries=indices, prompts=prompts, begin=partial(self._encode, images, timer))

    def _search(
        self, pixels: Float32, queries: Sequence[Sequence[list[int]]], config: GenerationConfig, timer: PhaseTimer
    ) -> list[Hypothesis]:
        if "loop" not in self.session.capabilities:
            return super()._search(pixels, queries, config, timer)
        loop, spec = cast("LoopSession", self.session), self.manifest.tokenizer
        captions: dict[int, Hypothesis] = {}
        for indices, prompts in by_length([prompt for (prompt,) in queries]):
            captions |= zip(indices, run_loop(loop, {"pixels": pixels[indices]}, prompts, spec, config, timer), strict=True)
        return [captions[image] for image in range(len(pixels))]
