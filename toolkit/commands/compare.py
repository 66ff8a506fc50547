"""`toolkit compare`: two files of records go in; what changed comes out, and exit code 1 where a limit is broken."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from runtimes.errors import RequestError
from toolkit.commands.options import fail_after_output, quiet_option

if TYPE_CHECKING:
    from toolkit.compare.limits import Limit

LIMITS = (
    "A is the run before, B the run after. LIMIT says what fails: seconds_per_image>+5% or cider<-1% is about the change from A to B (all "
    "of its 95 % interval must be beyond), drift>0.02 about B's own figure. Measures have the names that --json shows."
)


def _limit(text: str) -> "Limit":
    from toolkit.compare.limits import read_limit

    try:
        return read_limit(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _names(text: str) -> tuple[str, str]:
    """Read a case, or the names of one in A and in B."""
    one, _, other = text.partition("=")
    return one, other or one


@click.command(help="Tell what changed between two benchmark runs.", epilog=LIMITS)
@click.argument("a", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("b", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--case", "names", type=_names, multiple=True, metavar="NAME[=OTHER]", help="This case alone (repeatable); OTHER: its name in B."
)
@click.option("--fail-if", "limits", type=_limit, multiple=True, metavar="LIMIT", help="Exit with 1 if a case does this (repeatable).")
@click.option("--strict", is_flag=True, help="A change beyond a limit fails even where its interval is not.")
@click.option("--different-hosts", is_flag=True, help="Compare runs of different machines.")
@click.option("--different-workloads", is_flag=True, help="Compare other images (but not their quality) or settings.")
@click.option("--different-checkpoints", is_flag=True, help="Compare artifacts of different checkpoints.")
@quiet_option
@click.option("--json", "as_json", is_flag=True, help="All measures, for programs.")
def command(
    a: Path,
    b: Path,
    names: tuple[tuple[str, str], ...],
    limits: "tuple[Limit, ...]",
    strict: bool,
    different_hosts: bool,
    different_workloads: bool,
    different_checkpoints: bool,
    as_json: bool,
) -> None:
    """Echo the comparison; then fail if it breaks a limit."""
    from toolkit.compare.pairing import Tolerated, check_alike, pair_up, read_run
    from toolkit.compare.render import line_of, render_json, render_markdown

    before, after = read_run(a), read_run(b)
    tolerated = Tolerated(hosts=different_hosts, workloads=different_workloads, checkpoints=different_checkpoints)
    check_alike(before, after, tolerated)
    lines = [line_of(paired, limits, strict=strict) for paired in pair_up(before, after, names, tolerated)]
    if all(line.paired.pair is None for line in lines):
        raise RequestError(f"no case has figures in both: {'; '.join(f'{line.name}: {line.paired.problem}' for line in lines)}")
    click.echo((render_json if as_json else render_markdown)(before, after, lines), nl=False)
    if count := sum(len(line.broken) for line in lines):
        fail_after_output(f"{count} {'limit' if count == 1 else 'limits'} broken")
