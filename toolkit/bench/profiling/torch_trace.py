"""torch's profiler: a session that captions goes in, the seconds of every run and operator come out.

A run is the sum of its operators here: what lies between them is the module's Python.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from runtimes.captioner import Captioner
from runtimes.decoding.session import Description, Float32, Int64, Session, State
from toolkit.bench.profiling.trace import Trace


class Marked:
    """A session whose runs the profiler can tell apart."""

    def __init__(self, session: Session) -> None:
        from torch.profiler import record_function

        self._session, self._mark = session, record_function

    def encode(self, pixels: Float32) -> State:
        """See `Session.encode`."""
        with self._mark("encoder"):
            return self._session.encode(pixels)

    def step(self, token_ids: Int64, state: State, positions: Int64) -> tuple[Float32, State]:
        """See `Session.step`."""
        with self._mark("decoder"):
            return self._session.step(token_ids, state, positions)

    def select(self, state: State, rows: Int64, images: Int64) -> State:
        """See `Session.select`."""
        return self._session.select(state, rows, images)

    def describe(self) -> Description:
        """See `Session.describe`."""
        return self._session.describe()


class TorchTracer:
    """See `Tracer`."""

    @contextlib.contextmanager
    def timing_runs(self) -> Iterator[list[float]]:
        """See `Tracer.timing_runs`: Python calls every operator by itself."""
        yield []

    def open(self) -> None:
        """See `Tracer.open`."""
        from torch.profiler import ProfilerActivity, profile

        self._profile = profile(activities=[ProfilerActivity.CPU])

    def start(self, captioner: Captioner, warmed_up: list[str]) -> None:
        """See `Tracer.start`."""
        captioner.session = Marked(captioner.stepwise_session)
        self._profile.start()

    def read(self) -> Trace:
        """See `Tracer.read`."""
        self._profile.stop()
        trace = Trace()
        events: list[Any] = list(self._profile.events() or [])  # type: ignore[no-untyped-call]
        marks = sorted((event for event in events if event.name in ("encoder", "decoder")), key=lambda event: event.time_range.start)
        operators_s = dict.fromkeys((mark.id for mark in marks), 0.0)
        for event in events:
            root = event
            while root.cpu_parent is not None:
                root = root.cpu_parent
            if root.id in operators_s and root is not event:
                operators_s[root.id] += event.self_cpu_time_total / 1e6
                trace.operators[root.name][event.name] += event.self_cpu_time_total / 1e6
        trace.runs.extend(operators_s[mark.id] for mark in marks)
        return trace
