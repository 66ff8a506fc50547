"""`CaptionerPool`: captioners in processes that share one queue."""

import logging
import os
from collections.abc import Generator, Iterator, Mapping, Sized
from contextlib import closing
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import Any, Literal, Self, Unpack

from runtimes.artifact import json_dataclass
from runtimes.artifact.generation import GenerationOptions
from runtimes.decoding.drafts.open_drafter import DraftMode, check_draft
from runtimes.errors import RequestError, check_count
from runtimes.images.reading import MAX_PIXELS, Images, each_image, image_name
from runtimes.pool.calibration import ScheduleSearch, fixed_schedule, in_batches, with_schedule
from runtimes.pool.exchange import Done
from runtimes.pool.job import DRAFT_MODES, CaptionJob, Item, Request, Schedule
from runtimes.pool.rows import Row, caption_of
from runtimes.pool.supervisor import Supervisor
from runtimes.tasks.results import Caption

MAX_TIMEOUT_S = 1e7
"""About 115 days. Clocks of the system do not take longer waits."""
BUSY = "a call of this pool is running; finish it or close its iterator first, or make another pool"


class CaptionerPool:
    """Captions many images with all cores. As a context manager, it ends its processes at the end of the block.

    Use it as `runtimes.load`'s captioner, for paths and bytes of files. An image that crashes a process, or takes too long, yields a
    `Caption` with an error. One call runs at a time.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        processes: int | Literal["auto"] = "auto",
        threads: int | None = None,
        device: str = "auto",
        max_pixels: int = MAX_PIXELS,
        reduce_large: bool = False,
        draft: DraftMode = None,
        provider_options: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """Set up a pool. Its processes start with the first call.

        Args:
            path: See `runtimes.load`.
            processes: Number of captioners. "auto": the first call captions its first images in several ways and chooses; see `schedule`.
            threads: CPU threads of each captioner. None: the physical cores, divided by the number of captioners.
            device: See `runtimes.load`.
            max_pixels: See `runtimes.load`.
            reduce_large: See `runtimes.load`.
            draft: See `runtimes.load`.
            provider_options: See `runtimes.load`.
            timeout_s: Time limit per image; None: no limit.

        Raises:
            RequestError: An argument has a wrong type or is out of range.
        """
        if processes != "auto":
            check_count("processes", processes)
        if threads is not None:
            check_count("threads", threads)
        check_count("max_pixels", max_pixels)
        check_draft(draft)
        if timeout_s is not None and not (isinstance(timeout_s, Real) and 0 < timeout_s <= MAX_TIMEOUT_S):
            raise RequestError(f"timeout_s must be a number above 0 and at most {MAX_TIMEOUT_S:,.0f}, or None, not {timeout_s!r}")
        self._path, self._device, self._threads, self._timeout_s = Path(path), device, threads, timeout_s
        self._provider_options = dict(provider_options or {})
        self._max_pixels, self._reduce_large = max_pixels, reduce_large
        self._draft = next((name for name, mode in DRAFT_MODES.items() if mode == draft), None)
        self._processes, self._running = processes, False
        self._supervisor: Supervisor | None = None
        self.schedule: Schedule | None = None
        """Number of processes and threads, and the reason; None before they are chosen."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes. A later call starts them again."""
        if self._supervisor is not None:
            self._supervisor.close()
            self._supervisor = None

    def caption(self, images: Images, **options: Any) -> list[Caption]:  # noqa: ANN401 - those of `stream`
        """Caption images and return one `Caption` per image, in order; see `stream`."""
        return list(self.stream(images, **options))

    def stream(
        self,
        images: Images,
        *,
        prompt: str | None = None,
        batch_size: int = 1,
        workers: int = 1,
        log_probabilities: bool = False,
        **options: Unpack[GenerationOptions],
    ) -> Generator[Caption, None, None]:
        """Caption images as `Captioner.stream` does, and yield the captions in the order of the images.

        Args:
            images: Paths or bytes of files; an iterator is consumed by threads.
            prompt: Text that every caption starts with.
            batch_size: See `Captioner.caption`.
            workers: Threads of each captioner that read images ahead of the model.
            log_probabilities: See `Captioner.caption`.
            options: See `Captioner.caption`.

        Raises:
            RequestError: An image is neither a path nor bytes, a setting is invalid, or another call is running.
            ArtifactCrashError: The processes crash for every image.
            ToolkitError: See `Captioner.caption` and `runtimes.load`.
        """
        if self._running:
            raise RequestError(BUSY)
        check_count("batch_size", batch_size)
        if not (prompt is None or isinstance(prompt, str)):
            raise RequestError(f"the prompt of a pool must be one text for all images, or None, not {prompt!r:.60}")
        items = _items(images)
        job = CaptionJob(
            artifact=str(self._path),
            device=self._device,
            threads=self._threads,
            provider_options=self._provider_options,
            timeout_s=self._timeout_s,
            readers=workers,
            request=self._request(prompt, batch_size, options, log_probabilities=log_probabilities),
            log_level=logging.getLogger().getEffectiveLevel(),
        )
        return self._stream(self._run(job, items, len(images) if isinstance(images, Sized) else None))

    def _request(self, prompt: str | None, batch_size: int, options: GenerationOptions, *, log_probabilities: bool) -> Request:
        document = {
            **dict.fromkeys(("num_beams", "min_length", "max_length")),
            **options,
            "prompt": prompt,
            "batch_size": batch_size,
            "max_pixels": self._max_pixels,
            "reduce_large": self._reduce_large,
            "draft": self._draft,
            "strip_prompt": False,
            "log_probabilities": log_probabilities,
        }
        request, problems = json_dataclass.load(Request, document)
        if request is None:
            raise RequestError(f"invalid setting of a caption: {'; '.join(problems)}")
        return request

    def _run(self, job: CaptionJob, items: Iterator[Item], count: int | None) -> Generator[Done, None, None]:
        if self.schedule is None and self._processes != "auto":
            self.schedule = fixed_schedule(job, self._processes, "as requested")
        if self.schedule is None:
            yield from ScheduleSearch(job, count, raise_batch=False).run(items, lambda ready: None, self._choose)
            return
        self._supervisor = self._supervisor or Supervisor(self.schedule.processes)
        size = job.request.batch_size
        yield from self._supervisor.run(with_schedule(job, replace(self.schedule, batch_size=size)), in_batches(items, size))

    def _choose(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def _stream(self, run: Generator[Done, None, None]) -> Generator[Caption, None, None]:
        """Yield captions in the order of the images."""
        if self._running:
            raise RequestError(BUSY)
        early: dict[int, Row] = {}
        self._running, expected = True, 0
        try:
            with closing(run):
                for batch, rows in run:
                    early.update({item.index: row for item, row in zip(batch, rows, strict=True)})
                    while (row := early.pop(expected, None)) is not None:
                        expected += 1
                        yield caption_of(row)
        finally:
            self._running = False


def _items(images: Images) -> Iterator[Item]:
    for index, image in enumerate(each_image(images)):
        if isinstance(image, bytes):
            yield Item(image_name(image), image, index)
        elif isinstance(image, (str, os.PathLike)):
            yield Item(os.fspath(image), index=index)
        else:
            raise RequestError(
                f"a pool captions paths and bytes of files, not {type(image).__name__}: encode the image, or use runtimes.load"
            )
