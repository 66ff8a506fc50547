"""Open the graphs of a verified artifact and replay its golden captions. All native code that reads its files runs here."""

from dataclasses import dataclass
from typing import cast

from runtimes.artifact.verified_files import VerifiedFiles
from runtimes.host.facts import read_host
from runtimes.images.reading import MAX_PIXELS
from runtimes.loading import LoadOptions, load_verified
from runtimes.tasks.captioner import Captioner
from runtimes.verification.golden import Golden
from runtimes.verification.replay import Replay, replay


@dataclass(frozen=True, kw_only=True)
class Examined:
    """The result of opening an artifact."""

    providers: tuple[str, ...]
    golden: Replay | None
    """None: the artifact has no golden captions."""


def examine(files: VerifiedFiles, golden: Golden | None, threads: int | None) -> Examined:
    """Open an artifact on the CPU from its hashed files, and replay its golden captions.

    Args:
        files: The files of the artifact.
        golden: Its golden captions, or None.
        threads: CPU threads; None: see `runtimes.load`.

    Raises:
        ToolkitError: See `runtimes.load` and `runtimes.verification.replay.replay`.
    """
    options = LoadOptions(
        task="caption",
        device="cpu",
        provider_options={},
        threads=threads or read_host().cores,
        max_pixels=MAX_PIXELS,
        reduce_large=False,
        verify=True,
        tune_allocator=True,
        draft=None,
    )
    captioner = cast("Captioner", load_verified(files, options))
    return Examined(providers=captioner.session.info().providers, golden=None if golden is None else replay(captioner, golden, files))
