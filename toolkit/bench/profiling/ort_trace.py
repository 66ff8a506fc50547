"""Trace ONNX Runtime with its profiler.

A session writes its profile as JSON events when it ends, with times in microseconds. A "model_run" event is one run of the engine. Events
of the category "Node" whose names end in "_kernel_time" are operators.
"""

import contextlib
import gc
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnxruntime

from runtimes.engines.ort.session import Profiling
from runtimes.tasks.captioner import Captioner
from toolkit.bench.profiling.operator_classes import BETWEEN
from toolkit.bench.profiling.trace import COMPONENT, Trace

RUN, OPERATOR = "model_run", "_kernel_time"
RUNS = ("run", "run_with_iobinding", "run_with_ort_values")
"""The methods that run the engine; none of them calls another."""


class OrtTracer:
    """The `Tracer` of ONNX Runtime."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._skipped: Counter[str] = Counter()

    @contextlib.contextmanager
    def timing_runs(self) -> Iterator[list[float]]:
        """See `Tracer.timing_runs`."""
        seconds: list[float] = []

        def timed(run: Any) -> Any:  # noqa: ANN401 - onnxruntime is untyped
            def call(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401
                started = time.perf_counter()
                result = run(*arguments, **options)
                seconds.append(time.perf_counter() - started)
                return result

            return call

        plain = {name: getattr(onnxruntime.InferenceSession, name) for name in RUNS}
        for name, run in plain.items():
            setattr(onnxruntime.InferenceSession, name, timed(run))
        try:
            yield seconds
        finally:
            for name, run in plain.items():
                setattr(onnxruntime.InferenceSession, name, run)

    def open(self) -> None:
        """See `Tracer.open`."""
        Profiling.folder = Path(self._folder.name)

    def start(self, captioner: Captioner, warmed_up: list[str]) -> None:
        """See `Tracer.start`."""
        self._skipped = Counter(COMPONENT[phase] for phase in warmed_up if phase in COMPONENT)

    def read(self) -> Trace:
        """See `Tracer.read`."""
        Profiling.folder = None
        gc.collect()
        trace = Trace()
        for file in Path(self._folder.name).iterdir():
            component = next(name for name in trace.operators if file.name.startswith(name))
            add_events(trace, component, file, self._skipped[component])
        self._folder.cleanup()
        return trace


def add_events(trace: Trace, component: str, file: Path, skipped: int) -> None:
    """Add a component's profile to a trace, without its first `skipped` runs.

    Args:
        trace: Gets the seconds per operator.
        component: Name of the component, a key of `trace.operators`.
        file: ONNX Runtime's profile, JSON.
        skipped: Number of first runs that are left out, as warm-up.
    """
    events = json.loads(file.read_bytes())
    runs = sorted((event["ts"], event["dur"]) for event in events if event["name"] == RUN)[skipped:]
    operators = trace.operators[component]
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith(OPERATOR) and runs and event["ts"] >= runs[0][0]:
            operators[event["args"]["op_name"]] += event["dur"] / 1e6
    operators[BETWEEN] = max(0.0, sum(duration for _, duration in runs) / 1e6 - sum(operators.values()))
