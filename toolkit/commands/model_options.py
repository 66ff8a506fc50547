"""Options of commands that run a model on images: how images are read, and the device."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from runtimes.engines.ort.providers import PROVIDERS, read_options
from toolkit.commands.options import FILE, POSITIVE, threads_option

F = TypeVar("F", bound=Callable[..., Any])

workers_option = click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Threads that read images while the model runs; 0 reads and runs in turn. One is enough on a CPU; a GPU may need more.",
)
max_pixels_option = click.option(
    "--max-pixels", type=POSITIVE, help="Refuse images with more pixels before decoding them.  [default: 50 million]"
)
reduce_large_option = click.option(
    "--reduce-large",
    is_flag=True,
    help="Decode a JPEG above that limit at 1/2, 1/4 or 1/8 of its size instead of refusing it.",
)
device_option = click.option(
    "--device",
    type=click.Choice(["auto", *PROVIDERS]),
    default="auto",
    show_default=True,
    help="auto: the GPU if the artifact targets one and it works, else the CPU. Any other device is required; the command fails if it does "
    "not work.",
)
provider_options_option = click.option(
    "--provider-options", type=FILE, help="JSON file with options of the device's execution provider: an object of names and values."
)


def load_options(command: F) -> F:
    """Add the options of `runtimes.load`; `load_arguments` takes their values."""
    for option in (threads_option, provider_options_option, device_option, reduce_large_option, max_pixels_option):
        command = option(command)
    return command


def load_arguments(
    *,
    max_pixels: int | None,
    provider_options: Path | None,
    **options: Any,  # noqa: ANN401 - the values of `load_options`
) -> Mapping[str, Any]:
    """Return the arguments of `runtimes.load` for the values of `load_options`."""
    if max_pixels is not None:
        options["max_pixels"] = max_pixels
    return {**options, "provider_options": read_options(provider_options) if provider_options else None}
