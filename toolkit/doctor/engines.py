"""Probe the installed engines, each in a subprocess, because importing an engine takes seconds and may crash the process."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from runtimes.engine_registry import ENGINES
from runtimes.engines.offer import Offer
from runtimes.host.facts import Host
from runtimes.workers.parent import request_once


@dataclass(frozen=True, kw_only=True)
class ProbeRequest:
    """Request to the probing subprocess."""

    runtime: str
    """Name of the engine in `runtimes.engine_registry`."""


@dataclass(frozen=True, kw_only=True)
class ProbedEngine:
    """The library of an engine, and either its offer or the reason why it does not work."""

    library: str
    offer: Offer | None
    error: str | None


def probe_engines(host: Host) -> dict[str, ProbedEngine]:
    """Probe the installed engines at the same time; return engine name → result."""

    def probe(runtime: str) -> ProbedEngine:
        offer, error = request_once("toolkit.doctor.engines_worker", ProbeRequest(runtime=runtime), Offer, threads=1)
        return ProbedEngine(library=ENGINES[runtime].library, offer=offer, error=error)

    installed = [name for name, engine in ENGINES.items() if name in host.libraries and engine.probe]
    with ThreadPoolExecutor(len(ENGINES)) as pool:
        return dict(zip(installed, pool.map(probe, installed), strict=True))
