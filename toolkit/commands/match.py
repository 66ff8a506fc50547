"""`toolkit match`: compare images with texts, and print a ranking."""

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from toolkit.commands.artifact_argument import default_artifacts, split_artifact
from toolkit.commands.model_options import load_arguments, load_options, workers_option
from toolkit.commands.options import POSITIVE, fail_after_output

if TYPE_CHECKING:
    from runtimes.pool.rows import Row


@click.command(epilog="Example: toolkit match build/artifacts photos --text 'a cat on a sofa' --text 'a dog'")
@click.argument("paths", nargs=-1, metavar="[ARTIFACT] IMAGE...")
@click.option("--text", "texts", multiple=True, required=True, metavar="TEXT", help="Text to compare with every image. May be repeated.")
@click.option("--batch-size", type=POSITIVE, default=1, show_default=True, help="Images per run of the model.")
@workers_option
@load_options
@click.option(
    "--json", "as_json", is_flag=True, help="Write JSON lines: image and matches (text, probability, similarity), or error and code."
)
def command(paths: tuple[str, ...], texts: tuple[str, ...], batch_size: int, workers: int, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - the values of `load_options`
    """Compare images with texts.

    ARTIFACT is the folder of an artifact with the task matching, or a folder of such artifacts. [default: build/artifacts] IMAGE is a file,
    a folder or a glob pattern. The table ranks the images for each text, or the texts for a single image. It is sorted by the probability
    of the matching head, and also shows the cosine of the embeddings. If an image cannot be read, the others are compared, and the exit
    code is 1.
    """
    from runtimes.loading import load
    from runtimes.pool.rows import match_row
    from toolkit.image_paths import expand

    artifact, names = split_artifact(paths)
    if not names:
        raise click.UsageError("Missing argument 'IMAGE...'.")
    images = expand(names)
    with load(artifact or default_artifacts(), task="matching", **load_arguments(**options)) as matcher:
        matches = matcher.stream(images, texts, batch_size=batch_size, workers=workers)
        failed = 0
        compared: list[Row] = []
        for image, match in zip(images, matches, strict=True):
            row = match_row(image, texts, match)
            if "error" in row:
                failed += 1
                click.echo(f"Error: {row['error']}", err=True)
            if as_json:
                click.echo(json.dumps(row, ensure_ascii=not row["image"].isprintable()))
            elif "error" not in row:
                compared.append(row)
    for line in _table(compared, texts):
        click.echo(line)
    if failed:
        fail_after_output(f"{failed} of {len(images)} images could not be compared")


def _table(rows: Sequence["Row"], texts: Sequence[str]) -> Iterator[str]:
    """Yield the lines of the ranking: one section per text, or one with all texts for a single image."""
    if not rows:
        return
    if len(rows) == 1:
        sections = {rows[0]["image"]: [(match["probability"], match["similarity"], match["text"]) for match in rows[0]["matches"]]}
    else:
        sections = {
            text: [(row["matches"][index]["probability"], row["matches"][index]["similarity"], row["image"]) for row in rows]
            for index, text in enumerate(texts)
        }
    for title, ranked in sections.items():
        yield _printable(title)
        yield "  probability  similarity"
        for probability, similarity, name in sorted(ranked, key=lambda entry: (-entry[0], -entry[1])):
            yield f"  {probability:11.4f}  {similarity:10.4f}  {_printable(name)}"


def _printable(text: str) -> str:
    return text if text.isprintable() else ascii(text)
