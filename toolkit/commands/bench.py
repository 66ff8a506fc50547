"""`toolkit bench`: measure artifacts on images, write records and print a table."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runtimes.artifact import json_dataclass
from runtimes.errors import RequestError
from toolkit.commands.options import (
    ANY_PATH,
    FILE,
    FOLDER,
    POSITIVE,
    announce,
    default_artifacts,
    fail_after_output,
    guard_file,
    lengths,
    numbers,
    output_file,
    overwrite_option,
    quiet_option,
    revision_option,
    search_options,
)
from toolkit.progress import progress

if TYPE_CHECKING:
    from runtimes.artifact.generation import GenerationConfig


@click.command(epilog="Example: toolkit bench build/artifacts --dataset sample --output records.jsonl")
@click.argument("artifacts", nargs=-1, type=ANY_PATH, metavar="[ARTIFACT]...")
@click.option("--checkpoint", help="Checkpoint of the baseline.  [default: that of the artifacts, found in models/, here or on the hub]")
@revision_option
@click.option("--dataset", help="'sample', a captions.json, or COCO's captions file with --images.  [default: sample, or only --images]")
@click.option("--images", type=FOLDER, help="Folder of images; without --dataset there are no reference captions.")
@click.option("--limit", type=POSITIVE, help="Measure only this many images, chosen with a fixed seed.")
@click.option("--repeat", type=POSITIVE, default=3, show_default=True, help="Rounds; each round runs every case once.")
@click.option("--warmup", type=POSITIVE, default=2, show_default=True, help="Captions before timing starts, including the first one.")
@search_options
@click.option("--prompt", help="Text that every caption starts with; it is removed before scoring.")
@click.option("--tokens", type=lengths, help="Tokens after the prompt, 'natural', or a sweep like 5,20,natural.  [default: natural]")
@click.option("--threads", type=numbers, help="CPU threads, or a sweep like 1,2,4.  [default: the physical cores within the CPU quota]")
@click.option("--batch-size", "batch_sizes", type=numbers, default="1", show_default=True, help="Images per run, or a sweep like 1,2,4.")
@output_file("Write the records to this file (.jsonl).")
@click.option("--report", type=FILE, help="Also write an HTML page to this file (.html).")
@overwrite_option
@quiet_option
@click.option("--profile", is_flag=True, help="Print the time per stage and operator instead: a slower run without baseline and records.")
@click.option("--json", "as_json", is_flag=True, help="Same as --format json.")
@click.option("--format", "layout", type=click.Choice(["md", "csv", "json"]), default="md", show_default=True, help="Output format.")
def command(
    artifacts: tuple[Path, ...],
    checkpoint: str | None,
    revision: str | None,
    dataset: str | None,
    images: Path | None,
    limit: int | None,
    repeat: int,
    warmup: int,
    num_beams: int | None,
    prompt: str | None,
    tokens: tuple[int | None, ...] | None,
    threads: tuple[int, ...] | None,
    batch_sizes: tuple[int, ...],
    output: Path | None,
    report: Path | None,
    overwrite: bool,
    profile: bool,
    as_json: bool,
    layout: str,
    **search: Any,  # noqa: ANN401 - the values of `search_options`, without --num-beams
) -> None:
    """Benchmark artifacts against the FP32 model.

    ARTIFACT is an artifact, or a folder whose artifacts are all measured; all must be exported from one checkpoint.
    [default: build/artifacts] --tokens natural generates until the end token. A sweep measures each value.
    """
    from runtimes.artifact.folder import open_artifact
    from runtimes.host.facts import read_host
    from runtimes.storage.atomic_write import locked
    from toolkit.bench.baseline import find_baseline
    from toolkit.bench.profiling.profile import profile_cases
    from toolkit.bench.profiling.profile_tables import RENDERERS as PROFILE_RENDERERS
    from toolkit.bench.runner import artifacts_in, plan, run
    from toolkit.datasets import load_dataset
    from toolkit.metrics.ngrams import pick_counter
    from toolkit.records.record import Workload, write_records
    from toolkit.records.settings import sweep
    from toolkit.report.file import require_report_extra, write_text
    from toolkit.tables.render import RENDERERS

    if profile and (output or report):
        raise RequestError("--profile writes no records: remove --output and --report")
    if profile and (batch_sizes != (1,) or max(map(len, (threads or (), tokens or ()))) > 1):
        raise RequestError("--profile measures one setting with one image per run: remove --batch-size and lists of --threads or --tokens")
    layout = "json" if as_json else layout
    guard_file(output, overwrite=overwrite)
    guard_file(report, overwrite=overwrite)
    if report is not None:
        require_report_extra()
    measured = load_dataset(dataset or (None if images else "sample"), images, limit)
    paths = artifacts_in(artifacts or (default_artifacts(),))
    baseline = None if profile else find_baseline(checkpoint, revision, paths[0])
    if baseline is not None and checkpoint is None:
        announce(f"No --checkpoint given: the baseline is transformers with {baseline.checkpoint}")
    cases = plan(paths, baseline)
    counter = pick_counter() if measured.has_references and not profile else None
    defaults = open_artifact(paths[0]).manifest.defaults
    workload = Workload(
        dataset=measured.name,
        dataset_sha256=measured.sha256,
        images=len(measured.images),
        prompt=prompt,
        num_beams=num_beams or defaults.num_beams,
        generation=_generation(defaults, search),
        min_length=defaults.min_length,
        max_length=defaults.max_length,
        threads=read_host().cores,
        warmup=warmup,
        repeats=repeat,
        metric_counter=counter.name if counter else None,
        limit=measured.limit,
        dataset_path=measured.path,
        images_path=measured.images_path,
        checkpoint=baseline.named if baseline else checkpoint,
    )
    workloads = sweep(workload, batch_sizes, threads or (workload.threads,), tokens or (None,))
    if profile:
        with progress("profile", 2 * len(cases) * len(measured.images)) as bar:
            profiles = list(profile_cases(cases, measured, workloads[0], lambda case, count: bar.update(count, case)))
        click.echo(PROFILE_RENDERERS[layout](profiles), nl=False)
        if all(result.error for result in profiles):
            fail_after_output("every case failed")
        return
    total = len(workloads) * len(cases) * repeat * len(measured.images)
    records = []
    with progress("bench", total) as bar, locked(output) if output else nullcontext():
        for record in run(cases, measured, workloads, counter, lambda case, count: bar.update(count, case)):
            records.append(record)
            if output is not None:
                write_records(output, records)
    click.echo(RENDERERS[layout](records), nl=False)
    if report is not None:
        from toolkit.report.page import render_html

        write_text(report, render_html(records, measured))
        click.echo(f"Open in a browser: {report}", err=True)
    if all(record.error for record in records):
        fail_after_output("every case failed")


def _generation(defaults: "GenerationConfig", search: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the search, without beams and lengths, that differ from transformers' or from the artifact's."""
    neutral, own = (json_dataclass.dump(config) for config in (type(defaults)(), defaults))
    used = {**json_dataclass.dump(defaults.deterministic()), **{name: value for name, value in search.items() if value is not None}}
    others = [name for name in neutral if name not in ("num_beams", "min_length", "max_length")]
    return {name: used[name] for name in others if used[name] != neutral[name] or own[name] != neutral[name]}
