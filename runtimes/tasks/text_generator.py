"""The base of tasks that generate texts about images: batches, the search, scores, and errors of single images.

A query is the input of a text besides the pixels: the prompt of a caption, or a question. An image has one or more queries.
Axes: B images, S pixels per side, Q queries, T tokens of a prompt, V vocabulary.
"""

import logging
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice, repeat
from time import perf_counter
from typing import Any, Generic, TypeVar

import numpy as np

from runtimes.artifact.generation import GenerationConfig, GenerationOptions
from runtimes.decoding.hypothesis import Hypothesis
from runtimes.decoding.request import checked_config, require_steps
from runtimes.decoding.scoring import sequence_log_probability, token_log_probabilities
from runtimes.decoding.search import PhaseTimer, generate, generate_tokens
from runtimes.decoding.session import Float32, Int64, Session, State, require
from runtimes.errors import RequestError, ToolkitError, check_count
from runtimes.images.prefetch import read_ahead
from runtimes.images.reading import ImageInput
from runtimes.tasks.loaded_model import LoadedModel
from runtimes.tasks.registry import find_task
from runtimes.tasks.results import FinishReason, GeneratedText, GeneratedToken

logger = logging.getLogger(__name__)

Query = TypeVar("Query")
"""The input of a text besides the pixels of its image."""
Text = TypeVar("Text", bound=GeneratedText)
"""The class of the results."""


@dataclass(frozen=True, kw_only=True)
class DecoderRun:
    """Queries whose texts are generated together."""

    queries: Sequence[int]
    """Indices among the queries of the batch."""
    prompts: Int64
    """i64[Q,T], the ids that each text starts with."""
    begin: Callable[[], State]
    """Returns the state before the prompts. The caller must not store the state, so that the search can free its memory."""


