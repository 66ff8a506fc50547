"""Progress bars on stderr, shown only in a terminal."""

import logging
import sys
from collections.abc import Iterable
from typing import Any

from click.termui import progressbar


def progress(label: str, length: int, items: Iterable[Any] | None = None) -> Any:  # noqa: ANN401 - click's ProgressBar is private
    """Return click's progress bar over `items`, or over `length` steps counted by its `update(count, item)`. `-q` hides it."""
    hidden = not sys.stderr.isatty() or logging.getLogger().getEffectiveLevel() >= logging.ERROR
    return progressbar(
        items, length, label=label, file=sys.stderr, hidden=hidden, item_show_func=lambda item: item if isinstance(item, str) else None
    )
