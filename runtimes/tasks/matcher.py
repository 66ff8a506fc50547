"""The `Matcher` that `runtimes.load` returns for the task "matching": probabilities and similarities of images and texts.

Axes: B images, T texts, E width of an embedding, G texts of equal length, L tokens.
"""

import logging
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from itertools import islice
from time import perf_counter
from typing import TypeVar, cast

import numpy as np

from runtimes.decoding.match_session import MatchSession
from runtimes.decoding.search import PhaseTimer, by_length
from runtimes.decoding.session import Float32, Int64
from runtimes.errors import RequestError, ToolkitError, check_count
from runtimes.images.prefetch import read_ahead
from runtimes.images.reading import Images, each_image
from runtimes.tasks.loaded_model import LoadedModel
from runtimes.tasks.results import Embedding, Match

logger = logging.getLogger(__name__)

ROWS_PER_RUN = 32
"""Largest number of pairs of an image and a text in a run of the text encoder."""

R = TypeVar("R")
Groups = list[tuple[list[int], Int64]]
"""Indices of G texts of equal length, and their ids i64[G,L]."""


class Matcher(LoadedModel):
    """A loaded artifact that compares images with texts. `runtimes.load` returns one.

    Several threads may use it at once. As a context manager, it is closed at the end of the block. Results do not depend on the batch size,
    nor on the other images and texts.
    """

    def match(self, images: Images, texts: str | Sequence[str], *, batch_size: int = 1, workers: int = 0) -> Float32:
        """Return the probability f32[B,T] of the matching head that each text describes each image.

        Args:
            images: One image or an iterable of images, see `Captioner.caption`.
            texts: One text or several.
            batch_size: Images per run of the image encoder. A batch that does not fit in memory is halved and retried.
            workers: Threads that read images ahead of the model; 0 reads each batch before it runs.

        Raises:
            ImageReadError: An image cannot be read; see `stream` for many images.
            RequestError: A text is empty, too long or no str, another argument is invalid, or the matcher is closed.
            EngineError: The engine failed during a run.
            OutOfMemoryError, UnavailableError: One image does not fit in memory (CPU, other devices).
        """
        groups = self._groups(texts)
        count = sum(len(indices) for indices, _ in groups)
        rows = self._each(images, lambda pixels: self._probabilities(pixels, groups, count)[1], batch_size, workers)
        return _stacked(rows, count)

    def similarity(self, images: Images, texts: str | Sequence[str], *, batch_size: int = 1, workers: int = 0) -> Float32:
        """Return the cosine f32[B,T] of the contrastive embeddings of each image and text. Arguments and errors are those of `match`.

        It is faster than `match`, because the text encoder runs once per text instead of once per pair, and less accurate.
        """
        of_texts = self.embed_texts(texts)
        similarities: Float32 = self.embed_images(images, batch_size=batch_size, workers=workers) @ of_texts.T
        return similarities

    def embed_images(self, images: Images, *, batch_size: int = 1, workers: int = 0) -> Float32:
        """Return the normalized contrastive embeddings f32[B,E] of images. Arguments and errors are those of `match`."""
        return _stacked(self._each(images, self._embeddings, batch_size, workers), self.embedding_width)

    def embed_texts(self, texts: str | Sequence[str]) -> Float32:
        """Return the normalized contrastive embeddings f32[T,E] of texts. Errors are those of `match`."""
        groups = self._groups(texts)
        embeddings = np.empty((sum(len(indices) for indices, _ in groups), self.embedding_width), np.float32)
        for indices, ids in groups:
            for start in range(0, len(ids), ROWS_PER_RUN):
                part = slice(start, start + ROWS_PER_RUN)
                embeddings[indices[part]] = self._match_session.embed_texts(ids[part])
        return embeddings

    def stream(
        self,
        images: Images,
        texts: str | Sequence[str],
        *,
        batch_size: int = 1,
        workers: int = 0,
        timer: PhaseTimer | None = None,
    ) -> Generator[Match, None, None]:
        """Yield the probabilities and similarities of each image. An image that cannot be read yields a `Match` with `error`.

        Arguments and errors are those of `match`. Arguments are checked by the call itself, before the first `next`.

        Args:
            images: See `match`.
            texts: See `match`.
            batch_size: See `match`.
            workers: See `match`.
            timer: Called with the seconds of "read", "encode" and "match" of each batch.
        """
        groups, embedded = self._groups(texts), self.embed_texts(texts)
        timer = timer or (lambda phase, seconds: None)

        def compare(pixels: Float32) -> list[tuple[Float32, Float32]]:
            embeddings, probabilities = self._probabilities(pixels, groups, len(embedded), timer)
            return list(zip(probabilities, embeddings @ embedded.T, strict=True))

        results = self._each(images, compare, batch_size, workers, timer)
        return (
            Match(error=str(each), code=each.code)
            if isinstance(each, ToolkitError)
            else Match(probabilities=tuple(each[0].tolist()), similarities=tuple(each[1].tolist()))
            for each in results
        )

    def stream_embeddings(self, images: Images, *, batch_size: int = 1, workers: int = 0) -> Generator[Embedding, None, None]:
        """Yield the embedding of each image. An image that cannot be read yields an `Embedding` with `error`; see `stream`."""
        results = self._each(images, self._embeddings, batch_size, workers)
        return (
            Embedding(error=str(each), code=each.code) if isinstance(each, ToolkitError) else Embedding(vector=each) for each in results
        )

    @property
    def embedding_width(self) -> int:
        """E: width of an embedding."""
        return int(self.manifest.model.embedding_width)  # type: ignore[attr-defined]  # a BlipMatchingSpec

    @property
    def _match_session(self) -> MatchSession:
        return cast("MatchSession", self.session)

    def _groups(self, texts: str | Sequence[str]) -> Groups:
        """Return the token ids of texts, by length.

        Raises:
            RequestError: There is no text, or one is empty, too long or no str.
        """
        if not isinstance(texts, Iterable):
            raise RequestError(f"texts must be a str or a list of str, not {type(texts).__name__}")
        texts, longest = [texts] if isinstance(texts, str) else list(texts), self.manifest.model.max_positions
        if not texts:
            raise RequestError("texts is empty: name at least one text")
        if empty := [index for index, text in enumerate(texts) if isinstance(text, str) and not text.strip()]:
            raise RequestError(f"text {empty[0]} is empty: write what an image may show")
        ids = [self.tokenizer.encoder_ids(text) for text in texts]
        if too_long := [index for index, tokens in enumerate(ids) if len(tokens) > longest]:
            index = too_long[0]
            raise RequestError(f"text {index} has {len(ids[index])} tokens, this model takes at most {longest}: shorten it")
        return list(by_length(ids))

    def _each(
        self,
        images: Images,
        run: Callable[[Float32], Iterable[R]],
        batch_size: int,
        workers: int,
        timer: PhaseTimer = lambda phase, seconds: None,
    ) -> Generator[R | ToolkitError, None, None]:
        """Yield the result of `run` for each image, or the error of an image that cannot be read.

        Args:
            images: See `match`.
            run: Called with pixels f32[B,3,S,S]; returns B results.
            batch_size: See `match`.
            workers: See `match`.
            timer: Called with "read".
        """
        check_count("batch_size", batch_size)
        check_count("workers", workers, least=0)
        self.session  # noqa: B018 - raises if the matcher is closed
        return self._run_each(images, run, batch_size, workers, timer)

    def _run_each(
        self, images: Images, run: Callable[[Float32], Iterable[R]], batch_size: int, workers: int, timer: PhaseTimer
    ) -> Generator[R | ToolkitError, None, None]:
        with closing(read_ahead(self._read, each_image(images), workers, ahead=batch_size + workers)) as reading:
            while True:
                started = perf_counter()
                if not (read := list(islice(reading, batch_size))):
                    return
                timer("read", perf_counter() - started)
                errors = [each if isinstance(each, ToolkitError) else None for each in read]
                pixels = [each for each in read if not isinstance(each, ToolkitError)]
                read.clear()
                results = iter(self._halving(np.stack(pixels), run) if pixels else ())
                for error in errors:
                    yield next(results) if error is None else error

    def _halving(self, pixels: Float32, run: Callable[[Float32], Iterable[R]]) -> list[R]:
        """Run on images f32[B,3,S,S]; halve a batch that does not fit in memory."""
        try:
            return list(run(pixels))
        except MemoryError as error:
            if len(pixels) == 1:
                raise self._too_little_memory(error) from error
        half = len(pixels) // 2
        logger.warning("out of memory with %d images at once; trying %d", len(pixels), half)
        return [each for part in (slice(half), slice(half, None)) for each in self._halving(pixels[part], run)]

    def _embeddings(self, pixels: Float32) -> Float32:
        return self._match_session.encode({"pixels": pixels})[1]

    def _probabilities(
        self, pixels: Float32, groups: Groups, texts: int, timer: PhaseTimer = lambda phase, seconds: None
    ) -> tuple[Float32, Float32]:
        """Return the embeddings f32[B,E] of images f32[B,3,S,S] and the probabilities f32[B,T] of `texts` texts in groups."""
        started = perf_counter()
        state, embeddings = self._match_session.encode({"pixels": pixels})
        timer("encode", perf_counter() - started)
        started = perf_counter()
        probabilities = np.empty((len(pixels), texts), np.float32)
        per_run = max(1, ROWS_PER_RUN // len(pixels))
        for indices, ids in groups:
            for start in range(0, len(ids), per_run):
                part = ids[start : start + per_run]
                rows = self._match_session.match(np.tile(part, (len(pixels), 1)), state)
                probabilities[:, indices[start : start + per_run]] = rows.reshape(len(pixels), -1)
        timer("match", perf_counter() - started)
        return embeddings, probabilities


def _stacked(rows: Iterable[Float32 | ToolkitError], width: int) -> Float32:
    """Return rows f32[width] as one array f32[B,width]; raise the error of the first image that could not be read."""
    values: list[Float32] = []
    for row in rows:
        if isinstance(row, ToolkitError):
            raise row
        values.append(row)
    return np.array(values, np.float32).reshape(-1, width)
