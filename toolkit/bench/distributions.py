"""Pass the baseline's next-token distributions to the other cases, which run in other processes, to measure their divergence from it.

A file per image contains the natural-log probabilities of the vocabulary at each token of the image's references, as FP16. FP16 halves the
files: an image of BLIP-base with five references has about 4 MB. The reader normalizes the rows again, so the rounding changes a divergence
by less than 1e-6 nat per token. The folder is limited to `MAX_BYTES`; later images have no divergence.
"""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from exporters.gate.divergence import kl_divergence
from runtimes.decoding.log_softmax import log_softmax
from runtimes.decoding.session import Float32

logger = logging.getLogger(__name__)

MAX_BYTES = 1 << 30


@contextmanager
def temporary_folder() -> Iterator[Path | None]:
    """Make a folder for distributions and remove it at the end; None, with a warning, if no temporary folder is writable."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="blip-toolkit-bench-", ignore_cleanup_errors=True)
    except OSError as error:
        logger.warning("the divergence from FP32 is not measured: no temporary folder can be written (%s)", error.strerror or error)
        yield None
        return
    with folder as name:
        yield Path(name)


class Distributions:
    """A folder of distributions."""

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self._folder, self._left = folder, max_bytes

    def store(self, index: int, rows: Sequence[Float32]) -> None:
        """Write the distributions of an image, f32[T,V] per reference. Without room for them, nothing is written."""
        content = np.concatenate(rows).astype(np.float16)
        self._left -= content.nbytes
        if self._left < 0:
            self._left = -1  # a later, smaller image is left out too, so that the measured images are the first ones
            return
        file = self._file(index)
        try:
            np.save(file, content)
        except OSError:  # the disk is full: the benchmark goes on without this figure
            self._left = -1
            with suppress(OSError):
                file.unlink()

    def divergence(self, index: int, rows: Sequence[Float32]) -> float | None:
        """Return the summed divergence of an image's distributions from the stored ones; None if none of this shape are stored."""
        try:
            stored = np.load(self._file(index))
        except OSError:
            return None
        other = np.concatenate(rows)
        return float(kl_divergence(log_softmax(stored.astype(np.float32)), other).sum()) if stored.shape == other.shape else None

    def _file(self, index: int) -> Path:
        return self._folder / f"{index}.npy"
