"""`toolkit caption`: an artifact and pictures go in; one line per picture comes out."""

import json
from contextlib import ExitStack, closing, nullcontext
from pathlib import Path

import click

from runtimes.errors import OutputError
from toolkit.commands.options import decoding_options, guard_file, output_file, overwrite_option, threads_option
from toolkit.progress import progress


@click.command(
    help="Caption pictures with an artifact.",
    epilog="PATH is an artifact or a folder of artifacts; IMAGE a file, a folder or a glob.",
)
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@decoding_options
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Pictures per run; INT8 captions may differ a little with it.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Threads that read pictures ahead of the model; 0: none. One helps where a core is free; a GPU may take more.",
)
@click.option(
    "--max-pixels", type=click.IntRange(min=1), help="Larger pictures are refused before they are decoded.  [default: 50 million]"
)
@click.option("--strip-prompt", is_flag=True, help="Leave the prompt out of the text.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@threads_option
@output_file("Write the lines here instead of to stdout.")
@overwrite_option
@click.option("--json", "as_json", is_flag=True, help="JSON lines: image, caption, token_ids, score; or image, error, code.")
def command(
    path: Path,
    images: tuple[str, ...],
    prompt: str | None,
    beams: int,
    min_length: int,
    max_length: int,
    batch_size: int,
    workers: int,
    max_pixels: int | None,
    strip_prompt: bool,
    device: str,
    threads: int | None,
    output: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Echo one line per picture; bad ones are error rows."""
    from runtimes import load
    from runtimes.atomic import write_atomically
    from runtimes.images import MAX_PIXELS
    from toolkit.pictures import expand

    guard_file(output, overwrite=overwrite)
    files = expand(images)
    captioner = load(path, device, threads, max_pixels=max_pixels or MAX_PIXELS)

    failed, written = 0, []
    with ExitStack() as stack:
        captions = stack.enter_context(closing(captioner.stream(files, prompt, beams, min_length, max_length, batch_size, workers=workers)))
        # Lines that go to a terminal are progress enough.
        bar = stack.enter_context(progress("caption", len(files), captions) if output else nullcontext(captions))
        for image, caption in zip(files, bar, strict=True):
            text = captioner.strip_prompt(caption, prompt) if strip_prompt and caption.error is None else caption.text
            line = _json_line(image, text, caption) if as_json else f"{_one_line(image)}\t{text}"
            if caption.error is not None:
                failed += 1
                click.echo(f"Error: {caption.error}", err=True)
                if not as_json:
                    continue
            if output is None:
                click.echo(line)
            else:
                written.append(line)
    if output is not None:
        try:
            write_atomically(output, "".join(f"{line}\n" for line in written).encode())
        except OSError as error:
            raise OutputError(output, error.strerror or str(error)) from error
    if failed:
        raise click.ClickException(f"{failed} of {len(files)} pictures could not be captioned")


def _json_line(image: str, text: str, caption: "Caption") -> str:  # type: ignore[name-defined]  # noqa: F821
    row = {"image": image, "caption": text, "token_ids": caption.token_ids, "score": caption.score}
    if caption.error is not None:
        row = {"image": image, "error": caption.error, "code": caption.code}
    return json.dumps(row, ensure_ascii=not image.isprintable())


def _one_line(name: str) -> str:
    """Escape a name that holds line breaks, tabs or bytes that are no text."""
    return name if name.isprintable() else ascii(name)
