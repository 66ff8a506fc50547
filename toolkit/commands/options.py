"""Options that several commands share, with the same help text in each."""

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from runtimes.errors import OutputError, OutputExistsError, RequestError, ToolkitError, error_from_code

F = TypeVar("F", bound=Callable[..., Any])

FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
ANY_PATH = click.Path(path_type=Path)
POSITIVE = click.IntRange(min=1)
SHA256 = re.compile("[0-9a-f]{64}")
MAX_SECONDS = 1e7
"""About 115 days. Clocks of the system do not take longer waits."""


class SecondsRange(click.FloatRange):
    """A number of seconds that the system can wait for."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401 - see click
        """Parse a number."""
        seconds = float(super().convert(value, param, ctx))
        if not seconds <= MAX_SECONDS:  # also for "nan"
            self.fail(f"{value} is not a number of seconds up to {MAX_SECONDS:,.0f}.", param, ctx)
        return seconds


SECONDS = SecondsRange(min=0, min_open=True)


def apply_quiet(context: click.Context, option: click.Parameter, quiet: bool) -> None:
    """Print only errors on stderr from now on, if --quiet is given after the command; `toolkit --quiet` has the same effect."""
    if quiet:
        logging.getLogger().setLevel(logging.ERROR)


quiet_option = click.option("-q", "--quiet", is_flag=True, expose_value=False, callback=apply_quiet, help="Print only errors on stderr.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as a JSON object.")
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace existing output.")
threads_option = click.option("--threads", type=POSITIVE, help="CPU threads.  [default: the physical cores within the CPU quota]")
revision_option = click.option("--revision", help="Commit, tag or branch of a checkpoint from the hub.")
digest_option = click.option(
    "--digest",
    metavar="SHA256",
    callback=lambda context, option, value: None if value is None else read_digest(value),
    help="Expected sha256 of manifest.json, as the sender published it.",
)
adapter_option = click.option(
    "--adapter", type=FOLDER, metavar="DIR", help="Folder of a PEFT adapter (LoRA and others) that is merged into CHECKPOINT by peft."
)
num_beams_option = click.option("--num-beams", type=POSITIVE, help="Beams of the search; 1 is greedy search.  [default: the artifact's]")


def read_digest(text: str) -> str:
    """Return a digest of `--digest`, which may start with `sha256:`.

    Raises:
        RequestError: It is not a sha256.
    """
    if not SHA256.fullmatch(digest := text.strip().lower().removeprefix("sha256:")):
        raise RequestError(f"--digest {text!a:.100} is not a sha256, which has 64 hexadecimal digits")
    return digest


def error_codes(value: str) -> frozenset[str]:
    """Parse error codes separated by commas.

    Raises:
        click.BadParameter: The toolkit has no such code.
    """
    codes = frozenset(filter(None, map(str.strip, value.split(","))))
    if unknown := [code for code in sorted(codes) if type(error_from_code(code, "")) is ToolkitError]:
        raise click.BadParameter(f"unknown error code {unknown[0]!r}; docs/reference/error-codes.md lists all codes.")
    return codes


def fail_after_output(problem: str) -> NoReturn:
    """Print one line on stderr and exit with code 1, for a command that has already printed its result.

    It raises no ToolkitError: with --json, `toolkit.cli` would print an error object, a second document on stdout.
    """
    click.echo(f"Error: {problem}", err=True)
    raise SystemExit(1)


def announce(text: str) -> None:
    """Print a line on stderr, unless -q was given."""
    if logging.getLogger().getEffectiveLevel() < logging.ERROR:
        click.echo(text, err=True)


NATURAL = "natural"


def numbers(value: str) -> tuple[int, ...]:
    """Parse a comma-separated list of positive integers; return each once, in order."""
    parts = [part.strip() for part in value.split(",")]
    if wrong := [part for part in parts if not (part.isascii() and part.isdigit() and int(part) > 0)]:
        raise click.BadParameter(f"{wrong[0]!r} is not a positive integer.")
    return tuple(dict.fromkeys(map(int, parts)))


def processes_or_auto(value: str) -> int | None:
    """Parse a positive integer or 'auto'; return None for 'auto'."""
    return None if value == "auto" else numbers(value)[0]


def lengths(value: str) -> tuple[int | None, ...]:
    """Parse a comma-separated list of positive integers and 'natural'; return each once, in order, None for 'natural'."""
    parts = [part.strip() for part in value.split(",")]
    return tuple(dict.fromkeys(None if part == NATURAL else numbers(part)[0] for part in parts))


def token_ids(context: click.Context, option: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Parse a comma-separated list of token ids; an empty one turns off those of the artifact."""
    if not value:
        return None if value is None else ()
    parts = [part.strip() for part in value.split(",")]
    if wrong := [part for part in parts if not (part.isascii() and part.isdigit())]:
        raise click.BadParameter(f"{wrong[0]!r} is not a token id.")
    return tuple(map(int, parts))


