"""`toolkit info`: print the metadata of an artifact, a package or a checkpoint."""

import json
from pathlib import Path

import click

from toolkit.commands.options import ANY_PATH, adapter_option, json_option


@click.command(epilog="Example: toolkit info build/artifacts/blip-mini-coco-onnx-int8")
@click.argument("path", type=ANY_PATH)
@adapter_option
@json_option
def command(path: Path, adapter: Path | None, as_json: bool) -> None:
    """Show the metadata of an artifact, a package or a checkpoint.

    PATH is an artifact's folder, a package (.tar.gz) or a checkpoint: its folder, or one file of weights.
    """
    from toolkit.info.describe import describe
    from toolkit.info.text import render

    description = describe(path, adapter)
    click.echo(json.dumps(description, indent=1, ensure_ascii=False) + "\n" if as_json else render(description), nl=False)
