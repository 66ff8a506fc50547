"""Options that several commands share: the same flag, the same words everywhere."""

import logging
from collections.abc import Callable, Sequence
from glob import has_magic
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from runtimes.artifact.manifest import MANIFEST_NAME
from runtimes.errors import OutputError, OutputExistsError, RequestError, UnavailableError

F = TypeVar("F", bound=Callable[..., Any])

ARTIFACTS = Path("build/artifacts")
"""Where `toolkit export` writes, and where the other commands look when no artifact is named."""


def default_artifacts() -> Path:
    """Return the folder of artifacts for a command that was given none, and print on stderr that it is used.

    Raises:
        RequestError: There is no such folder.
    """
    announce(f"No artifact is named: using {_artifacts_folder()}")
    return ARTIFACTS


def _artifacts_folder() -> Path:
    if not ARTIFACTS.is_dir():
        raise RequestError(f"no artifact is named and there is no {ARTIFACTS} here: name one, or make some with: toolkit export CHECKPOINT")
    return ARTIFACTS


def default_artifact(device: str = "auto") -> Path:
    """Return the best artifact of that folder for this machine, for a command that takes one, and print on stderr which it is.

    Raises:
        RequestError, ArtifactMissingError: There is no such folder, or no artifact in it.
        UnavailableError: None of them can run here.
    """
    from runtimes.loading import find_candidates

    folder = _artifacts_folder()
    candidates = find_candidates(folder, device)
    if not candidates.ranked:
        raise UnavailableError(f"no artifact is named, and none of those in {folder} can run here: {', '.join(candidates.manifests)}")
    best = candidates.ranked[0]
    announce(f"No artifact is named: using {folder / best.name} ({best.why})")
    return folder / best.name


def holds_artifacts(path: Path) -> bool:
    """Return whether a path is an artifact's folder or a folder of artifacts."""
    return (path / MANIFEST_NAME).is_file() or next(path.glob(f"[!.]*/{MANIFEST_NAME}"), None) is not None


def split_artifact(paths: Sequence[str], *, more_images: bool = False) -> tuple[Path | None, tuple[str, ...]]:
    """Split `[ARTIFACT] IMAGE...` into the artifact, or None, and the images.

    The first path is the artifact if it is a folder with a manifest.json, a folder of such folders, or named as a package is. A first path
    that does not exist and has no suffix is taken for one too, so that the error of a misspelt artifact is about artifacts. `more_images`:
    there are images besides these paths.
    """
    from runtimes.storage.archive import SUFFIX

    if not paths:
        return None, ()
    first = Path(paths[0])
    if (
        holds_artifacts(first)
        or first.name.endswith(SUFFIX)
        or ((more_images or len(paths) > 1) and not first.suffix and not first.exists() and not has_magic(paths[0]))
    ):
        return first, tuple(paths[1:])
    return None, tuple(paths)


def fail_after_output(problem: str) -> NoReturn:
    """End a command whose result is on stdout with one line on stderr and exit code 1: an error object would be a second result."""
    click.echo(f"Error: {problem}", err=True)
    raise SystemExit(1)


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
    """--prompt, --num-beams, --min-length, --max-length."""
    for option in (
        click.option("--max-length", type=int, help="Longest caption, in tokens with [DEC] and prompt.  [default: the artifact's]"),
        click.option("--min-length", type=int, help="Shortest caption, likewise.  [default: the artifact's]"),
        click.option("--num-beams", type=click.IntRange(min=1), help="Beams of the search; 1 is greedy.  [default: the artifact's]"),
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
