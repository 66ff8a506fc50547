"""`toolkit embed`: write the embeddings of images to a file."""

import json
from pathlib import Path
from typing import Any

import click

from runtimes.errors import RequestError
from toolkit.commands.artifact_argument import default_artifacts, split_artifact
from toolkit.commands.model_options import load_arguments, load_options, workers_option
from toolkit.commands.options import POSITIVE, fail_after_output, guard_file, overwrite_option
from toolkit.progress import progress


@click.command(epilog="Example: toolkit embed build/artifacts photos --output photos.npz")
@click.argument("paths", nargs=-1, metavar="[ARTIFACT] FOLDER...")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="File to write: .npz or .parquet.")
@overwrite_option
@click.option("--batch-size", type=POSITIVE, default=1, show_default=True, help="Images per run of the model.")
@workers_option
@load_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as a JSON object.")
def command(
    paths: tuple[str, ...],
    output: Path,
    overwrite: bool,
    batch_size: int,
    workers: int,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - the values of `load_options`
) -> None:
    """Write the normalized embeddings of images to a file.

    ARTIFACT is the folder of an artifact with the task matching, or a folder of such artifacts. [default: build/artifacts] FOLDER is a
    folder of images, a glob pattern or an image. An image that cannot be read has no embedding; the file names it, and the exit code is 1.
    """
    from runtimes.loading import load
    from toolkit.embeddings import check_format, write_embeddings
    from toolkit.image_paths import expand

    artifact, names = split_artifact(paths)
    if not names:
        raise click.UsageError("Missing argument 'FOLDER...'.")
    check_format(output)
    guard_file(output, overwrite=overwrite)
    images = expand(names)
    with (
        load(artifact or default_artifacts(), task="matching", **load_arguments(**options)) as matcher,
        progress("embed", len(images)) as bar,
    ):
        results = []
        for result in matcher.stream_embeddings(images, batch_size=batch_size, workers=workers):
            bar.update(1)
            results.append(result)
            if result.error is not None:
                click.echo(f"Error: {result.error}", err=True)
        failed = sum(result.error is not None for result in results)
        if failed == len(images):
            raise RequestError(f"none of {len(images)} images could be read; {output} is not written")
        write_embeddings(output, matcher.manifest, images, results)
        summary = {"output": str(output), "images": len(images) - failed, "failed": failed, "width": matcher.embedding_width}
    click.echo(json.dumps(summary) if as_json else str(output))
    if failed:
        fail_after_output(f"{failed} of {len(images)} images could not be embedded")
