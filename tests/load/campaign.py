"""Send the planned requests from 1, 4, 16 and 64 clients in turns, kill the model process twice, and check answers, memory and latency."""

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

import psutil

from tests.load.client import Client, get
from tests.load.plan import SHARE, Planned, plan
from tests.load.servers import resident_bytes

CLIENTS = (1, 4, 16, 64)
KILLS = (0.15, 0.2)
"""Shares of all requests after which the model process is killed."""
ROUNDS = 4
"""Each round has all numbers of clients. The bodies of waiting requests are in memory, so only ends of rounds can be compared."""
MAX_GROWTH = 1.03
WINDOW = 50
"""Answers at the end of a round whose median of resident memory is compared."""
BAD = b"no image"
WAIT_S = 60
PROBE_S = 0.1
"""Time between two probes."""


@dataclass
class Outcome:
    """What one number of clients measured."""

    clients: int
    latencies: list[float] = field(default_factory=list)
    """Seconds of each good request, from its first attempt that was admitted."""
    seconds: float = 0.0
    refused: int = 0
    """Attempts answered with 429; they were repeated."""
    probes: list[float] = field(default_factory=list)
    """Seconds of `/healthz` meanwhile."""


@dataclass(frozen=True)
class Memory:
    """Resident bytes of the processes of a server."""

    server: float
    model: float

    @property
    def total(self) -> float:
        """Of both."""
        return self.server + self.model


@dataclass
class Load:
    """State of a run against one server."""

    port: int
    process: psutil.Process
    images: Sequence[bytes]
    captions: Sequence[str | None]
    """Expected caption of each image; None: any."""
    oversized: bytes
    kills: list[int]
    problems: list[str] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    """After each good answer."""
    rounds: list[Memory] = field(default_factory=list)
    """Medians of the ends of the rounds."""
    answered: Counter[str] = field(default_factory=Counter)
    sent: int = 0


async def run(load: Load, outcome: Outcome, requests: Sequence[Planned]) -> None:
    """Send requests from several clients at once, each one when its last one is answered; add to the outcome."""
    pending, begun = iter(requests), time.perf_counter()
    probing = asyncio.create_task(_probe(load, outcome))

    async def client() -> None:
        connection = Client(load.port)
        for request in pending:
            load.sent += 1
            if load.kills and load.sent >= load.kills[0]:
                load.kills.pop(0)
                _kill_model(load)
            await _send(load, connection, request, outcome)
        await connection.close()

    await asyncio.gather(*(client() for _ in range(outcome.clients)))
    outcome.seconds += time.perf_counter() - begun
    probing.cancel()


async def _send(load: Load, client: Client, request: Planned, outcome: Outcome) -> None:
    image = load.images[request.image]
    if request.kind == "hang up":
        await client.hang_up(image, after=int(min(1.0, request.cut) * len(image)))
        load.answered["hang up"] += 1
        return
    body = {"good": image, "bad": BAD, "oversized": load.oversized}[request.kind]
    while True:
        begun = time.perf_counter()
        try:
            reply = await asyncio.wait_for(client.post(body), WAIT_S)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            load.problems.append(f"{request.kind}: {type(error).__name__}: {error}")
            return
        if reply.status != 429:
            break
        outcome.refused += 1
        await asyncio.sleep(int(reply.headers["retry-after"]))
    load.answered[f"{request.kind} {reply.status}"] += 1
    if request.kind == "good":
        outcome.latencies.append(time.perf_counter() - begun)
        sizes = resident_bytes(load.process)
        server = sizes.pop(load.process.pid)
        load.memory.append(Memory(server, sum(sizes.values())))
        row = reply.json["rows"][0] if "rows" in reply.json else reply.json
        if reply.status != 200 or load.captions[request.image] not in (None, row.get("caption")):
            load.problems.append(f"image {request.image}: {reply.status} {row}")
    elif reply.status != {"bad": 400, "oversized": 413}[request.kind]:
        load.problems.append(f"{request.kind}: {reply.status} {reply.body[:200]!r}")


async def _probe(load: Load, outcome: Outcome) -> None:
    while True:
        begun = time.perf_counter()
        reply = await get(load.port, "/healthz")
        outcome.probes.append(time.perf_counter() - begun)
        if reply.status != 200:
            load.problems.append(f"/healthz: {reply.status}")
        await asyncio.sleep(PROBE_S)


def _kill_model(load: Load) -> None:
    for child in load.process.children():
        child.kill()


def measure(load: Load, count: int, clients: Sequence[int], rounds: int = ROUNDS, share: float = SHARE) -> list[Outcome]:
    """Send `count` requests in rounds, each in equal parts from each number of clients."""
    part = count // (rounds * len(clients))
    requests = iter(plan(part * rounds * len(clients), len(load.images), share))
    outcomes = [Outcome(clients=each) for each in clients]
    for _ in range(rounds):
        for outcome in outcomes:
            asyncio.run(run(load, outcome, list(islice(requests, part))))
        end = load.memory[-WINDOW:]
        load.rounds.append(Memory(statistics.median(each.server for each in end), statistics.median(each.model for each in end)))
    return outcomes


def growth(load: Load) -> float:
    """Return the resident memory at the end of the last round as a multiple of that at the end of the first one."""
    return load.rounds[-1].total / load.rounds[0].total


def row(outcome: Outcome) -> dict[str, float]:
    """Return the figures of a number of clients."""
    latencies, probes = sorted(outcome.latencies), sorted(outcome.probes)
    return {
        "clients": outcome.clients,
        "answers": len(latencies),
        "images_per_s": len(latencies) / outcome.seconds,
        **{f"p{share}_s": quantile(latencies, share / 100) for share in (50, 95, 99)},
        "refused": outcome.refused,
        "probe_p99_s": quantile(probes, 0.99),
    }


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of the values does not exceed."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def described(outcome: Outcome) -> str:
    """Return a line for the terminal."""
    values = row(outcome)
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())
