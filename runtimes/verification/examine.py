"""Open a verified artifact's graphs and compare its golden captions: all that runs native code on its files."""

from dataclasses import dataclass

from runtimes.artifact.verified_files import VerifiedFiles
from runtimes.host.facts import read_host
from runtimes.images.reading import MAX_PIXELS
from runtimes.loading import LoadOptions, load_verified
from runtimes.verification.golden import Golden, Replay, replay


@dataclass(frozen=True, kw_only=True)
class Examined:
    """What opening an artifact showed."""

    providers: tuple[str, ...]
    golden: Replay | None
    """None: the artifact has no golden captions."""


def examine(files: VerifiedFiles, golden: Golden | None, threads: int | None) -> Examined:
    """Open an artifact on the CPU from the files that were hashed, and replay its golden captions.

    Raises:
        ToolkitError: What `runtimes.load` and `runtimes.verification.golden.replay` raise.
    """
    options = LoadOptions(
        task="caption",
        device="cpu",
        provider_options={},
        threads=threads or read_host().cores,
        max_pixels=MAX_PIXELS,
        verify=True,
        tune_allocator=True,
    )
    captioner = load_verified(files, options)
    return Examined(providers=captioner.session.info().providers, golden=None if golden is None else replay(captioner, golden, files))