def words_ids(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> tuple[tuple[int, ...], ...] | None:
    """Parse lists of token ids, one list per word."""
    if not values:
        return None
    return tuple(ids for value in values if (ids := token_ids(context, option, value)))


EARLY_STOPPING = {"true": True, "false": False, "never": "never"}


def search_options(command: F) -> F:
    """Add the options of the search, with the names and meanings of transformers."""
    for option in (
        click.option("--max-length", type=int, help="Maximum tokens of a text, including [DEC] and the prompt.  [default: the artifact's]"),
        click.option("--min-length", type=int, help="Minimum tokens of a text, including [DEC] and the prompt.  [default: the artifact's]"),
        click.option(
            "--suppress-tokens",
            metavar="ID,...",
            callback=token_ids,
            help='Token ids that must not be generated; "" turns off the artifact\'s.',
        ),
        click.option("--bad-words", metavar="TEXT", multiple=True, help="A text that must not be generated (repeatable)."),
        click.option(
            "--bad-words-ids",
            metavar="ID,...",
            multiple=True,
            callback=words_ids,
            help='Sequence of token ids that must not be generated (repeatable); "" turns off the artifact\'s.',
        ),
        click.option(
            "--early-stopping",
            type=click.Choice(list(EARLY_STOPPING)),
            callback=lambda context, option, value: EARLY_STOPPING.get(value),
            help="When beam search stops: if enough beams are finished (true), if a better text is unlikely (false) or impossible.  "
            "[default: the artifact's]",
        ),
        click.option("--no-repeat-ngram-size", type=int, help="No sequence of this many tokens occurs twice.  [default: the artifact's]"),
        click.option(
            "--repetition-penalty", type=float, help="Above 1, tokens of the text so far are less likely.  [default: the artifact's]"
        ),
        click.option("--length-penalty", type=float, help="Above 0, beam search prefers longer texts.  [default: the artifact's]"),
        click.option("--max-new-tokens", type=int, help="Maximum tokens after the prompt; replaces --max-length."),
        num_beams_option,
    ):
        command = option(command)
    return command


def decoding_options(command: F) -> F:
    """Add --prompt, the options of the search and those of sampling."""
    for option in (
        click.option("--num-return-sequences", type=POSITIVE, help="Texts per image, with beams or --do-sample; needs --json."),
        click.option("--seed", type=click.IntRange(min=0), help="Sampling: the same seed gives the same texts."),
        click.option(
            "--top-p",
            type=float,
            help="Sampling: draw from the most probable tokens whose probabilities add up to this.  [default: the artifact's]",
        ),
        click.option("--top-k", type=int, help="Sampling: draw from this many most probable tokens.  [default: the artifact's]"),
        click.option("--temperature", type=float, help="Sampling: divide the logits by it.  [default: the artifact's]"),
        click.option(
            "--do-sample/--no-do-sample",
            default=None,
            help="Draw each token at random; --no-do-sample takes the most probable one.  [default: the artifact's]",
        ),
        search_options,
        click.option("--prompt", help="Text that every caption starts with."),
    ):
        command = option(command)
    return command


def output_file(help_text: str) -> Callable[[F], F]:
    """Return a decorator that adds --output for one file."""
    return click.option("-o", "--output", type=FILE, help=help_text)


def guard_file(output: Path | None, *, overwrite: bool) -> None:
    """Check an output file before any work is done.

    Raises:
        OutputExistsError: The file exists and `overwrite` is false.
        OutputError: Its folder does not exist, or the path is a device or a pipe, which the atomic rename would replace by a file.
    """
    if output is None:
        return
    if output.exists() and not overwrite:
        raise OutputExistsError(output)
    if output.exists() and not output.is_file():
        raise OutputError(output, "it is not a regular file")
    if not output.parent.is_dir():
        raise OutputError(output, f"there is no folder {output.parent}")
