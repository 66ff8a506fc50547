"""Caption shards with Ray: an actor captions one shard after another; when one dies, its shard goes to another one.

Ray only schedules. An actor reads its inputs and writes its shards itself, so no image passes through the driver.
"""

import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, Final

from runtimes.artifact import json_dataclass
from runtimes.errors import MissingDependencyError, ToolkitError, UnavailableError, error_from_code, first_line
from toolkit.distribute.shard import Stats
from toolkit.distribute.shard_runner import RunConfig, ShardRunner
from toolkit.distribute.tally import News

CONNECT_S: Final = 5.0
HTTP2_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HTTP2_SETTINGS: Final = b"\0\0\0\x04\0\0\0\0\0"
"""An empty frame: u24 length, u8 type, u8 flags, u32 stream."""
POLL_S: Final = 2.0
"""Time between two looks at the progress of the actors."""
MAX_ATTEMPTS: Final = 3
"""A shard whose actor dies so often stays unfinished."""


class ShardActor:
    """Captions shards in a process of Ray. `news` runs beside `caption`, in another thread."""

    def __init__(self, config: RunConfig) -> None:
        self._runner = ShardRunner(config)
        self._news: deque[News] = deque()

    def ready(self) -> None:
        """Return when the actor has started."""

    def caption(self, number: int) -> tuple[Any, tuple[str, str] | None]:
        """Caption a shard; return its stats as JSON values and None, or None and the code and message of an error."""
        try:
            return json_dataclass.dump(self._runner.run(number, self._news.append)), None
        except ToolkitError as error:
            return None, (error.code, str(error))

    def news(self) -> News:
        """Return the rows since the last call."""
        parts = [self._news.popleft() for _ in range(len(self._news))]
        return News(rows=sum(part.rows for part in parts), errors=tuple(error for part in parts for error in part.errors))


