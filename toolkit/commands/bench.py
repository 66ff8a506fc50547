"""`toolkit bench`: artifacts and pictures go in; records and a table come out."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runtimes.errors import CheckpointError, OutputExistsError, RequestError
from toolkit.commands.options import output_file, overwrite_option, threads_option
from toolkit.progress import progress

if TYPE_CHECKING:
    from toolkit.bench.runner import Case

logger = logging.getLogger(__name__)


@click.command(help="Measure artifacts against the FP32 model.")
@click.argument("artifacts", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="ARTIFACT...")
@click.option("--checkpoint", help="The checkpoint they were made from, for the baseline.  [default: the one that the artifacts name]")
@click.option("--revision", help="Commit, tag or branch of a hub id.")
@click.option("--allow-bin", is_flag=True, help="The checkpoint may be a pytorch_model.bin.")
@click.option("--dataset", help="'sample', a captions.json, or COCO's captions file with --images.  [default: sample, or --images alone]")
@click.option("--images", type=click.Path(file_okay=False, path_type=Path), help="Folder of pictures; alone: speed and agreement only.")
@click.option("--limit", type=click.IntRange(min=1), help="Take that many pictures, chosen with a fixed seed.")
@click.option("--repeat", type=click.IntRange(min=1), default=3, show_default=True, help="Rounds over all cases.")
@click.option(
    "--warmup", type=click.IntRange(min=1), default=2, show_default=True, help="Captions before the clock runs, the first one included."
)
@click.option("--beams", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--prompt", help="Words that every caption starts with; left out when scored.")
@click.option("--tokens", type=click.IntRange(min=1), help="Force captions to this many tokens (for speed).")
@threads_option
@output_file("Keep the records here (.jsonl).")
@overwrite_option
@click.option("--format", "layout", type=click.Choice(["md", "csv", "json"]), default="md", show_default=True)
def command(
    artifacts: tuple[Path, ...],
    checkpoint: str | None,
    revision: str | None,
    allow_bin: bool,
    dataset: str | None,
    images: Path | None,
    limit: int | None,
    repeat: int,
    warmup: int,
    beams: int,
    prompt: str | None,
    tokens: int | None,
    threads: int | None,
    output: Path | None,
    overwrite: bool,
    layout: str,
) -> None:
    """ARTIFACT is an artifact, or a folder of artifacts of one checkpoint: all of them are measured."""
    from runtimes.host import read_host
    from toolkit.bench.datasets import load_dataset
    from toolkit.bench.ngrams import pick_counter
    from toolkit.bench.record import Workload, write_records
    from toolkit.bench.render import RENDERERS
    from toolkit.bench.runner import artifacts_in, plan, run

    if output is not None and output.exists() and not overwrite:
        raise OutputExistsError(output)
    pictures = load_dataset(dataset or (None if images else "sample"), images, limit)
    paths = artifacts_in(artifacts)
    cases = plan(paths, _baseline(checkpoint, revision, paths[0], allow_bin=allow_bin))
    counter = pick_counter() if pictures.has_references else None
    length = 20 if tokens is None else tokens + 1
    workload = Workload(
        dataset=pictures.name,
        dataset_sha256=pictures.sha256,
        pictures=len(pictures.pictures),
        prompt=prompt,
        beams=beams,
        min_length=0 if tokens is None else length,
        max_length=length,
        threads=threads or read_host().cores,
        warmup=warmup,
        repeats=repeat,
        metric_counter=counter.name if counter else None,
    )
    total = len(cases) * repeat * len(pictures.pictures)
    records = []
    with progress("bench", total) as bar:
        for record in run(cases, pictures, workload, counter, lambda case: bar.update(1, case)):
            records.append(record)
            if output is not None:
                write_records(output, records)
    click.echo(RENDERERS[layout](records), nl=False)
    if all(record.error for record in records):
        raise RequestError("every case failed")


def _baseline(checkpoint: str | None, revision: str | None, artifact: Path, *, allow_bin: bool) -> "Case | None":
    """Find the baseline; without its libraries or its checkpoint the artifacts are measured alone, and a line says so."""
    from runtimes.artifact import open_artifact
    from toolkit.bench.record import BASELINE
    from toolkit.bench.runner import Case

    source = open_artifact(artifact).manifest.source
    try:
        from exporters.checkpoint import open_checkpoint
    except ModuleNotFoundError as error:
        logger.warning("no baseline: %s is not installed; pip install 'blip-toolkit[export]'", error.name)
        return None
    beside = Path("models") / source.model
    try:
        opened = open_checkpoint(
            checkpoint or (str(beside) if beside.is_dir() else source.model), revision or source.revision, allow_bin=allow_bin
        )
    except CheckpointError as error:
        if checkpoint is not None:
            raise
        logger.warning("no baseline: %s; name the checkpoint with --checkpoint", error)
        return None
    return Case(
        name=BASELINE,
        artifact=None,
        checkpoint=opened.directory,
        weight_files=opened.weight_files,
        checkpoint_sha256=opened.source.sha256,
    )
