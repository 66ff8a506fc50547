"""Caption many images to one file. The file appears with an atomic rename, when every image has a row.

Images are captioned in subprocesses (`runtimes.pool.supervisor`). Meanwhile their rows are in a journal (`toolkit.batch.journal`).
"""

import hashlib
import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, Literal

from runtimes.artifact import json_dataclass
from runtimes.artifact.folder import sha256_of
from runtimes.errors import OutputError, OutputExistsError
from runtimes.pool.calibration import ScheduleSearch, fixed_schedule, in_batches, with_schedule
from runtimes.pool.exchange import Done
from runtimes.pool.job import CaptionJob, Item, Ready, Request, Schedule
from runtimes.pool.rows import Row, json_lines, text_lines
from runtimes.pool.supervisor import Supervisor
from runtimes.storage.atomic_write import locked, write_atomically
from runtimes.workers.logs import CHOICE
from toolkit.batch.finished import is_unchanged, meta_of, read_finished, write_meta
from toolkit.batch.journal import Journal, partial_of

logger = logging.getLogger(__name__)

NOT_THESE = "It is the output of other images, or it was changed after its run: name another output, or use --overwrite."
ABSENT = {field.name: field.default for field in fields(Request) if field.default is not MISSING}
"""Values of options that older versions of the toolkit did not have, for their journals."""


def caption_into(
    output: Path,
    job: CaptionJob,
    images: Sequence[str],
    *,
    processes: int | Literal["auto"] = 1,
    raise_batch: bool = False,
    overwrite: bool,
    resume: bool,
    retry_errors: frozenset[str] = frozenset(),
    as_json: bool,
    on_rows: Callable[[Sequence[Row]], None],
    on_resumed: Callable[[int], None],
) -> int:
    """Caption images and write the output file.

    Args:
        output: The file, whose lines are in the order of `images`.
        job: The artifact and the request.
        images: Paths of the images, each one once.
        processes: Number of subprocesses. "auto": chosen by a calibration on the first images (`runtimes.pool.calibration`), and
            stored in the journal for a resumed run.
        raise_batch: Whether "auto" may choose more images per run, where captions do not depend on it.
        overwrite: Replace an existing file, and discard the journal of a stopped run.
        resume: Continue a stopped run, or start if there is none. In a finished file, caption only the images that have changed since.
        retry_errors: Codes of error rows of which a resumed run captions the images again, besides `ENVIRONMENT_FAILED`.
        as_json: Write JSON lines for all images; otherwise text lines, without the images that could not be captioned.
        on_rows: Called with the rows of each batch.
        on_resumed: Called once with the number of images that already have a row.

    Returns:
        The number of images that could not be captioned.

    Raises:
        OutputExistsError: The file or the journal of a stopped run exists, and neither `overwrite` nor `resume` applies.
        OutputError: The file cannot be written, or another process is writing it.
        ToolkitError: The artifact or the request is invalid.
    """
    with locked(output, meta_of(output)):
        partial, finished = partial_of(output), None
        if output.exists() and not overwrite:
            finished = read_finished(output, images) if resume and not partial.exists() else None
            if not (resume and (partial.exists() or finished)):
                raise OutputExistsError(output, *((NOT_THESE,) if resume else ()))
        if not resume:
            if partial.exists() and not overwrite:
                raise OutputExistsError(partial, "It belongs to a stopped run: continue it with --resume, or start again with --overwrite.")
            partial.unlink(missing_ok=True)
        with closing(Journal(output, images, finished, retry_errors)) as journal:
            on_resumed(done := journal.done)
            rest = _Rest(journal, job, images, {"json": as_json}, on_rows)
            rest.caption(processes, raise_batch=raise_batch)
            if finished is not None and done == len(images):
                return journal.failed
            digest = _sha256(_lines(journal, as_json=as_json))
            if output.exists() and not overwrite and not is_unchanged(output) and sha256_of(output) != digest:
                raise OutputExistsError(output)  # created by another program; a run killed before write_meta leaves the same bytes
            try:
                write_atomically(output, _lines(journal, as_json=as_json))
                write_meta(output, journal.settings or {}, digest, journal.stamped_rows())
            except OSError as error:
                raise OutputError(output, f"{error.strerror or error}; continue with --resume from {partial.name}") from error
            failed = journal.failed
            journal.close(remove=True)
            return failed


class _Rest:
    """The images without a row. A batch with a missing row is captioned whole, so that batches equal those of an unbroken run."""

    def __init__(
        self,
        journal: Journal,
        job: CaptionJob,
        images: Sequence[str],
        settings: Mapping[str, Any],
        on_rows: Callable[[Sequence[Row]], None],
    ) -> None:
        self._journal, self._job, self._total, self._settings, self._on_rows = journal, job, len(images), settings, on_rows
        self._schedule = None if journal.schedule is None else json_dataclass.load(Schedule, journal.schedule)[0]
        size = job.request.batch_size if self._schedule is None else self._schedule.batch_size
        batches = (images[start : start + size] for start in range(0, len(images), size))
        self._images = [image for batch in batches if not all(map(journal.has, batch)) for image in batch]
        self._started = False

    def caption(self, processes: int | Literal["auto"], *, raise_batch: bool) -> None:
        """Caption the images and add their rows to the journal."""
        if not self._images:
            with Supervisor() as supervisor:  # another artifact or another setting is an error even if nothing is left to do
                self._begin(supervisor.open(self._job))
            return
        items, proven = [Item(image) for image in self._images], self._journal.done > self._journal.failed
        if processes != "auto":
            done = self._run(items, fixed_schedule(self._job, processes, ""), proven=proven)
        elif self._schedule is not None:
            CHOICE.info("%s, as in the stopped run: %s", self._schedule, self._schedule.reason)
            done = self._run(items, self._schedule, proven=proven)
        else:
            calibration = ScheduleSearch(self._job, len(items), raise_batch=raise_batch)
            done = calibration.run(items, self._begin, self._choose, proven=proven)
        try:
            with closing(done):  # ends the subprocesses and their threads
                for _, rows in done:
                    self._journal.add(rows)
                    self._on_rows(rows)
        except BaseException:
            if self._started:
                logger.warning("stopped with %d of %d images done; continue with --resume", self._journal.done, self._total)
            raise

    def _run(self, items: Sequence[Item], schedule: Schedule, *, proven: bool) -> Generator[Done, None, None]:
        job = with_schedule(self._job, schedule)
        with Supervisor(schedule.processes) as supervisor:
            yield from supervisor.run(job, in_batches(items, schedule.batch_size), self._begin, proven=proven)

    def _begin(self, ready: Ready) -> None:
        facts = {name: value for name, value in json_dataclass.dump(ready).items() if name != "batch_invariant"}
        self._journal.begin(facts | json_dataclass.dump(self._job.request) | self._settings, ABSENT)
        self._started = True

    def _choose(self, schedule: Schedule) -> None:
        CHOICE.info("%s: %s", schedule, schedule.reason)
        self._journal.choose(json_dataclass.dump(schedule))


def _lines(journal: Journal, *, as_json: bool) -> Iterator[bytes]:
    for row in journal.rows():
        if as_json or "error" not in row:
            yield f"{json_lines(row) if as_json else text_lines(row)}\n".encode()


def _sha256(lines: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line)
    return digest.hexdigest()
