"""Where messages go: a level comes in; the root logger writes to stderr from it on, and chatty libraries from warnings on."""

import logging
import sys

CHOICE = logging.getLogger("runtimes.loading")
"""Which artifact of a folder was chosen, and why: said unless everything but errors is hidden."""


def log_to_stderr(level: int) -> None:
    """Set up the root logger of this process."""
    logging.basicConfig(stream=sys.stderr, level=level, format="%(levelname)s %(message)s", force=True)
    CHOICE.setLevel(logging.NOTSET if level >= logging.ERROR else min(level, logging.INFO))
    for noisy in ("PIL", "urllib3", "filelock", "fsspec", "huggingface_hub", "datasets"):
        logging.getLogger(noisy).setLevel(max(level, logging.WARNING))
