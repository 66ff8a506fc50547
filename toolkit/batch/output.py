"""Caption many images to one file. The file appears with an atomic rename, when every image has a row.

Images are captioned in a subprocess (`runtimes.pool.supervisor`). Meanwhile their rows are in a journal (`toolkit.batch.journal`).
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from runtimes.artifact import json_dataclass
from runtimes.artifact.folder import sha256_of
from runtimes.errors import OutputError, OutputExistsError
from runtimes.pool.job import CaptionJob, Ready, Request
from runtimes.pool.rows import Row, json_lines, text_lines
from runtimes.pool.supervisor import supervise
from runtimes.storage.atomic_write import locked, write_atomically
from toolkit.batch.finished import is_unchanged, meta_of, read_finished, write_meta
from toolkit.batch.journal import Journal, partial_of

logger = logging.getLogger(__name__)

ABSENT = {field.name: field.default for field in fields(Request) if field.default is not MISSING}
"""Values of options that older versions of the toolkit did not have, for their journals."""


def caption_into(
    output: Path,
    job: CaptionJob,
    *,
    overwrite: bool,
    resume: bool,
    retry_errors: frozenset[str] = frozenset(),
    as_json: bool,
    on_rows: Callable[[Sequence[Row]], None],
    on_resumed: Callable[[int], None],
) -> int:
    """Caption images and write the output file.

    Args:
        output: The file, whose lines are in the order of `job.images`.
        job: The artifact, the request and the images, each image once.
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
    images = job.images
    with locked(output, meta_of(output)):
        partial, finished = partial_of(output), None
        if output.exists() and not overwrite:
            finished = read_finished(output, images) if resume and not partial.exists() else None
            if not (resume and (partial.exists() or finished)):
                raise OutputExistsError(output)
        if not resume:
            if partial.exists() and not overwrite:
                raise OutputExistsError(partial, "It belongs to a stopped run: continue it with --resume, or start again with --overwrite.")
            partial.unlink(missing_ok=True)
        with closing(Journal(output, images, finished, retry_errors)) as journal:
            on_resumed(done := journal.done)
            _caption_rest(journal, job, {"json": as_json}, on_rows)
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


def _caption_rest(journal: Journal, job: CaptionJob, settings: Mapping[str, Any], on_rows: Callable[[Sequence[Row]], None]) -> None:
    """Caption the images without a row. A batch with a missing row is captioned whole, so that batches equal those of an unbroken run."""
    images, size = job.images, job.request.batch_size
    batches = [images[start : start + size] for start in range(0, len(images), size)]
    remaining = [batch for batch in batches if not all(map(journal.has, batch))]
    started = False

    def begin(ready: Ready) -> None:
        nonlocal started
        journal.begin(json_dataclass.dump(ready) | json_dataclass.dump(job.request) | settings, ABSENT)
        started = True

    try:
        for rows in supervise(job, remaining, begin, proven=journal.done > journal.failed):
            journal.add(rows)
            on_rows(rows)
    except BaseException:
        if started:
            logger.warning("stopped with %d of %d images done; continue with --resume", journal.done, len(images))
        raise


def _lines(journal: Journal, *, as_json: bool) -> Iterator[bytes]:
    for row in journal.rows():
        if as_json or "error" not in row:
            yield f"{json_lines(row) if as_json else text_lines(row)}\n".encode()


def _sha256(lines: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line)
    return digest.hexdigest()
