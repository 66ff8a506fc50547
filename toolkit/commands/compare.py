"""`toolkit compare`: print the changes between two files of benchmark records; exit with code 1 if a limit is violated."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from runtimes.errors import RequestError
from toolkit.commands.options import FILE, fail_after_output, json_option, quiet_option

if TYPE_CHECKING:
    from toolkit.compare.limits import Limit


def _limit(text: str) -> "Limit":
    from toolkit.compare.limits import read_limit

    try:
        return read_limit(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _names(text: str) -> tuple[str, str]:
    """Parse NAME or NAME=NAME_IN_B; return the names of the case in A and in B."""
    name, _, name_in_b = text.partition("=")
    return name, name_in_b or name


@click.command(epilog="Example: toolkit compare a.jsonl b.jsonl --fail-if 'seconds_per_image>+5%'")
@click.argument("a", type=FILE)
@click.argument("b", type=FILE)
@click.option("--case", "names", type=_names, multiple=True, metavar="NAME[=NAME_IN_B]", help="Compare only this case (repeatable).")
@click.option(
    "--fail-if", "limits", type=_limit, multiple=True, metavar="LIMIT", help="Exit with code 1 if a case meets LIMIT (repeatable)."
)
@click.option(
    "--strict", is_flag=True, help="Apply limits to the change itself instead of its interval. Noise alone may then meet a limit."
)
@click.option("--allow-different-hosts", is_flag=True, help="Compare runs of different machines.")
@click.option("--allow-different-workloads", is_flag=True, help="Compare runs with different images (not their quality) or settings.")
@click.option("--allow-different-checkpoints", is_flag=True, help="Compare artifacts of different checkpoints.")
@quiet_option
@json_option
def command(
    a: Path,
    b: Path,
    names: tuple[tuple[str, str], ...],
    limits: "tuple[Limit, ...]",
    strict: bool,
    allow_different_hosts: bool,
    allow_different_workloads: bool,
    allow_different_checkpoints: bool,
    as_json: bool,
) -> None:
    """Compare two benchmark runs.

    A and B are .jsonl files of `toolkit bench`: A is the run before, B the run after. NAME_IN_B is the name of the case in B if it differs.
    LIMIT is a condition. If a case meets it, the exit code is 1. With a percent sign, the condition is about the change from A to B, and
    the whole 95 % confidence interval must meet it: seconds_per_image>+5%, cider<-1%. Without a percent sign, it is about B's value:
    drift>0.02. --json prints the names of the measures.
    """
    from toolkit.compare.pairing import AllowedDifferences, check_comparable_runs, pair_up, read_run
    from toolkit.compare.render import line_of, render_json, render_markdown

    before, after = read_run(a), read_run(b)
    allowed = AllowedDifferences(hosts=allow_different_hosts, workloads=allow_different_workloads, checkpoints=allow_different_checkpoints)
    check_comparable_runs(before, after, allowed)
    lines = [line_of(paired, limits, strict=strict, named=bool(names)) for paired in pair_up(before, after, names, allowed)]
    if all(line.paired.pair is None for line in lines):
        raise RequestError(f"no case was measured in both runs: {'; '.join(f'{line.name}: {line.paired.problem}' for line in lines)}")
    click.echo((render_json if as_json else render_markdown)(before, after, lines), nl=False)
    if count := sum(len(line.violations) for line in lines):
        fail_after_output(f"{count} {'limit' if count == 1 else 'limits'} violated")
