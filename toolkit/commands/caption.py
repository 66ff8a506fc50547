"""`toolkit caption`: caption images, and write one line per image to stdout or to a file."""

import logging
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from runtimes.engines.ort.providers import read_options
from runtimes.errors import RequestError
from toolkit.commands.artifact_argument import default_artifacts, split_artifact
from toolkit.commands.model_options import (
    device_option,
    max_pixels_option,
    provider_options_option,
    reduce_large_option,
    workers_option,
)
from toolkit.commands.options import (
    POSITIVE,
    SECONDS,
    announce,
    decoding_options,
    error_codes,
    guard_file,
    output_file,
    overwrite_option,
    processes_or_auto,
    threads_option,
)
from toolkit.progress import progress

if TYPE_CHECKING:
    from runtimes.pool.job import CaptionJob
    from runtimes.pool.rows import Row


@click.command(epilog="Example: toolkit caption build/artifacts photo.jpg --json")
@click.argument("paths", nargs=-1, metavar="[ARTIFACT] IMAGE...")
@click.option(
    "--from-file",
    metavar="FILE",
    help="Also process the images whose paths FILE lists, one per line or separated by NUL bytes; - reads stdin. Without --output, images "
    "are processed while FILE is still being written.",
)
@decoding_options
@click.option(
    "--batch-size",
    type=POSITIVE,
    help="Images per run of the model. Texts of pytorch-int8 may differ slightly between batch sizes.  [default: 1; with "
    "--processes auto, more where it is faster and texts do not depend on it]",
)
@click.option(
    "--processes",
    type=processes_or_auto,
    metavar="auto|N",
    default="auto",
    show_default=True,
    help="With --output: models in processes that share one queue. auto tries several numbers on the first images of a long job and "
    "prints its choice; a short job runs in one process. --threads are those of each process.",
)
@workers_option
@max_pixels_option
@reduce_large_option
@click.option(
    "--draft",
    type=click.Choice(["table", "learn"]),
    help="How greedy search of one image per run drafts tokens, which makes it faster: from the artifact's table, or also from "
    "the captions of this run.  [default: the artifact's setting]",
)
@click.option("--no-draft", is_flag=True, help="Caption without drafts.")
@click.option("--strip-prompt", is_flag=True, help="Remove the prompt from the captions.")
@device_option
@provider_options_option
@threads_option
@output_file("Write the lines to this file instead of stdout.")
@overwrite_option
@click.option("--resume", is_flag=True, help="Continue an --output whose run was stopped: only images without a line are processed.")
@click.option(
    "--timeout",
    type=SECONDS,
    metavar="SECONDS",
    help="With --output: an image that takes longer becomes an error row. The time to load the artifact does not count.",
)
@click.option(
    "--retry-errors",
    metavar="CODE,...",
    default="",
    callback=lambda context, option, value: error_codes(value),
    help="With --resume: process images again whose row has one of these error codes. ENVIRONMENT_FAILED is always tried again.",
)
@click.option("--log-probabilities", is_flag=True, help="Add the natural-log probability of each generated token; needs --json.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Write JSON lines: image, caption or answer, token_ids, score and finish_reason; image, error and code for a failed image.",
)
def command(
    paths: tuple[str, ...],
    from_file: str | None,
    prompt: str | None,
    batch_size: int | None,
    processes: int | None,
    workers: int,
    max_pixels: int | None,
    reduce_large: bool,
    draft: Literal["table", "learn"] | None,
    no_draft: bool,
    strip_prompt: bool,
    device: str,
    provider_options: Path | None,
    threads: int | None,
    output: Path | None,
    overwrite: bool,
    resume: bool,
    timeout: float | None,
    retry_errors: frozenset[str],
    log_probabilities: bool,
    as_json: bool,
    questions: tuple[str, ...] = (),
    **decoding: Any,  # noqa: ANN401 - the values of `decoding_options`
) -> None:
    """Caption images with an artifact.

    ARTIFACT is an artifact's folder, or a folder of artifacts, of which the best one for this machine is used. [default: build/artifacts]
    If the first path is something else, it is an image. IMAGE is a file, a folder or a glob pattern. If an image cannot be captioned, the
    other images are still captioned, and the exit code is 1.
    """
    from runtimes.pool.job import CaptionJob, Request
    from toolkit.image_paths import expand, read_list

    if resume and output is None:
        raise RequestError("--resume needs --output: name the file to continue")
    if timeout is not None and output is None:
        raise RequestError("--timeout needs --output: then images are captioned in a subprocess, which can be ended")
    if processes is not None and output is None:
        raise RequestError("--processes needs --output: without it, images are captioned in this process")
    if draft and no_draft:
        raise RequestError("--draft and --no-draft exclude each other")
    if retry_errors and not resume:
        raise RequestError("--retry-errors needs --resume")
    if (decoding["num_return_sequences"] or 1) > 1 and not as_json:
        raise RequestError("--num-return-sequences above 1 needs --json: a line of text has one caption")
    if log_probabilities and not as_json:
        raise RequestError("--log-probabilities needs --json: a line of text has the caption only")
    artifact, images = split_artifact(paths, more_images=from_file is not None)
    if not images and from_file is None:
        raise click.UsageError("Missing argument 'IMAGE...'.")
    guard_file(output, overwrite=overwrite or resume)
    files = chain(expand(images), read_list(from_file) if from_file is not None else ())
    if (first := next(files, None)) is None:
        raise RequestError(f"{from_file}: lists no image")
    files = chain((first,), files)
    request = Request(
        prompt=prompt,
        **decoding,
        batch_size=batch_size or 1,
        max_pixels=max_pixels,
        reduce_large=reduce_large,
        draft="off" if no_draft else draft,
        strip_prompt=strip_prompt,
        log_probabilities=log_probabilities,
        questions=questions,
    )
    job = CaptionJob(
        artifact=str(artifact or default_artifacts()),
        device=device,
        provider_options=read_options(provider_options) if provider_options else {},
        threads=threads,
        readers=workers,
        request=request,
        log_level=logging.getLogger().level,
        timeout_s=timeout,
    )
    if output is None:
        failed, total = _echo(job, files, as_json=as_json)
    else:
        named = list(files)
        unique = tuple(dict.fromkeys(named))
        if len(unique) < len(named):
            announce(f"{len(named) - len(unique)} of {len(named)} names are repeated: the file has one row for each image")
        failed, total = (
            _write(
                output,
                job,
                unique,
                processes=processes or "auto",
                raise_batch=batch_size is None,
                retry_errors=retry_errors,
                overwrite=overwrite,
                resume=resume,
                as_json=as_json,
            ),
            len(unique),
        )
    if failed:
        raise click.ClickException(f"{failed} of {total} images could not be {'asked about' if questions else 'captioned'}")


