"""`toolkit bench`: artifacts and images go in; records and a table come out."""

from contextlib import nullcontext
from pathlib import Path

import click

from runtimes.errors import RequestError
from toolkit.commands.options import (
    announce,
    default_artifacts,
    fail_after_output,
    guard_file,
    lengths,
    numbers,
    output_file,
    overwrite_option,
    quiet_option,
)
from toolkit.progress import progress


@click.command(
    help="Measure artifacts against the FP32 model.",
    epilog="ARTIFACT is an artifact, or a folder of artifacts of one checkpoint: all of them are measured. [default: build/artifacts]",
)
@click.argument("artifacts", nargs=-1, type=click.Path(path_type=Path), metavar="[ARTIFACT]...")
@click.option(
    "--checkpoint",
    help="The checkpoint they were made from, for the baseline.  [default: the one that they name, in models/, here or on the hub]",
)
@click.option("--revision", help="Commit, tag or branch of a hub id.")
@click.option("--dataset", help="'sample', a captions.json, or COCO's captions file with --images.  [default: sample, or --images alone]")
@click.option("--images", type=click.Path(file_okay=False, path_type=Path), help="Folder of images; alone: speed and agreement only.")
@click.option("--limit", type=click.IntRange(min=1), help="Take that many images, chosen with a fixed seed.")
@click.option("--repeat", type=click.IntRange(min=1), default=3, show_default=True, help="Rounds over all cases.")
@click.option(
    "--warmup", type=click.IntRange(min=1), default=2, show_default=True, help="Captions before the clock runs, the first one included."
)
@click.option("--num-beams", type=click.IntRange(min=1), help="Beams of the search; 1 is greedy.  [default: the artifact's]")
@click.option("--prompt", help="Words that every caption starts with; left out when scored.")
@click.option(
    "--tokens",
    type=lengths,
    help="Force captions to this many tokens after the prompt; a list, in which 'natural' may stand, is a sweep.  [default: natural]",
)
@click.option("--threads", type=numbers, help="CPU threads; a list is a sweep.  [default: the physical cores within the CPU quota]")
@click.option("--batch-size", "batch_sizes", type=numbers, default="1", show_default=True, help="Images per run; a list is a sweep.")
@output_file("Keep the records here (.jsonl).")
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), help="Write a page for a browser too (.html).")
@overwrite_option
@quiet_option
@click.option("--profile", is_flag=True, help="Show where a caption's time goes instead: a separate, slower run of the artifacts alone.")
@click.option("--json", "as_json", is_flag=True, help="Same as --format json.")
@click.option("--format", "layout", type=click.Choice(["md", "csv", "json"]), default="md", show_default=True)
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
) -> None:
    """Echo the table when all cases are done; records are kept as they are made."""
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
        raise RequestError("--profile keeps no records, so it takes no --output and no --report")
    if profile and (batch_sizes != (1,) or max(map(len, (threads or (), tokens or ()))) > 1):
        raise RequestError("--profile is of one setting, an image at a time: it takes no --batch-size and no list")
    layout = "json" if as_json else layout
    guard_file(output, overwrite=overwrite)
    guard_file(report, overwrite=overwrite)
    if report is not None:
        require_report_extra()
    measured = load_dataset(dataset or (None if images else "sample"), images, limit)
    paths = artifacts_in(artifacts or (default_artifacts(),))
    baseline = None if profile else find_baseline(checkpoint, revision, paths[0])
    if baseline is not None and checkpoint is None:
        announce(f"No checkpoint is named: the baseline is transformers on {baseline.checkpoint}")
    cases = plan(paths, baseline)
    counter = pick_counter() if measured.has_references and not profile else None
    defaults = open_artifact(paths[0]).manifest.defaults
    workload = Workload(
        dataset=measured.name,
        dataset_sha256=measured.sha256,
        images=len(measured.images),
        prompt=prompt,
        num_beams=num_beams or defaults.num_beams,
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
        if all(one.error for one in profiles):
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
