"""`toolkit distribute`: caption a data set in shards, on this machine, on a Ray cluster, or as one part of many."""

import json
import logging
import os
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runtimes.artifact.manifest import MANIFEST_NAME
from toolkit.commands.artifact_argument import best_artifact, contains_artifacts
from toolkit.commands.model_options import device_option, max_pixels_option, reduce_large_option
from toolkit.commands.options import ANY_PATH, POSITIVE, SECONDS, announce, decoding_options, error_codes, json_option

if TYPE_CHECKING:
    from toolkit.distribute.distribute import Order, Scheduler
    from toolkit.distribute.part import Part
    from toolkit.distribute.tally import MaxErrors

UNFINISHED = 2
"""Exit code if a shard of this part is not finished."""
DEFAULT_TIMEOUT_S = 300.0


def _part(context: click.Context, option: click.Parameter, value: str | None) -> "Part | None":
    from toolkit.distribute.part import Part

    try:
        return None if value is None else Part.parse(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not a part such as 3/16.") from error


def _max_errors(context: click.Context, option: click.Parameter, value: str | None) -> "MaxErrors":
    from toolkit.distribute.tally import MaxErrors

    try:
        return MaxErrors() if value is None else MaxErrors.parse(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is neither a number such as 25 nor a share such as 5%.") from error


@click.command(epilog="Example: toolkit distribute build/artifacts/blip-onnx-int8 photos 'shards/*.tar' --output captions")
@click.argument("artifact", type=ANY_PATH)
@click.argument("inputs", nargs=-1, metavar="INPUT...")
@click.option("-o", "--output", metavar="DIR", required=True, help="Folder of the shards: a local one or s3://BUCKET/FOLDER.")
@click.option("--from-file", metavar="FILE", help="Also caption the images whose paths FILE lists, one per line; - reads stdin.")
@click.option("--column", default="image", show_default=True, help="Column of Parquet files with the bytes or the paths of the images.")
@click.option("--images", metavar="DIR", help="Folder of the images of a captions file.  [default: the folder of the file]")
@click.option(
    "--hash/--no-hash",
    "hashed",
    default=True,
    show_default=True,
    help="Read all images when they are listed, so that equal ones are captioned once. --no-hash lists names only: equal images are "
    "captioned once per shard.",
)
@click.option("--list-only", is_flag=True, help="Only list the inputs, so that several machines can start at once.")
@click.option("--extend", is_flag=True, help="Add the inputs that the run in --output does not have.")
@click.option("--shard-size", type=POSITIVE, default=1000, show_default=True, help="Images per shard. A killed process loses one at most.")
@click.option("--part", metavar="K/N", callback=_part, help="Caption part K of N in processes of this machine, without Ray.")
@click.option("--address", help="Address of a Ray cluster.  [default: Ray is started on this machine]")
@click.option("--actors", type=POSITIVE, help="Processes that caption.  [default: all CPUs / threads per actor]")
@click.option("--threads-per-actor", type=POSITIVE, default=1, show_default=True, help="CPU threads of a process.")
@click.option("--readers", type=click.IntRange(min=0), default=4, show_default=True, help="Threads per process that read inputs ahead.")
@click.option(
    "--retry-errors",
    metavar="CODE,...",
    default="",
    callback=lambda context, option, value: error_codes(value),
    help="Caption images of finished shards again whose row has one of these error codes.",
)
@click.option("--max-errors", metavar="N|P%", callback=_max_errors, help="Stop when more images fail, as a number or as a share of all.")
@click.option(
    "--timeout",
    type=SECONDS,
    default=DEFAULT_TIMEOUT_S,
    show_default=True,
    metavar="SECONDS",
    help="An image that takes longer becomes an error row.",
)
@click.option("--batch-size", type=POSITIVE, default=1, show_default=True, help="Images per run of the model.")
@max_pixels_option
@reduce_large_option
@click.option("--strip-prompt", is_flag=True, help="Remove the prompt from the captions.")
@device_option
@click.option(
    "--s3-endpoint", metavar="URL", help="Address of an S3 server.  [default: AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, else Amazon's]"
)
@decoding_options
@json_option
def command(artifact: Path, as_json: bool, part: "Part | None", **options: Any) -> None:  # noqa: ANN401 - the values of the options
    """Caption a data set in shards, on one machine or on several.

    A shard is a Parquet file with one row per input. INPUT is a folder, an image, a glob pattern, a .parquet file, a .tar file
    (WebDataset) or a .json captions file; also s3://BUCKET/NAME. ARTIFACT may be a folder of artifacts, of which the best one for this
    machine is used; name one artifact if other machines continue the run. The same command continues a stopped run. Without --part, Ray
    runs the shards. The exit code is 1 if an image could not be captioned, and 2 if a shard is not finished.
    """
    from toolkit.distribute.distribute import distribute
    from toolkit.distribute.summary import text_of

    if not options["inputs"] and options["from_file"] is None:
        raise click.UsageError("Missing argument 'INPUT...'.")
    if part is not None and options["address"] is not None:
        raise click.UsageError("--part needs no Ray, and --address is one of a Ray cluster: give one of them.")
    order = _order(artifact, part, options)
    summary = distribute(order, _scheduler(part, options), announce)
    click.echo(json.dumps(summary) if as_json else text_of(summary, order.output))
    if summary["stopped"]:
        click.echo(f"Error: {summary['stopped']}", err=True)
    if options["list_only"]:
        return
    if unfinished := len(summary["unfinished_shards"]):
        click.echo(f"Error: {unfinished} of {summary['shards']} shards are not finished; run the same command again", err=True)
        raise SystemExit(UNFINISHED)
    if failed := sum(summary["errors"].values()):
        click.echo(f"Error: {failed} of {summary['rows']} images could not be captioned", err=True)
        raise SystemExit(1)


def _order(artifact: Path, part: "Part | None", options: dict[str, Any]) -> "Order":
    from runtimes.artifact.folder import open_artifact
    from runtimes.host.facts import read_host
    from runtimes.pool.job import CaptionJob, Request
    from toolkit.distribute.distribute import Order
    from toolkit.distribute.part import Part
    from toolkit.distribute.sources.inputs import Inputs
    from toolkit.distribute.stores.s3 import S3

    if not os.path.isfile(artifact / MANIFEST_NAME) and contains_artifacts(artifact):  # noqa: PTH113 - Path.is_file refuses long names
        artifact = best_artifact(artifact)
    output, threads = options["output"], options["threads_per_actor"]
    request = Request(**{field.name: options[field.name] for field in fields(Request) if field.name in options})
    return Order(
        inputs=Inputs(
            names=options["inputs"],
            from_file=options["from_file"],
            column=options["column"],
            images=options["images"],
            hashed=options["hashed"],
        ),
        output=output.rstrip("/") if output.startswith(S3) else os.path.abspath(output),  # noqa: PTH100 - Path.resolve follows links
        base=os.getcwd(),  # noqa: PTH109 - joined to names of any kind
        endpoint=options["s3_endpoint"],
        job=CaptionJob(
            artifact=os.path.abspath(artifact),  # noqa: PTH100
            device=options["device"],
            threads=threads,
            readers=options["readers"],
            request=request,
            log_level=logging.getLogger().level,
            timeout_s=options["timeout"],
        ),
        artifact=open_artifact(artifact).manifest.digest,
        shard_size=options["shard_size"],
        processes=options["actors"] or max(1, read_host().cores // threads),
        part=part or Part(),
        extend=options["extend"],
        retry_errors=options["retry_errors"],
        max_errors=options["max_errors"],
        list_only=options["list_only"],
    )


def _scheduler(part: "Part | None", options: dict[str, Any]) -> "Scheduler":
    from toolkit.distribute.distribute import caption_here
    from toolkit.distribute.ray_scheduler import RayCluster

    if part is not None:
        return caption_here
    cluster = RayCluster(address=options["address"], actors=options["actors"], threads=options["threads_per_actor"])
    cluster.check()
    return cluster.caption