class TextGenerator(LoadedModel, ABC, Generic[Query, Text]):
    """A loaded artifact whose decoder generates texts about images."""

    ARGUMENT: str
    """Name of the argument with the queries, for error messages."""

    @property
    def stepwise_session(self) -> Session:
        """The engine's session as one that runs token by token.

        Raises:
            RequestError: The artifact runs its whole loop in one graph, or the model is closed.
        """
        return require(self.session, "step")

    def text_ids(self, text: str) -> list[int]:
        """Return the ids that scores use: start token, text, end token; cut at the number of positions of the model."""
        return self.tokenizer.text_ids(text)[: self.manifest.model.max_positions]

    def strip_prompt(self, text: GeneratedText, prompt: str | None) -> str:
        """Return a text without its prompt."""
        return self.tokenizer.text(text.token_ids[len(self.tokenizer.prompt_ids(prompt)) :]).strip()

    @abstractmethod
    def generate(self, images: Sequence[ImageInput], questions: Sequence[str | None], **arguments: Any) -> list[Text]:  # noqa: ANN401
        """Return one text for each pair of image and question, whatever the task; arguments and errors are those of the task's method.

        Args:
            images: One image for each text.
            questions: Question of each text; None for each if the task has none.
            arguments: `batch_size`, `workers`, `generation_config`, `log_probabilities`, `timer` and settings of the search by name.
        """

    @abstractmethod
    def reference_log_probabilities(self, image: ImageInput, question: str | None, texts: Sequence[str]) -> list[Float32]:
        """Return the natural-log probabilities f32[T,V] of given texts by teacher forcing, whatever the task.

        Args:
            image: One image.
            question: Question that the texts answer; None if the task has none.
            texts: Texts about this image. T is the number of tokens of a text, end token included, and V the size of the vocabulary.
        """

    @abstractmethod
    def _runs(self, pixels: Float32, queries: Sequence[tuple[int, Query]], timer: PhaseTimer) -> Iterator[DecoderRun]:
        """Divide queries among runs of the decoder.

        Args:
            pixels: f32[B,3,S,S].
            queries: Index of an image, and a query about it. Every image has at least one query; the queries of an image are adjacent.
            timer: Called with "encode".
        """

    @abstractmethod
    def _result(self, query: Query, **fields: Any) -> Text:  # noqa: ANN401 - fields of GeneratedText
        """Return the result of a query."""

    def _key(self, pixels: Float32, query: Query) -> int:
        """Return the number that determines the random numbers of a query, together with the seed."""
        return zlib.crc32(pixels.tobytes())

    def _config(
        self,
        prompts: Iterable[int],
        base: GenerationConfig | None,
        options: GenerationOptions,
        batch_size: int,
        workers: int,
        *,
        log_probabilities: bool,
    ) -> GenerationConfig:
        """Return the settings of a request; raise RequestError if an argument is invalid. `prompts`: length of each prompt in tokens."""
        for length in set(prompts):
            config = checked_config(self.manifest, self.session, length, base or self.manifest.defaults, options)
        require_steps(self.manifest, self.session, ("log_probabilities",) if log_probabilities else ())
        check_count("batch_size", batch_size)
        check_count("workers", workers, least=0)
        return config

    def _log_probabilities(self, begin: Callable[[], State], texts: Sequence[str]) -> list[Float32]:
        """Return the log-probabilities f32[T,V] of texts that start from a state of one row."""
        ids = [self.text_ids(text) for text in texts]
        if not ids:
            raise RequestError(f"score needs at least one {find_task(self.manifest.task).text}")
        return token_log_probabilities(require(self.session, "score"), begin(), ids, self.manifest.tokenizer.pad_id)

    def _totals(self, texts: Sequence[str], rows: Sequence[Float32]) -> Float32:
        """Return the log-probability f32[K] of K texts from those of their tokens."""
        values = [sequence_log_probability(row, self.text_ids(text)) for row, text in zip(rows, texts, strict=True)]
        return np.array(values, dtype=np.float32)

    def _stream(
        self,
        images: Iterable[ImageInput],
        queries: Iterator[Sequence[Query]],
        config: GenerationConfig,
        batch_size: int,
        workers: int,
        timer: PhaseTimer,
        *,
        log_probabilities: bool,
    ) -> Generator[Text, None, None]:
        """Yield the texts of each image. `queries` yields those of one image after another; a `repeat` serves any number of images."""
        with closing(read_ahead(self._read, images, workers, ahead=batch_size + workers)) as reading:
            while True:
                started = perf_counter()
                if not (read := list(islice(reading, batch_size))):
                    if not isinstance(queries, repeat) and next(queries, None) is not None:
                        raise RequestError(f"{self.ARGUMENT} is a list, and there are fewer images than {self.ARGUMENT}s")
                    return
                timer("read", perf_counter() - started)
                batch = list(islice(queries, len(read)))
                if len(batch) < len(read):
                    raise RequestError(f"{self.ARGUMENT} is a list, and there are more images than {self.ARGUMENT}s")
                yield from self._batch(read, batch, config, timer, log_probabilities=log_probabilities)

    def _batch(
        self,
        read: list[Float32 | ToolkitError],
        queries: Sequence[Sequence[Query]],
        config: GenerationConfig,
        timer: PhaseTimer,
        *,
        log_probabilities: bool,
    ) -> Iterator[Text]:
        """Yield the texts of images from `_read`. The error of an image becomes the `error` of its texts. Empty `read` to free memory."""
        errors = [each if isinstance(each, ToolkitError) else None for each in read]
        pixels = [each for each in read if not isinstance(each, ToolkitError)]
        read.clear()
        readable = [group for group, error in zip(queries, errors, strict=True) if error is None]
        hypotheses = iter(self._halving_search(np.stack(pixels), readable, config, timer) if pixels else [])
        for group, error in zip(queries, errors, strict=True):
            for query in group:
                if error is not None:
                    yield self._result(query, text="", token_ids=(), score=None, error=str(error), code=error.code)
                else:
                    yield self._text(query, next(hypotheses), log_probabilities=log_probabilities)

    def _halving_search(
        self, pixels: Float32, queries: Sequence[Sequence[Query]], config: GenerationConfig, timer: PhaseTimer
    ) -> list[Hypothesis]:
        """Search as `_search` does; halve a batch that does not fit in memory."""
        try:
            return self._search(pixels, queries, config, timer)
        except MemoryError as error:
            if len(pixels) == 1:
                raise self._too_little_memory(error) from error
        half = len(pixels) // 2
        logger.warning("out of memory with %d images at once; trying %d", len(pixels), half)
        parts = (slice(half), slice(half, None))
        return [each for part in parts for each in self._halving_search(pixels[part], queries[part], config, timer)]

    def _text(self, query: Query, hypothesis: Hypothesis, *, log_probabilities: bool) -> Text:
        ids = hypothesis.token_ids
        return self._result(
            query,
            text=self.tokenizer.text(ids),
            token_ids=ids,
            score=hypothesis.score,
            log_probabilities=hypothesis.log_probabilities if log_probabilities else None,
            finish_reason="stop" if ids[-1] == self.manifest.tokenizer.eos_id else "length",
            alternatives=tuple(self._text(query, other, log_probabilities=log_probabilities) for other in hypothesis.alternatives),
        )

    def _search(self, pixels: Float32, queries: Sequence[Sequence[Query]], config: GenerationConfig, timer: PhaseTimer) -> list[Hypothesis]:
        """Generate the texts of images f32[B,3,S,S], one for each query of each image, in this order."""
        pairs = [(image, query) for image, group in enumerate(queries) for query in group]
        keys = [self._key(pixels[image], query) for image, query in pairs] if config.do_sample else []
        session, spec = self.stepwise_session, self.manifest.tokenizer
        texts: dict[int, Hypothesis] = {}
        for run in self._runs(pixels, pairs, timer):
            run_keys = [keys[query] for query in run.queries] if keys else []
            fitting = config.within(self.manifest.model.max_positions, run.prompts.shape[1])
            hypotheses = generate(session, run.begin(), run.prompts, spec, fitting, timer, run_keys, self.drafter)
            texts |= zip(run.queries, hypotheses, strict=True)
        return [texts[query] for query in range(len(pairs))]

    def _stream_tokens(self, pixels: Float32, query: Query, config: GenerationConfig) -> Generator[GeneratedToken, None, None]:
        """Yield the tokens of one text about an image f32[3,S,S]."""
        eos_id, key = self.manifest.tokenizer.eos_id, self._key(pixels, query)
        try:
            (run,) = self._runs(pixels[None], [(0, query)], lambda phase, seconds: None)
            ids: list[int] = run.prompts[0].tolist()
            config = config.within(self.manifest.model.max_positions, len(ids))
            longest = config.max_length_after(len(ids))
            spec, session = self.manifest.tokenizer, self.stepwise_session
            for token_id, log_probability in generate_tokens(session, run.begin(), run.prompts, spec, config, key, self.drafter):
                ids.append(token_id)
                reason: FinishReason | None = "stop" if token_id == eos_id else "length" if len(ids) == longest else None
                text = self.tokenizer.text(ids)
                yield GeneratedToken(token_id=token_id, log_probability=log_probability, text=text, finish_reason=reason)
        except MemoryError as error:
            raise self._too_little_memory(error) from error

    def _encode(self, pixels: Float32, timer: PhaseTimer = lambda phase, seconds: None) -> State:
        """Encode images f32[B,3,S,S]."""
        started = perf_counter()
        state = self.stepwise_session.encode({"pixels": pixels})
        timer("encode", perf_counter() - started)
        return state
