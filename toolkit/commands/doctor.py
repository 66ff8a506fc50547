"""`toolkit doctor`: check this machine and artifacts on it, and print facts, problems and remedies."""

import json
from pathlib import Path

import click

from toolkit.commands.artifact_argument import ARTIFACTS, contains_artifacts, default_artifacts
from toolkit.commands.options import ANY_PATH, json_option


@click.command(epilog="Example: toolkit doctor build/artifacts")
@click.argument("artifact", type=ANY_PATH, required=False)
@json_option
@click.pass_context
def command(context: click.Context, artifact: Path | None, as_json: bool) -> None:
    """Check which engines, recipes and artifacts work on this machine.

    ARTIFACT is an artifact's folder or a folder of artifacts. [default: build/artifacts, if it exists] The exit code is 1 if ARTIFACT
    cannot run here, if its captions may be wrong here, or if no engine works.
    """
    from runtimes.artifact import json_dataclass
    from toolkit.doctor.examine import examine
    from toolkit.doctor.text import render

    result = examine(artifact or (default_artifacts() if contains_artifacts(ARTIFACTS) else None))
    text = json.dumps({"healthy": result.healthy, **json_dataclass.dump(result)}, indent=1, ensure_ascii=False) + "\n"
    click.echo(text if as_json else render(result), nl=False)
    context.exit(0 if result.healthy else 1)
