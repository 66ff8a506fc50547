"""`toolkit bench`: measure artifacts on images, write records and print a table."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runtimes.artifact import json_dataclass
from runtimes.errors import RequestError
from toolkit.commands.artifact_argument import default_artifacts
from toolkit.commands.options import (
    ANY_PATH,
    FILE,
    FOLDER,
    POSITIVE,
    adapter_option,
    announce,
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
    from collections.abc import Sequence

    from runtimes.artifact.folder import Artifact
    from runtimes.artifact.generation import GenerationConfig
    from toolkit.bench.cases import Case
    from toolkit.bench.throughput import Shares
    from toolkit.datasets import Dataset
    from toolkit.records.record import Workload


LENGTHS = ("min_length", "max_length", "max_new_tokens")


@click.command(epilog="Example: toolkit bench build/artifacts --dataset sample --output records.jsonl")
@click.argument("artifacts", nargs=-1, type=ANY_PATH, metavar="[ARTIFACT]...")
@click.option("--checkpoint", help="Checkpoint of the baseline.  [default: that of the artifacts, found in models/, here or on the hub]")
@revision_option
@adapter_option
@click.option(
    "--dataset", help="'sample', a captions.json, COCO's captions or VQAv2's questions with --images.  [default: sample, or only --images]"
)
@click.option("--images", type=FOLDER, help="Folder of images; without --dataset there are no reference captions.")
@click.option("--limit", type=POSITIVE, help="Measure only this many images or questions, chosen with a fixed seed.")
@click.option("--repeat", type=POSITIVE, default=3, show_default=True, help="Rounds; each round runs every case once.")
@click.option("--warmup", type=POSITIVE, default=2, show_default=True, help="Captions before timing starts, including the first one.")
@search_options
@click.option("--prompt", help="Text that every caption starts with; it is removed before scoring.")
@click.option("--tokens", type=lengths, help="Tokens after the prompt, 'natural', or a sweep like 5,20,natural.  [default: natural]")
@click.option("--threads", type=numbers, help="CPU threads, or a sweep like 1,2,4.  [default: the physical cores within the CPU quota]")
@click.option("--batch-size", "batch_sizes", type=numbers, default="1", show_default=True, help="Images per run, or a sweep like 1,2,4.")
@click.option(
    "--throughput",
    is_flag=True,
    help="Measure images/s of a whole job for each --processes, --threads (per process) and --batch-size. Records have another format.",
)
@click.option("--processes", type=numbers, help="With --throughput: captioners, or a sweep like 1,2.  [default: 1 and the cores]")
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Device of all cases, the baseline included. Artifacts for a GPU are measured with cuda only.",
)
@click.option("--no-draft", is_flag=True, help="Caption without drafts, so that each step of the decoder makes one token.")
@output_file("Write the records to this file (.jsonl).")
@click.option("--report", type=FILE, help="Also write an HTML page to this file (.html).")
@overwrite_option
@quiet_option
@click.option(
    "--profile", is_flag=True, help="Print only the time per stage and operator. The run is slower, and has no baseline and no records."
)
@click.option("--json", "as_json", is_flag=True, help="Same as --format json.")
@click.option("--format", "layout", type=click.Choice(["md", "csv", "json"]), default="md", show_default=True, help="Output format.")
def command(
    artifacts: tuple[Path, ...],
    checkpoint: str | None,
    revision: str | None,
    adapter: Path | None,
    dataset: str | None,
    images: Path | None,
    limit: int | None,
    repeat: int,
    warmup: int,
    prompt: str | None,
    tokens: tuple[int | None, ...] | None,
    threads: tuple[int, ...] | None,
    batch_sizes: tuple[int, ...],
    throughput: bool,
    processes: tuple[int, ...] | None,
    device: str,
    no_draft: bool,
    output: Path | None,
    report: Path | None,
    overwrite: bool,
    profile: bool,
    as_json: bool,
    layout: str,
    **search: Any,  # noqa: ANN401 - the values of `search_options`
) -> None:
    """Benchmark artifacts against the FP32 model.

    ARTIFACT is an artifact of any task, or a folder whose artifacts are all measured; all must be exported from one checkpoint.
    [default: build/artifacts] Questions are measured one by one. A matcher compares each image with 8 texts. A list like 1,2,4 is a sweep:
    each value is measured. With --tokens natural, texts end as usual.
    """
    from runtimes.artifact.folder import open_artifact
    from runtimes.host.facts import read_host
    from runtimes.storage.atomic_write import locked
    from toolkit.bench.baseline import find_baseline
    from toolkit.bench.profiling.profile import profile_cases
    from toolkit.bench.profiling.profile_tables import RENDERERS as PROFILE_RENDERERS
    from toolkit.bench.runner import artifacts_in, plan, run
    from toolkit.bench.tasks.metrics import caption_metrics
    from toolkit.bench.tasks.table import BENCH_TASKS, check_options, check_samples
    from toolkit.datasets import load_dataset
    from toolkit.metrics.ngrams import pick_counter
    from toolkit.records.record import Workload
    from toolkit.records.record_file import write_records
    from toolkit.records.settings import sweep
    from toolkit.report.file import require_report_extra, write_text
    from toolkit.tables.render import RENDERERS

    if profile and (output or report):
        raise RequestError("--profile writes no records: remove --output and --report")
    if profile and (batch_sizes != (1,) or max(map(len, (threads or (), tokens or ()))) > 1):
        raise RequestError("--profile measures one setting with one image per run: remove --batch-size and lists of --threads or --tokens")
    if throughput and (profile or report or len(tokens or ()) > 1):
        raise RequestError(
            "--throughput measures one setting of --tokens and has no page: remove --profile, --report and lists of --tokens"
        )
    if processes and not throughput:
        raise RequestError("--processes needs --throughput")
    layout = "json" if as_json else layout
    guard_file(output, overwrite=overwrite)
    guard_file(report, overwrite=overwrite)
    if report is not None:
        require_report_extra()
    paths = artifacts_in(artifacts or (default_artifacts(),))
    artifact = open_artifact(paths[0])
    task = artifact.manifest.task
    given = {
        "search": any(value not in (None, ()) for value in search.values()),
        "tokens": tokens,
        "prompt": prompt is not None,
        "profile": profile,
        "no-draft": no_draft,
    }
    check_options(task, frozenset(name for name, value in given.items() if value))
    measured = load_dataset(dataset or (None if images else "sample"), images, limit, task)
    check_samples(task, measured)
    baseline = None if profile else find_baseline(checkpoint, revision, paths[0], adapter)
    if baseline is not None and checkpoint is None:
        announce(f"No --checkpoint given: the baseline is transformers with {baseline.checkpoint}")
    cases = plan(paths, baseline)
    measures, scored = BENCH_TASKS[task], measured.has_references and not profile
    counter = pick_counter() if scored and measures.metrics is None else None
    metrics = (caption_metrics(counter) if counter else measures.metrics) if scored else None
    config = _generation_config(artifact, search, prompt, forced=None not in (tokens or (None,)))
    workload = Workload(
        dataset=measured.name,
        dataset_sha256=measured.sha256,
        images=len(measured.images),
        prompt=prompt,
        num_beams=config.num_beams,
        generation=_generation(artifact.manifest.defaults, config),
        min_length=config.min_length,
        max_length=config.max_length,
        threads=read_host().cores,
        warmup=warmup,
        repeats=repeat,
        metric_counter=counter.name if counter else None,
        limit=measured.limit,
        dataset_path=measured.path,
        images_path=measured.images_path,
        checkpoint=baseline.named if baseline else checkpoint,
        device=None if device == "cpu" else device,
        draft=False if no_draft else None,
        task=task,
        texts=measures.texts,
    )
    if throughput:
        from toolkit.bench.throughput import settings

        cores = workload.threads
        shares = settings(cores, processes or tuple(dict.fromkeys((1, cores))), threads, batch_sizes)
        _throughput(cases, measured, replace(workload, forced_tokens=tokens[0] if tokens else None), shares, output, layout)
        return
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
        for record in run(cases, measured, workloads, metrics, lambda case, count: bar.update(count, case)):
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


def _throughput(
    cases: "Sequence[Case]", dataset: "Dataset", workload: "Workload", shares: "Sequence[Shares]", output: Path | None, layout: str
) -> None:
    """Measure images/s, write the records and print a table."""
    from toolkit.bench.throughput import measure_throughput
    from toolkit.records.throughput import write_throughput
    from toolkit.tables.throughput import RENDERERS

    if workload.forced_tokens is not None:
        workload = replace(workload, min_length=None, max_length=None)
    records = []
    with progress("bench", len(shares) * len(cases) * workload.repeats * len(dataset.images)) as bar:
        for record in measure_throughput(cases, dataset, workload, shares, lambda case, count: bar.update(count, case)):
            records.append(record)
            if output is not None:
                write_throughput(output, records)
    click.echo(RENDERERS[layout](records), nl=False)
    if all(record.error for record in records):
        fail_after_output("every case failed")


def _generation_config(artifact: "Artifact", search: dict[str, Any], prompt: str | None, *, forced: bool) -> "GenerationConfig":
    """Return the settings of the search: the artifact's without sampling, and the options. `max_new_tokens` becomes a `max_length`.

    Args:
        artifact: The first one of the benchmark.
        search: The values of `search_options`.
        prompt: Text that each caption starts with.
        forced: Whether --tokens forces the length of every caption.

    Raises:
        RequestError: An option is invalid.
    """
    from runtimes.artifact.verified_files import open_verified
    from runtimes.loading import load_tokenizer

    if forced and (given := [name for name in LENGTHS if search[name] is not None]):
        raise RequestError(f"--tokens sets the length of captions: remove --{given[0].replace('_', '-')}")
    words, start = search.pop("bad_words"), 1
    if words or prompt is not None:
        with open_verified(artifact, verify=False) as files:
            tokenizer = load_tokenizer(files)
        start = len(tokenizer.prompt_ids(prompt))
        if words:
            search["bad_words_ids"] = (*(search["bad_words_ids"] or ()), *tokenizer.words_ids(words))
    options = {name: value for name, value in search.items() if value is not None}
    if "max_length" in options:
        options.setdefault("max_new_tokens", None)
    try:
        config = replace(artifact.manifest.defaults.deterministic(), **options)
    except ValueError as error:
        raise RequestError(str(error)) from error
    if not {"max_length", "max_new_tokens"} & options.keys():
        config = config.within(artifact.manifest.model.max_positions, start)
    longest = config.max_length_after(start)
    if not forced and config.min_length > longest:
        raise RequestError(f"min_length {config.min_length} is more than the greatest length, {longest}")
    return replace(config, min_length=min(config.min_length, longest), max_length=longest, max_new_tokens=None)


def _generation(defaults: "GenerationConfig", config: "GenerationConfig") -> dict[str, Any]:
    """Return the settings of the search, without beams and lengths, that differ from transformers' or from the artifact's."""
    neutral, own, used = (json_dataclass.dump(each) for each in (type(defaults)(), defaults, config))
    others = [name for name in neutral if name not in ("num_beams", *LENGTHS)]
    return {name: used[name] for name in others if used[name] != neutral[name] or own[name] != neutral[name]}
