"""`toolkit verify`: an artifact or a package goes in; what was checked on this machine comes out."""

import json
from pathlib import Path

import click

from toolkit.commands.options import default_artifact, threads_option


@click.command(
    help="Verify an artifact or a package on this machine.",
    epilog="PATH is an artifact's folder, or a file that `toolkit package` wrote. "
    "[default: the best artifact of build/artifacts for this machine]",
)
@click.argument("path", type=click.Path(path_type=Path), required=False)
@click.option("--digest", metavar="SHA256", help="Expected sha256 of its manifest.json, as the sender published it.")
@click.option("--untrusted", is_flag=True, help="Open its graphs in a process of their own first, with limits of memory and time.")
@threads_option
@click.option("--json", "as_json", is_flag=True, help="The report as a JSON object.")
def command(path: Path | None, digest: str | None, untrusted: bool, threads: int | None, as_json: bool) -> None:
    """Echo the report; what is wrong is an error."""
    from runtimes.artifact import json_dataclass
    from runtimes.verification.verify import summary, verify

    report = verify(path or default_artifact(), digest=digest, untrusted=untrusted, threads=threads)
    click.echo(json.dumps(json_dataclass.to_json(report)) if as_json else "\n".join(summary(report)))
