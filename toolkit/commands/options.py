"""Options that several commands share: the same flag, the same words everywhere."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from runtimes.errors import OutputError, OutputExistsError, RequestError

F = TypeVar("F", bound=Callable[..., Any])

ARTIFACTS = Path("build/artifacts")
"""Where `toolkit export` writes, and where the other commands look when no artifact is named."""


def default_artifacts() -> Path:
    """Return the folder of artifacts for a command that was given none, and print on stderr that it is used.

    Raises:
        RequestError: There is no such folder.
    """
    if not ARTIFACTS.is_dir():
        raise RequestError(f"no artifact is named and there is no {ARTIFACTS} here: name one, or make some with: toolkit export CHECKPOINT")
    announce(f"No artifact is named: using {ARTIFACTS}")
    return ARTIFACTS


def announce(text: str) -> None:
    """Print a line on stderr; -q hides it."""
    if logging.getLogger().getEffectiveLevel() < logging.ERROR:
        click.echo(text, err=True)


def threads_option(command: F) -> F:
    """--threads."""
    return click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: the physical cores within the CPU quota]")(
        command
    )


NATURAL = "natural"


def numbers(value: str) -> tuple[int, ...]:
    """Read a number or a comma list of them: each once, in order."""
    parts = [part.strip() for part in value.split(",")]
    if wrong := [part for part in parts if not (part.isascii() and part.isdigit() and int(part) > 0)]:
        raise click.BadParameter(f"{wrong[0]!r} is not a number from 1.")
    return tuple(dict.fromkeys(map(int, parts)))


def lengths(value: str) -> tuple[int | None, ...]:
    """Likewise, or 'natural' in place of a number, which becomes None."""
    parts = [part.strip() for part in value.split(",")]
    return tuple(dict.fromkeys(None if part == NATURAL else numbers(part)[0] for part in parts))


def quiet_option(command: F) -> F:
    """--quiet: the same as the toolkit's own, where people look for it."""

    def hush(context: click.Context, option: click.Parameter, quiet: bool) -> None:
        if quiet:
            logging.getLogger().setLevel(logging.ERROR)

    return click.option("-q", "--quiet", is_flag=True, expose_value=False, callback=hush, help="Say nothing on stderr but errors.")(command)


def overwrite_option(command: F) -> F:
    """--overwrite."""
    return click.option("--overwrite", is_flag=True, help="Replace output that exists.")(command)


def decoding_options(command: F) -> F:
    """--prompt, --beams, --min-length, --max-length."""
    for option in (
        click.option("--max-length", type=int, default=20, show_default=True, help="Longest caption, in tokens with [DEC] and prompt."),
        click.option("--min-length", type=int, default=0, show_default=True, help="Shortest caption, likewise."),
        click.option("--beams", type=click.IntRange(min=1), default=1, show_default=True, help="Beams of the search; 1 is greedy."),
        click.option("--prompt", help="Words that every caption starts with."),
    ):
        command = option(command)
    return command


def output_file(help_text: str) -> Callable[[F], F]:
    """Build the --output option for one file."""
    return click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help=help_text)


def guard_file(output: Path | None, *, overwrite: bool) -> None:
    """Refuse an output file before any work is done.

    Raises:
        OutputExistsError: It is there and `overwrite` is false.
        OutputError: Its folder is not there, or it is a device or a pipe, which writing would replace by a file.
    """
    if output is None:
        return
    if output.exists() and not overwrite:
        raise OutputExistsError(output)
    if output.exists() and not output.is_file():
        raise OutputError(output, "it is not a regular file")
    if not output.parent.is_dir():
        raise OutputError(output, f"there is no folder {output.parent}")
