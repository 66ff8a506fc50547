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
@click.option("--untrusted", is_flag=True, help="Open graphs and images in a subprocess only, with limits of memory and time.")
@click.option(
    "--work-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Unpack a package here for the time being.  [default: beside it, or the system's temporary folder]",
)
@threads_option
@click.option("--json", "as_json", is_flag=True, help="The report as a JSON object.")
def command(path: Path | None, digest: str | None, untrusted: bool, work_dir: Path | None, threads: int | None, as_json: bool) -> None:
    """Echo the report; what is wrong is an error."""
    from runtimes.artifact import json_dataclass
    from runtimes.verification.verify import summary, verify

    report = verify(path or default_artifact(), digest=digest, untrusted=untrusted, threads=threads, work_dir=work_dir)
    click.echo(json.dumps(json_dataclass.dump(report)) if as_json else "\n".join(summary(report)))
