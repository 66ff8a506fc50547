"""Set up logging to stderr: the root logger from a given level on, verbose libraries from warnings on."""

import logging
import sys

CHOICE = logging.getLogger("runtimes.loading")
"""Logger of the chosen artifact and the reason. Its messages are hidden only if the level is ERROR or higher."""


def log_to_stderr(level: int) -> None:
    """Set up the root logger of this process.

    Args:
        level: Lowest level to write, a constant of `logging`.
    """
    logging.basicConfig(stream=sys.stderr, level=level, format="%(levelname)s %(message)s", force=True)
    CHOICE.setLevel(logging.NOTSET if level >= logging.ERROR else min(level, logging.INFO))
    for noisy in ("PIL", "urllib3", "filelock", "fsspec", "huggingface_hub", "datasets"):
        logging.getLogger(noisy).setLevel(max(level, logging.WARNING))
