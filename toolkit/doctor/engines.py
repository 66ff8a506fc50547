"""What the engines offer on this machine: each is asked in a process of its own, as importing one may take seconds, or crash it."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from runtimes.engine_registry import ENGINES
from runtimes.engines.offer import Offer
from runtimes.host.facts import Host
from runtimes.workers.parent import request_once


@dataclass(frozen=True, kw_only=True)
class Question:
    """Which runtime's library is asked."""

    runtime: str


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A runtime's library and its offer, or why there is none."""

    library: str
    offer: Offer | None
    error: str | None


def ask_engines(host: Host) -> dict[str, Engine]:
    """Ask every library that is installed; runtime → what it said."""

    def one(runtime: str) -> Engine:
        offer, error = request_once("toolkit.doctor.engines_worker", Question(runtime=runtime), Offer, threads=1)
        return Engine(library=ENGINES[runtime].library, offer=offer, error=error)

    installed = [name for name, engine in ENGINES.items() if name in host.libraries and engine.probe]
    with ThreadPoolExecutor(len(ENGINES)) as pool:
        return dict(zip(installed, pool.map(one, installed), strict=True))
