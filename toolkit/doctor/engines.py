"""What the engines offer on this machine: each is asked in a process of its own, as importing one may take seconds, or crash it."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from runtimes.host.facts import LIBRARIES, Host
from runtimes.selection.fitness import Product
from runtimes.workers.parent import ask


@dataclass(frozen=True, kw_only=True)
class Question:
    """Which runtime's library is asked."""

    runtime: str


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What a library says of itself here."""

    providers: tuple[str, ...]
    """Of onnxruntime: execution providers; of torch: quantized engines; in its own order."""
    cuda: bool
    """It can use a GPU here."""
    product: Product | None
    """The self-check of integer products; of onnxruntime only."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A runtime's library and its offer, or why there is none."""

    library: str
    offer: Offer | None
    error: str | None


def ask_engines(host: Host) -> dict[str, Engine]:
    """Ask every library that is installed; runtime → what it said."""

    def one(runtime: str) -> Engine:
        offer, error = ask("toolkit.doctor.engines_worker", Question(runtime=runtime), Offer, threads=1)
        return Engine(library=LIBRARIES[runtime], offer=offer, error=error)

    installed = [runtime for runtime in LIBRARIES if runtime in host.libraries]
    with ThreadPoolExecutor(len(LIBRARIES)) as pool:
        return dict(zip(installed, pool.map(one, installed), strict=True))
