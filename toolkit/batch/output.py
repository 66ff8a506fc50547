"""Captions of many images as one file: images and a request go in; the file is there when every image has its row, and not before.

Images are captioned in another process (`runtimes.pool.supervisor`); their rows wait in a journal (`toolkit.batch.journal`).
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from runtimes.artifact import json_dataclass
from runtimes.artifact.folder import sha256_of
from runtimes.errors import OutputError, OutputExistsError
from runtimes.pool.job import CaptionJob, Ready
from runtimes.pool.rows import Row, json_line, text_line
from runtimes.pool.supervisor import supervise
from runtimes.storage.atomic_write import locked, write_atomically
from toolkit.batch.finished import made_here, meta_of, read_finished, write_meta
from toolkit.batch.journal import Journal, partial_of

logger = logging.getLogger(__name__)


def caption_into(
    output: Path,
    job: CaptionJob,
    *,
    overwrite: bool,
    resume: bool,
    as_json: bool,
    on_rows: Callable[[Sequence[Row]], None],
    on_resumed: Callable[[int], None],
) -> int:
    """Caption images and write the file.

    Args:
        output: The file; lines in the order of the job's images.
        job: Each image once.
        overwrite: Replace the file, and start again where a run was stopped.
        resume: Go on where a run was stopped; with nothing to go on from, start. A finished file is checked, and completed where images
            changed since.
        as_json: JSON lines, bad images included; else text lines of good ones.
        on_rows: Told of each batch's rows as they are made.
        on_resumed: Told how many images had a row already.

    Returns:
        How many images could not be captioned.

    Raises:
        OutputExistsError: The file or an unfinished run is there, and nobody said what to do with it.
        OutputError: It cannot be written, or another process is writing it.
        ToolkitError: What is wrong with artifact or request.
    """
    images = job.images
    with locked(output, meta_of(output)):
        partial, finished = partial_of(output), None
        if output.exists() and not overwrite:
            finished = read_finished(output, images) if resume and not partial.exists() else None
            if not (resume and (partial.exists() or finished)):
                raise OutputExistsError(output)
        if not resume:
            if partial.exists() and not overwrite:
                raise OutputExistsError(partial, "It is a run that was stopped: go on with --resume, or start again with --overwrite.")
            partial.unlink(missing_ok=True)
        with closing(Journal(output, images, finished)) as journal:
            on_resumed(done := journal.done)
            _caption_rest(journal, job, {"json": as_json}, on_rows)
            if finished is not None and done == len(images):
                return journal.failed
            digest = _sha256(_lines(journal, as_json=as_json))
            if output.exists() and not overwrite and not made_here(output) and sha256_of(output) != digest:
                raise OutputExistsError(output)  # somebody put it there since; not what a kill left between writing it and the next line
            try:
                write_atomically(output, _lines(journal, as_json=as_json))
                write_meta(output, journal.settings or {}, digest, journal.stamped_rows())
            except OSError as error:
                raise OutputError(output, f"{error.strerror or error}; the captions are in {partial.name}, and --resume goes on") from error
            failed = journal.failed
            journal.close(remove=True)
            return failed


def _caption_rest(journal: Journal, job: CaptionJob, settings: Mapping[str, Any], on_rows: Callable[[Sequence[Row]], None]) -> None:
    """Give every image a row. A batch counts as a whole: those of its images that have rows are captioned with the others again."""
    images, size = job.images, job.request.batch_size
    batches = [images[start : start + size] for start in range(0, len(images), size)]
    todo = [batch for batch in batches if not all(map(journal.has, batch))]
    begun = False

    def begin(ready: Ready) -> None:
        nonlocal begun
        journal.begin(json_dataclass.dump(ready) | json_dataclass.dump(job.request) | settings)
        begun = True

    try:
        for rows in supervise(job, todo, begin, proven=journal.done > journal.failed):
            journal.add(rows)
            on_rows(rows)
    except BaseException:
        if begun:
            logger.warning("stopped with %d of %d images done; --resume goes on", journal.done, len(images))
        raise


def _lines(journal: Journal, *, as_json: bool) -> Iterator[bytes]:
    for row in journal.rows():
        if as_json or "error" not in row:
            yield f"{json_line(row) if as_json else text_line(row)}\n".encode()


def _sha256(lines: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line)
    return digest.hexdigest()