def _echo(job: "CaptionJob", images: Iterable[str], *, as_json: bool) -> tuple[int, int]:
    """Caption in this process and print the lines; return the number of failed images and of all images."""
    from runtimes.loading import load
    from runtimes.pool.captioning import load_arguments, rows_of
    from runtimes.pool.job import Item
    from runtimes.pool.rows import json_lines, text_lines

    failed = total = 0
    with load(**load_arguments(job)) as captioner:
        for total, row in enumerate(rows_of(captioner, job, map(Item, images)), start=1):  # noqa: B007 - the last value is the number
            failed += _echo_error(row)
            if as_json or "error" not in row:
                click.echo(json_lines(row) if as_json else text_lines(row))
    return failed, total


def _write(output: Path, job: "CaptionJob", images: Sequence[str], **options: Any) -> int:  # noqa: ANN401 - those of `caption_into`
    """Caption in subprocesses and write the lines to a file; return the number of failed images."""
    from toolkit.batch.output import caption_into

    with progress("caption", len(images)) as bar:

        def report(rows: Sequence["Row"]) -> None:
            for row in rows:
                _echo_error(row)
            bar.update(len(rows))

        return caption_into(output, job, images, on_rows=report, on_resumed=bar.update, **options)


def _echo_error(row: "Row") -> bool:
    """Print the error of a row on stderr, if it has one; return whether it has."""
    if "error" in row:
        click.echo(f"Error: {row['error']}", err=True)
    return "error" in row
