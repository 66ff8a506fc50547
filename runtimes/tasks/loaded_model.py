"""The base of everything that `runtimes.load` returns: an engine's session with its tokenizer, its manifest and the reading of images."""

import os
from collections.abc import Callable
from typing import Any, Self

from runtimes.artifact.manifest import Manifest
from runtimes.decoding.drafts.drafter import Drafter
from runtimes.decoding.guarded_session import guarded
from runtimes.decoding.session import Float32, LoopSession, Session
from runtimes.decoding.tokenizer import CaptionTokenizer
from runtimes.errors import EnvironmentFailedError, OutOfMemoryError, RequestError, ToolkitError, UnavailableError, first_line
from runtimes.images.reading import MAX_PIXELS, ImageInput, image_name, read_pixels
from runtimes.tasks.results import LoadTimings, ModelInfo


class LoadedModel:
    """A loaded artifact. As a context manager, it is closed at the end of the block.

    Several threads may use it at once.
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
        self.reload: tuple[Callable[..., LoadedModel], tuple[Any, ...]] | None = None
        """Function and arguments that load the same artifact again; set by `runtimes.load`."""
        self.drafter: Drafter | None = None
        """Drafts tokens in greedy search of one text; set by `runtimes.load`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the path and the settings; unpickling loads the artifact again.

        Raises:
            RequestError: The model is closed, or was not made by `runtimes.load`.
        """
        if self._session is None or self.reload is None:
            raise RequestError(f"{self.manifest.name}: only a model that is open and was made by runtimes.load can be pickled")
        return self.reload

    def close(self) -> None:
        """Release the model's memory. Later calls raise `RequestError`; a second `close` does nothing."""
        self._session = None

    @property
    def session(self) -> Session | LoopSession:
        """The engine's session.

        Raises:
            RequestError: The model is closed, or it was loaded before this process was forked.
        """
        if self._session is None:
            raise RequestError(f"{self.manifest.name}: this model is closed; load the artifact again")
        if os.getpid() != self._process:  # the threads of the engine are not in this process, so a run would wait for them forever
            raise RequestError(
                f"{self.manifest.name}: this model was loaded before a fork; load the artifact in each process after the fork "
                '(gunicorn: without --preload; multiprocessing: start method "spawn", or load in the initializer)'
            )
        return self._session

    @session.setter
    def session(self, session: Session | LoopSession) -> None:
        self._session = session

    def info(self) -> ModelInfo:
        """Return the artifact, engine, device and settings in use.

        Raises:
            RequestError: The model is closed.
        """
        manifest = self.manifest
        return ModelInfo(
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

    def _pixels(self, image: ImageInput) -> Float32:
        """Return pixels f32[3,S,S]."""
        return read_pixels(image, self.manifest.image, max_pixels=self._max_pixels, reduce_large=self._reduce_large)

    def _read(self, image: ImageInput) -> Float32 | ToolkitError:
        """Return pixels f32[3,S,S], or the error."""
        try:
            return self._pixels(image)
        except ToolkitError as error:
            return error.with_traceback(None)  # a traceback would keep the image in memory
        except MemoryError:
            return EnvironmentFailedError(image_name(image), "not enough memory")

    def _too_little_memory(self, error: MemoryError) -> ToolkitError:
        """Return the error of one image that does not fit in memory."""
        if self.session.info().device == "cpu":
            return OutOfMemoryError(f"one image with {self.manifest.name}")
        return UnavailableError(f"not enough device memory for one image: {first_line(error)}. Use --device cpu.")
