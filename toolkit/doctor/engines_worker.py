"""Probe one engine's library in this fresh process (a worker of `runtimes.workers`)."""

from runtimes.engine_registry import find_engine, load_target
from runtimes.engines.offer import Offer
from runtimes.errors import UnavailableError
from runtimes.workers.child import Send, serve
from toolkit.doctor.engines import Question


def offer(question: Question, send: Send) -> Offer:
    """Answer for the runtime that is asked of."""
    probe = find_engine(question.runtime).probe
    assert probe is not None, question
    try:
        found: Offer = load_target(probe)()
        return found
    except ImportError as error:
        raise UnavailableError(f"cannot be imported: {error}") from error


if __name__ == "__main__":
    serve(Question, offer)
