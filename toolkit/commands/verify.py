"""`toolkit verify`: check an artifact or a package on this machine, and print the results."""

import json
from pathlib import Path

import click

from toolkit.commands.artifact_argument import default_artifact
from toolkit.commands.options import ANY_PATH, FOLDER, digest_option, json_option, threads_option


@click.command(epilog="Example: toolkit verify captioner.tar.gz --digest SHA256")
@click.argument("path", type=ANY_PATH, required=False)
@digest_option
@click.option("--untrusted", is_flag=True, help="Open graphs and images only in a subprocess with memory and time limits.")
@click.option(
    "--work-dir", type=FOLDER, help="Unpack a package temporarily in this folder.  [default: beside it, or the system's temporary folder]"
)
@threads_option
@json_option
def command(path: Path | None, digest: str | None, untrusted: bool, work_dir: Path | None, threads: int | None, as_json: bool) -> None:
    """Verify an artifact or a package on this machine.

    PATH is an artifact's folder or a package (.tar.gz). [default: the best artifact of build/artifacts for this machine]
    """
    from runtimes.artifact import json_dataclass
    from runtimes.verification.verify import summary, verify

    report = verify(path or default_artifact(), digest=digest, untrusted=untrusted, threads=threads, work_dir=work_dir)
    click.echo(json.dumps(json_dataclass.dump(report)) if as_json else "\n".join(summary(report)))
