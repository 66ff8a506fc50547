"""Trace torch with its profiler.

The time of a run is the sum of its operators here: the time between operators is spent in the module's Python code.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from runtimes.decoding.session import RecordingSession
from runtimes.tasks.captioner import Captioner
from toolkit.bench.profiling.trace import Trace


class TorchTracer:
    """The `Tracer` of torch."""

    @contextlib.contextmanager
    def timing_runs(self) -> Iterator[list[float]]:
        """See `Tracer.timing_runs`. The list stays empty: Python calls each operator separately."""
        yield []

    def open(self) -> None:
        """See `Tracer.open`."""
        from torch.profiler import ProfilerActivity, profile

        self._profile = profile(activities=[ProfilerActivity.CPU])

    def start(self, captioner: Captioner, warmed_up: list[str]) -> None:
        """See `Tracer.start`."""
        from torch.profiler import record_function

        captioner.session = RecordingSession(captioner.stepwise_session, record_function)
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
