"""Ask one runtime's library what it offers, in this fresh process: its name comes as JSON on stdin, the offer goes out on stdout.

Started as `python -m toolkit.doctor.engines_worker`.
"""

from typing import Any

from runtimes.engine_registry import find_engine, load_target
from runtimes.engines.offer import Offer
from runtimes.errors import UnavailableError
from runtimes.workers.child import Send, answer


def offer(question: dict[str, Any], send: Send) -> Offer:
    """Answer for the runtime that is asked of."""
    probe = find_engine(question["runtime"]).probe
    assert probe is not None, question
    try:
        found: Offer = load_target(probe)()
        return found
    except ImportError as error:
        raise UnavailableError(f"cannot be imported: {error}") from error


if __name__ == "__main__":
    answer(offer)
