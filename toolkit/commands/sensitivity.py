"""`toolkit sensitivity`: measure how much each layer of a recipe contributes to its drift."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from exporters.recipes import find_recipe
from exporters.writing.output_paths import name_of
from runtimes.errors import MissingDependencyError
from runtimes.host.facts import read_host
from toolkit.commands.options import FILE, announce, guard_file, json_option, overwrite_option, revision_option, threads_option

if TYPE_CHECKING:
    from exporters.sensitivity import LayerSensitivities

HEAD = f"{'only it':>27}  {'all except it':>27}  {'kB saved':>9}  {'ms saved':>8}  format, layer"


@click.command(epilog="Example: toolkit sensitivity models/blip-mini-coco --recipe onnx-int8 --dataset sample")
@click.argument("checkpoint")
@click.option("--recipe", required=True, metavar="NAME|FILE", help="Recipe whose layers are measured.")
@click.option("--dataset", default="sample", show_default=True, metavar="FILE", help="Images with captions: a captions.json or its folder.")
@click.option("--limit", type=click.IntRange(min=2), help="Use this many images of the dataset, chosen with a fixed seed.")
@click.option("-o", "--output", type=FILE, help="File of the results so far.  [default: build/sensitivity/<checkpoint>-<recipe>.jsonl]")
@click.option("--report", "page", type=FILE, help="Write an HTML page with a heat map.")
@overwrite_option
@threads_option
@revision_option
@json_option
def command(
    checkpoint: str,
    recipe: str,
    dataset: str,
    limit: int | None,
    output: Path | None,
    page: Path | None,
    overwrite: bool,
    threads: int | None,
    revision: str | None,
    as_json: bool,
) -> None:
    """Measure how much each layer of a recipe contributes to its drift.

    Each quantized layer is measured twice: once only this layer is quantized, and once every layer except it. The formats are emulated, so
    no layer needs an export. If a measurement is stopped, the same command continues it.
    """
    chosen = find_recipe(recipe)
    try:
        from exporters.calibration.activations import SHIPPED, Calibration
        from exporters.checkpoint.checkpoint import open_checkpoint
        from exporters.mixed_precision.journal import open_journal
        from exporters.sensitivity import measure_sensitivity
    except ModuleNotFoundError as error:
        raise MissingDependencyError(error.name or "a package", "measuring layers", "export") from error
    from toolkit.datasets import load_dataset
    from toolkit.report.file import require_report_extra, write_text

    if page is not None:
        require_report_extra()
    guard_file(page, overwrite=overwrite)
    output = output or Path("build/sensitivity") / f"{name_of(checkpoint)}-{chosen.name}.jsonl"
    output.parent.mkdir(parents=True, exist_ok=True)
    source, threads = open_checkpoint(checkpoint, revision), threads or read_host().cores
    images = load_dataset(dataset, None, limit, task=source.family.task)
    settings = {"checkpoint": source.source.sha256, "recipe": chosen.sha256, "images": images.sha256, "threads": threads}
    with open_journal(output, settings, overwrite=overwrite) as journal:
        sensitivity = measure_sensitivity(
            source, chosen, images.images, journal, calibration=Calibration(SHIPPED), threads=threads, on_step=announce
        )
    result = {"checkpoint": source.name, "recipe": chosen.name, "dataset": images.name, **_rows(sensitivity)}
    if as_json:
        click.echo(json.dumps(result))
    else:
        click.echo(f"{chosen.name} on {len(images.images)} images of {images.name}, nat/token. Whole recipe: {_text(result)}")
        click.echo(HEAD)
        for row in result["layers"]:
            only, rest = _text(row["only"]), _text(row["except"])
            click.echo(f"{only:>27}  {rest:>27}  {row['bytes'] / 1e3:>9.1f}  {row['seconds'] * 1e3:>8.2f}  {row['format']}, {row['layer']}")
    if page is not None:
        from toolkit.report.sensitivity.page import render_sensitivity

        write_text(page, render_sensitivity(result))
        announce(f"{page}")


def _rows(sensitivity: "LayerSensitivities") -> dict[str, Any]:
    """Return the results as JSON values."""

    def of(drift: Any) -> dict[str, Any]:  # noqa: ANN401 - Drift, which needs numpy
        return {"drift": drift.nat, "drift_low": drift.low, "drift_high": drift.high}

    rows = [
        {
            "layer": each.layer,
            "component": each.component,
            "format": each.layer_format,
            "only": of(each.only),
            "except": of(each.rest),
            "estimate": each.estimate,
            "bytes": each.bytes_saved,
            "seconds": each.seconds_saved,
        }
        for each in sensitivity.layers
    ]
    return {"images": sensitivity.whole.images, **of(sensitivity.whole), "layers": rows}


def _text(drift: dict[str, Any]) -> str:
    """Format a drift with its interval."""
    return f"{drift['drift']:+.4f} [{drift['drift_low']:+.4f}, {drift['drift_high']:+.4f}]"