@dataclass(frozen=True, kw_only=True)
class RayCluster:
    """Where the shards are captioned.

    Args:
        address: Address of a Ray cluster; None starts Ray on this machine for the time of the run.
        actors: Number of actors; None: as many as the CPUs of the cluster allow.
        threads: CPUs of an actor.
    """

    address: str | None
    actors: int | None
    threads: int

    def caption(self, config: RunConfig, shards: Sequence[int], on_news: Callable[[News], None]) -> Generator[Stats, None, None]:
        """Caption shards and yield their stats.

        Raises:
            MissingDependencyError: Ray is not installed.
            UnavailableError: The cluster does not answer, or its actors cannot run.
            ToolkitError: See `ShardRunner.run`.
        """
        ray = self._connect()
        try:
            cpus = int(ray.cluster_resources().get("CPU", 0))
            fitting = max(1, cpus // self.threads)
            wanted = self.actors if self.actors and self.address else min(self.actors or fitting, fitting)  # a cluster may grow
            actors = min(wanted, len(shards))
            yield from _Shards(ray, replace(config, processes=1), self.threads, actors, shards, on_news).caption()
        finally:
            ray.shutdown()

    def check(self) -> None:
        """Check what is needed, before the inputs are listed.

        Raises:
            MissingDependencyError: Ray is not installed.
            UnavailableError: Nothing answers at the address.
        """
        if find_spec("ray") is None:
            raise MissingDependencyError("ray", "several processes or machines (--part 1/1 needs none)", "ray")
        if self.address:
            _check_address(self.address)

    def _connect(self) -> Any:  # noqa: ANN401 - ray is untyped
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no reports to Ray's makers
        os.environ.setdefault("RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", "0")  # Ray's handler of SIGTERM would wait for 30 s
        import ray

        handler = signal.getsignal(signal.SIGTERM)
        options: dict[str, Any] = {"address": self.address} if self.address else {"address": "local", "include_dashboard": False}
        try:
            try:
                ray.init(**options, logging_level="ERROR", log_to_driver=False)
            finally:  # before any of the lines below: Ray's handler would hide the exit code of the command line
                _handle_sigterm(handler)
        except SystemExit:  # raised by Ray's handler, at the latest in the line above
            _handle_sigterm(handler)
            signal.raise_signal(signal.SIGTERM)
        except (ConnectionError, OSError, RuntimeError, ValueError, TimeoutError) as error:
            raise UnavailableError(f"{self.address or 'Ray on this machine'}: no Ray cluster answers: {first_line(error)}") from error
        return ray


def _handle_sigterm(handler: Any) -> None:  # noqa: ANN401 - a function or a constant, see `signal.getsignal`
    """Install a handler of SIGTERM, if this is the main thread."""
    with suppress(ValueError):
        signal.signal(signal.SIGTERM, handler)


def _check_address(address: str) -> None:
    """Check that a gRPC server answers at an address: Ray tries for many minutes.

    Raises:
        UnavailableError: Nothing answers there.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        raise UnavailableError(f"{address}: is not the address of a Ray cluster; give HOST:PORT as `ray start` prints it")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), CONNECT_S) as connection:
            answers = os.environ.get("RAY_USE_TLS", "0") not in ("", "0") or _speaks_http2(connection)
    except (OSError, OverflowError) as error:
        raise UnavailableError(f"{address}: no Ray cluster answers: {first_line(error)}") from error
    if not answers:
        raise UnavailableError(f"{address}: no Ray cluster answers: another service does; give HOST:PORT as `ray start` prints it")


def _speaks_http2(connection: socket.socket) -> bool:
    """Return whether the peer answers the start of HTTP/2 as Ray's gRPC servers do: with a SETTINGS frame."""
    connection.sendall(HTTP2_PREFACE + HTTP2_SETTINGS)
    with connection.makefile("rb") as stream:
        header = stream.read(len(HTTP2_SETTINGS))
    return len(header) == len(HTTP2_SETTINGS) and header[3] == HTTP2_SETTINGS[3]


class _Shards:
    """The shards that are left, and the actors that caption them."""

    def __init__(
        self,
        ray: Any,  # noqa: ANN401 - ray is untyped
        config: RunConfig,
        threads: int,
        actors: int,
        shards: Sequence[int],
        on_news: Callable[[News], None],
    ) -> None:
        # Not `ray.put(config)`: when a signal has ended Ray's other processes, Ray ends a driver that has a stored object, with code 1.
        self._ray, self._config, self._on_news = ray, config, on_news
        self._actor_class = ray.remote(num_cpus=threads, max_restarts=0, max_concurrency=2)(ShardActor)
        self._left = deque(shards)
        self._attempts = dict.fromkeys(shards, 0)
        self._running: dict[Any, tuple[Any, int | None]] = {}
        """Call in progress → its actor, and the shard; None while the actor starts."""
        self._failed_starts, self._max_failed_starts = 0, MAX_ATTEMPTS * actors
        for _ in range(actors):
            self._start_actor()

    def caption(self) -> Iterator[Stats]:
        """Yield the stats of shards as they are finished."""
        polled = time.monotonic()
        while any(shard is not None for _, shard in self._running.values()) or self._left:
            ready, _ = self._ray.wait(list(self._running), timeout=POLL_S)
            for call in ready:
                actor, shard = self._running.pop(call)
                if (stats := self._result(call, actor, shard)) is not None:
                    yield stats
            if time.monotonic() - polled >= POLL_S:
                polled = time.monotonic()
                self._report()

    def _start_actor(self) -> None:
        actor = self._actor_class.remote(self._config)
        self._running[actor.ready.remote()] = (actor, None)

    def _result(self, call: Any, actor: Any, shard: int | None) -> Stats | None:  # noqa: ANN401
        """Take the result of a call, and give the actor the next shard."""
        try:
            result = self._ray.get(call)
        except self._ray.exceptions.RayActorError as error:
            self._replace(shard, error)
            return None
        stats = None
        if shard is not None:
            fields, problem = result
            if problem is not None:
                raise error_from_code(*problem)
            stats, _ = json_dataclass.load(Stats, fields)
        self._failed_starts = 0
        self._news_of([actor])
        if self._left:
            number = self._left.popleft()
            self._running[actor.caption.remote(number)] = (actor, number)
        return stats

    def _replace(self, shard: int | None, error: Exception) -> None:
        """Start another actor in place of a dead one; its shard is captioned again, unless that has failed too often."""
        if shard is None:
            self._failed_starts += 1
            if self._failed_starts >= self._max_failed_starts:
                raise UnavailableError(f"no Ray actor could start: {first_line(error)}")
        else:
            self._attempts[shard] += 1
            if self._attempts[shard] < MAX_ATTEMPTS:
                self._left.append(shard)
        self._start_actor()

    def _report(self) -> None:
        self._news_of([actor for actor, shard in self._running.values() if shard is not None])

    def _news_of(self, actors: Sequence[Any]) -> None:
        """Ask actors for their news. One that does not answer is asked again later."""
        for actor in actors:
            with suppress(self._ray.exceptions.RayActorError, self._ray.exceptions.GetTimeoutError):
                self._on_news(self._ray.get(actor.news.remote(), timeout=POLL_S))
