"""`toolkit caption`: one line per image, to stdout or into a file."""

import logging
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runtimes.engines.ort.providers import PROVIDERS, read_options
from runtimes.errors import RequestError
from toolkit.commands.options import (
    decoding_options,
    default_artifact,
    guard_file,
    output_file,
    overwrite_option,
    split_artifact,
    threads_option,
)
from toolkit.progress import progress

if TYPE_CHECKING:
    from runtimes.pool.job import CaptionJob
    from runtimes.pool.rows import Row


@click.command(
    help="Caption images with an artifact.",
    epilog="ARTIFACT is an artifact's folder or a folder of artifacts, of which the best for this machine is taken; a first path that is "
    "neither is an image. [default: build/artifacts] IMAGE is a file, a folder or a glob.",
)
@click.argument("paths", nargs=-1, metavar="[ARTIFACT] IMAGE...")
@click.option(
    "--from-file",
    metavar="FILE",
    help="Caption the paths in FILE too: lines, or between NUL bytes. -: stdin. Without --output it is read as captions are made.",
)
@decoding_options
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Images per run; captions of pytorch-int8 may differ a little with it.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Threads that read images ahead of the model; 0: none. One helps where a core is free; a GPU may take more.",
)
@click.option("--max-pixels", type=click.IntRange(min=1), help="Larger images are refused before they are decoded.  [default: 50 million]")
@click.option("--strip-prompt", is_flag=True, help="Leave the prompt out of the text.")
@click.option(
    "--device",
    type=click.Choice(["auto", *PROVIDERS]),
    default="auto",
    show_default=True,
    help="auto: the GPU if the artifact targets one and it works, else the CPU. Any other is an error where it does not run.",
)
@click.option(
    "--provider-options",
    type=click.Path(dir_okay=False, path_type=Path),
    help="JSON file with options of the device's execution provider, name to value.",
)
@threads_option
@output_file("Write the lines here instead of to stdout.")
@overwrite_option
@click.option("--resume", is_flag=True, help="Go on with an --output whose run was stopped; what was captioned stays.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines: image, caption, token_ids, score; or image, error, code.")
def command(
    paths: tuple[str, ...],
    from_file: str | None,
    prompt: str | None,
    num_beams: int | None,
    min_length: int | None,
    max_length: int | None,
    batch_size: int,
    workers: int,
    max_pixels: int | None,
    strip_prompt: bool,
    device: str,
    provider_options: Path | None,
    threads: int | None,
    output: Path | None,
    overwrite: bool,
    resume: bool,
    as_json: bool,
) -> None:
    """Echo one line per image; bad ones are error rows."""
    from runtimes.pool.job import CaptionJob, Request
    from toolkit.image_paths import expand, read_list

    if resume and output is None:
        raise RequestError("--resume goes on with an --output; name it")
    artifact, images = split_artifact(paths, more_images=from_file is not None)
    if not images and from_file is None:
        raise click.UsageError("Missing argument 'IMAGE...'.")
    guard_file(output, overwrite=overwrite or resume)
    files = chain(expand(images), read_list(from_file) if from_file is not None else ())
    if (first := next(files, None)) is None:
        raise RequestError(f"{from_file}: names no image")
    files = chain((first,), files)
    request = Request(
        prompt=prompt,
        num_beams=num_beams,
        min_length=min_length,
        max_length=max_length,
        batch_size=batch_size,
        max_pixels=max_pixels,
        strip_prompt=strip_prompt,
    )
    job = CaptionJob(
        artifact=str(artifact or default_artifact(device).parent),
        device=device,
        provider_options=read_options(provider_options) if provider_options else {},
        threads=threads,
        readers=workers,
        request=request,
        images=tuple(dict.fromkeys(files)) if output else (),
        log_level=logging.getLogger().level,
    )
    write = {"overwrite": overwrite, "resume": resume, "as_json": as_json}
    failed, total = (_write(output, job, **write), len(job.images)) if output else _echo(job, files, as_json=as_json)
    if failed:
        raise click.ClickException(f"{failed} of {total} images could not be captioned")


def _echo(job: "CaptionJob", images: Iterable[str], *, as_json: bool) -> tuple[int, int]:
    """Caption in this process, lines to stdout; return how many images failed, and how many there were."""
    from runtimes.pool.captioning import rows_of
    from runtimes.pool.rows import json_line, text_line

    failed = total = 0
    for total, row in enumerate(rows_of(job, images=images), start=1):  # noqa: B007 - the last one counts
        failed += _told(row)
        if as_json or "error" not in row:
            click.echo(json_line(row) if as_json else text_line(row))
    return failed, total


def _write(output: Path, job: "CaptionJob", *, overwrite: bool, resume: bool, as_json: bool) -> int:
    """Caption in a process of its own, lines to a file."""
    from toolkit.batch.output import caption_into

    with progress("caption", len(job.images)) as bar:

        def tell(rows: Sequence["Row"]) -> None:
            for row in rows:
                _told(row)
            bar.update(len(rows))

        return caption_into(output, job, overwrite=overwrite, resume=resume, as_json=as_json, on_rows=tell, on_resumed=bar.update)


def _told(row: "Row") -> bool:
    """Say what is wrong with an image, if something is."""
    if "error" in row:
        click.echo(f"Error: {row['error']}", err=True)
    return "error" in row
