"""`toolkit tune`: search for the formats of a checkpoint's layers that meet a budget, and write them as a recipe file."""

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from exporters.recipes import find_recipe
from exporters.writing.output_paths import name_of
from runtimes.errors import DatasetError, MissingDependencyError
from runtimes.host.facts import read_host
from toolkit.commands.options import FILE, announce, guard_file, json_option, overwrite_option, revision_option, threads_option

if TYPE_CHECKING:
    from exporters.mixed_precision.frontier import Objective
    from exporters.tune import Tuned

EPILOG = "Example: toolkit tune models/blip-mini-coco --budget 'drift<=0.02' --budget 'size<=40MB'"


@click.command(epilog=EPILOG)
@click.argument("checkpoint")
@click.option(
    "--budget",
    "budgets",
    multiple=True,
    required=True,
    metavar="LIMIT",
    help="Limit of the result (repeatable): 'drift<=0.01' in nat per token, which is required, or 'size<=180MB'.",
)
@click.option(
    "--objective", type=click.Choice(["size", "time"]), default="size", show_default=True, help="What is minimized within the budget."
)
@click.option("--recipe", default="onnx-int8", show_default=True, metavar="NAME|FILE", help="Recipe whose engine and settings are used.")
@click.option(
    "--dataset",
    metavar="FILE",
    help="Images of the search: a captions.json or its folder, a file of questions, or a folder of images.  [default: half of "
    "the toolkit's calibration images]",
)
@click.option(
    "--confirm", default="sample", show_default=True, metavar="FILE", help="Other images with captions, which confirm the result."
)
@click.option("--limit", type=click.IntRange(min=1), help="Use this many images of --dataset, chosen with a fixed seed.")
@click.option("-o", "--output", type=FILE, help="Recipe file to write.  [default: build/recipes/<checkpoint>-<recipe>-tuned.json]")
@overwrite_option
@threads_option
@revision_option
@json_option
def command(
    checkpoint: str,
    budgets: tuple[str, ...],
    objective: str,
    recipe: str,
    dataset: str | None,
    confirm: str,
    limit: int | None,
    output: Path | None,
    overwrite: bool,
    threads: int | None,
    revision: str | None,
    as_json: bool,
) -> None:
    """Search for the formats of a checkpoint's layers that meet a budget.

    The result is a recipe file for `toolkit export --recipe`. It is confirmed once on other images. The verdict is `met` if the upper bound
    of drift is within the budget, and `met on average` if only the drift itself is. Otherwise it is `not met`, and no recipe is written.
    All candidates are stored beside the recipe. If a search is stopped, the same command continues it. A search with another budget uses
    the stored results again.
    """
    chosen = find_recipe(recipe)
    try:
        from exporters.calibration.activations import SHIPPED, Calibration
        from exporters.checkpoint.checkpoint import open_checkpoint
        from exporters.gate.labelled_image import LabelledImage
        from exporters.mixed_precision.budget import parse_budgets
        from exporters.mixed_precision.journal import open_journal
        from exporters.tune import paths_of, tune, write_recipe
    except ModuleNotFoundError as error:
        raise MissingDependencyError(error.name or "a package", "tuning", "export") from error
    from runtimes.artifact.folder import sha256_of
    from toolkit.datasets import load_dataset

    budget = parse_budgets(budgets)
    output = output or Path("build/recipes") / f"{name_of(checkpoint)}-{chosen.name}-tuned.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    guard_file(output, overwrite=overwrite)
    source = open_checkpoint(checkpoint, revision)
    confirmation = load_dataset(confirm, task=source.family.task)
    if not confirmation.has_references:
        raise DatasetError(confirmation.name, "has no captions or answers; --confirm needs images with captions, or questions with answers")
    if dataset is None:
        calibration, search = SHIPPED[::2], [LabelledImage(path, ()) for path in SHIPPED[1::2]]
    else:
        folder = Path(dataset)
        bare = folder.is_dir() and not (folder / "captions.json").exists()
        calibration, search = SHIPPED, list(load_dataset(None if bare else dataset, folder if bare else None, limit).images)
    images = [sha256_of(path) for path in (*calibration, *paths_of(search), *paths_of(confirmation.images))]
    threads = threads or read_host().cores
    settings = {"checkpoint": source.source.sha256, "recipe": chosen.sha256, "images": images, "threads": threads}
    with open_journal(output.with_suffix(".candidates.jsonl"), settings, overwrite=overwrite) as journal:
        tuned = tune(
            source,
            chosen,
            budget,
            cast("Objective", objective),
            search,
            confirmation.images,
            journal,
            calibration=Calibration(calibration),
            threads=threads,
            on_step=announce,
        )
        if tuned.verdict != "not met":
            write_recipe(tuned.recipe, output)
    _print(tuned, str(budget), output, as_json=as_json)
    click.get_current_context().exit(1 if tuned.verdict == "not met" else 0)


def _print(tuned: "Tuned", budget: str, output: Path, *, as_json: bool) -> None:
    """Print the result: its verdict, drift, size, formats and file."""
    from exporters.gate.drift import drift_text

    written = None if tuned.verdict == "not met" else str(output)
    if as_json:
        drift = {"drift": tuned.drift.nat, "drift_low": tuned.drift.low, "drift_high": tuned.drift.high, "images": tuned.drift.images}
        click.echo(
            json.dumps(
                {
                    "verdict": tuned.verdict,
                    "budget": budget,
                    **drift,
                    "bytes": tuned.size_bytes,
                    "evaluations": tuned.evaluations,
                    "formats": tuned.formats,
                    "recipe": written,
                    "candidates": str(output.with_suffix(".candidates.jsonl")),
                }
            )
        )
        return
    drift_line = drift_text(tuned.drift.nat, tuned.drift.low, tuned.drift.high)
    announce(
        f"{tuned.verdict}: {budget}; drift {drift_line} nat/token on {tuned.drift.images} other images, {tuned.size_bytes / 1e6:.1f} MB"
    )
    for component, formats in tuned.formats.items():
        announce(f"  {component}: " + ", ".join(f"{count} x {name}" for name, count in Counter(formats.values()).most_common()))
    if written:
        click.echo(written)
