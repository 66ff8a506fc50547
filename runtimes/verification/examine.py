"""Open the graphs of a verified artifact and replay its golden captions. All native code that reads its files runs here."""

from dataclasses import dataclass
from typing import Any

from runtimes.artifact.verified_files import VerifiedFiles
from runtimes.host.facts import read_host
from runtimes.images.reading import MAX_PIXELS
from runtimes.loading import LoadOptions, load_verified
from runtimes.verification.golden_tasks import replay_function
from runtimes.verification.replay import Replay


@dataclass(frozen=True, kw_only=True)
class Examined:
    """The result of opening an artifact."""

    providers: tuple[str, ...]
    golden: Replay | None
    """None: the artifact has no golden results."""


def examine(files: VerifiedFiles, golden: Any | None, threads: int | None) -> Examined:  # noqa: ANN401 - see `read_golden`
    """Open an artifact on the CPU from its hashed files, and replay its golden results.

    Args:
        files: The files of the artifact.
        golden: From `runtimes.verification.golden_tasks.read_golden`.
        threads: CPU threads; None: see `runtimes.load`.

    Raises:
        ToolkitError: See `runtimes.load` and the functions of `GOLDEN_TASKS`.
    """
    options = LoadOptions(
        task=files.artifact.manifest.task,
        device="cpu",
        provider_options={},
        threads=threads or read_host().cores,
        max_pixels=MAX_PIXELS,
        reduce_large=False,
        verify=True,
        tune_allocator=True,
        draft=None,
    )
    model = load_verified(files, options)
    replayed = None if golden is None else replay_function(files.artifact.manifest.task)(model, golden, files)
    return Examined(providers=model.session.info().providers, golden=replayed)
