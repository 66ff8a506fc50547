"""`toolkit doctor`: looks at this machine, and at how an artifact gets on with it; a table comes out."""

import json
from pathlib import Path

import click

from toolkit.commands.options import ARTIFACTS, default_artifacts, holds_artifacts


@click.command(
    help="Tell what this machine can run, and what is wrong with it.",
    epilog="ARTIFACT is an artifact or a folder of them. [default: build/artifacts, if there is one] "
    "Exit code 1 where it cannot run here or captions wrongly, or nothing can.",
)
@click.argument("artifact", type=click.Path(path_type=Path), required=False)
@click.option("--json", "as_json", is_flag=True, help="The same for programs.")
@click.pass_context
def command(context: click.Context, artifact: Path | None, as_json: bool) -> None:
    """Echo the examination."""
    from runtimes.artifact import json_dataclass
    from toolkit.doctor.examine import examine
    from toolkit.doctor.text import render

    found = examine(artifact or (default_artifacts() if holds_artifacts(ARTIFACTS) else None))
    shown = json.dumps({"healthy": found.healthy, **json_dataclass.dump(found)}, indent=1, ensure_ascii=False) + "\n"
    click.echo(shown if as_json else render(found), nl=False)
    context.exit(0 if found.healthy else 1)
