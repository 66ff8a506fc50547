"""Probe one engine in this process; a worker of `runtimes.workers`."""

from runtimes.engine_registry import find_engine, load_target
from runtimes.engines.offer import Offer
from runtimes.errors import UnavailableError
from runtimes.workers.child import Send, serve
from toolkit.doctor.engines import ProbeRequest


def offer(request: ProbeRequest, send: Send) -> Offer:
    """Import the library of the requested engine and return what the engine offers here."""
    probe = find_engine(request.runtime).probe
    assert probe is not None, request
    try:
        result: Offer = load_target(probe)()
        return result
    except ImportError as error:
        raise UnavailableError(f"cannot be imported: {error}") from error


if __name__ == "__main__":
    serve(ProbeRequest, offer)
