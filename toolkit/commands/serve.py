"""`toolkit serve`: serve an artifact over HTTP."""

import logging
import re
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import click

from runtimes.engines.ort.providers import read_options
from runtimes.errors import MissingDependencyError, RequestError
from runtimes.host.facts import usable_cpus
from toolkit.commands.artifact_argument import default_artifacts
from toolkit.commands.model_options import device_option, max_pixels_option, provider_options_option
from toolkit.commands.options import ANY_PATH, FILE, POSITIVE, SECONDS, SecondsRange, announce, threads_option

HOST_NAME = re.compile(r"[\w.-]+")


@click.command(
    epilog="Example: toolkit serve build/artifacts/blip-mini-coco-onnx-int8 --port 8080",
    context_settings={"auto_envvar_prefix": "TOOLKIT_SERVE"},
)
@click.argument("artifact", type=ANY_PATH, required=False)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on. Addresses other than loopback need a token.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="Port; 0 chooses a free one.")
@click.option("--token-file", type=FILE, help="File with accepted tokens, one per line. Probes and the page need none.")
@click.option("--no-token", is_flag=True, help="Allow addresses other than loopback without a token.")
@click.option("--allowed-host", metavar="NAME", multiple=True, help="Accept this name in the header Host; may be repeated.")
@click.option(
    "--max-wait",
    type=SECONDS,
    default=10.0,
    show_default=True,
    help="Refuse requests (429) if they would wait longer than this many seconds.",
)
@click.option("--timeout", type=SECONDS, default=30.0, show_default=True, help="Seconds from the first byte of a request to its answer.")
@click.option("--max-body", type=POSITIVE, default=20, show_default=True, metavar="MB", help="Largest body of a request.")
@max_pixels_option
@click.option("--max-images", type=POSITIVE, default=16, show_default=True, help="Most images of a request.")
@click.option("--max-rows", type=POSITIVE, default=16, show_default=True, help="Most beams, captions, questions or texts per image.")
@click.option(
    "--max-batch",
    type=POSITIVE,
    default=1,
    show_default=True,
    help="Run up to this many waiting images together. Above 1 only for artifacts whose captions do not depend on it.",
)
@click.option(
    "--drain-delay",
    type=SecondsRange(min=0),
    default=0.0,
    show_default=True,
    help="Seconds after a signal in which /readyz fails and requests are still accepted.",
)
@click.option(
    "--drain", type=SECONDS, default=30.0, show_default=True, help="Seconds in which requests in flight can finish before the server ends."
)
@device_option
@provider_options_option
@threads_option
def command(
    artifact: Path | None,
    host: str,
    port: int,
    token_file: Path | None,
    no_token: bool,
    allowed_host: tuple[str, ...],
    max_wait: float,
    timeout: float,
    max_body: int,
    max_pixels: int | None,
    max_images: int,
    max_rows: int,
    max_batch: int,
    drain_delay: float,
    drain: float,
    device: str,
    provider_options: Path | None,
    threads: int | None,
) -> None:
    """Serve an artifact over HTTP.

    The command runs until SIGTERM, SIGHUP or Ctrl-C. ARTIFACT is an artifact's folder, or a folder of artifacts, of which the best one
    for this machine is used. [default: build/artifacts] GET / is a page to try it; GET /openapi.json describes all paths. Every option
    can also be set by an environment variable, for example --max-wait by TOOLKIT_SERVE_MAX_WAIT.
    """
    try:
        from toolkit.serve.http.access import read_tokens
        from toolkit.serve.server import max_connections, serve
    except ModuleNotFoundError as error:
        raise MissingDependencyError(error.name or "starlette", "toolkit serve", "serve") from error
    from toolkit.serve.settings import MEGABYTE, Access, Limits, ModelJob, Settings

    if not (_is_loopback(host) or token_file or no_token):
        raise RequestError(f"--host {host} can be reached from other machines: give a --token-file, or --no-token to let everyone in")
    if threads is not None and threads > (cpus := usable_cpus()):
        raise RequestError(f"--threads {threads} is more than the {cpus} CPUs of this process, which makes the model slower")
    if wrong := next((name for name in allowed_host if not HOST_NAME.fullmatch(name)), None):
        raise RequestError(f"--allowed-host {wrong} is not the name of a host; give it without scheme, port and path: captions.example.org")
    limits = Limits(
        max_wait_s=max_wait,
        timeout_s=timeout,
        body_bytes=max_body * MEGABYTE,
        max_pixels=max_pixels or Limits.max_pixels,
        max_images=max_images,
        max_rows=max_rows,
    )
    settings = Settings(
        job=ModelJob(
            artifact=str(artifact or default_artifacts()),
            device=device,
            threads=threads,
            provider_options=read_options(provider_options) if provider_options else {},
            max_batch=max_batch,
            log_level=logging.getLogger().level,
        ),
        limits=replace(limits, connections=min(limits.connections, max_connections())),
        access=Access(tokens=read_tokens(token_file) if token_file else (), hosts=(*allowed_host, host)),
    )
    serve(settings, host, port, drain_delay_s=drain_delay, drain_s=drain, report=announce)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
