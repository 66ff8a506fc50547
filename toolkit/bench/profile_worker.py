"""Profile one artifact in this fresh process: a job as JSON on stdin, progress and one profile as JSON lines on stdout.

The pictures are captioned twice: as always, for what each stage takes, then with the runtime's profiler, for what its operators take. That
slows every run, so it says nothing of stages; but what Python adds to a run is the same in both, and so is taken from the second.

Started as `python -m toolkit.bench.profile_worker`.
"""

import gc
import time
from collections import Counter, defaultdict
from importlib import import_module
from pathlib import Path
from typing import Any

from runtimes import document
from runtimes.artifact import open_artifact
from runtimes.captioner import Captioner
from runtimes.errors import RequestError
from runtimes.loading import load
from toolkit.bench.answer import Send, answer
from toolkit.bench.job import Job
from toolkit.bench.profile import Profile, Stage
from toolkit.bench.trace import COMPONENT, Trace, Tracer

TRACERS = {"ort": "toolkit.bench.ort_trace:OrtTracer", "torch": "toolkit.bench.torch_trace:TorchTracer"}
"""Runtime → its profiler."""

STAGES = ("read", "encode", "first_token", "token")


class _Laps:
    """The clock of a pass: every phase with its seconds, in order."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.seconds: list[float] = []

    def __call__(self, phase: str, seconds: float) -> None:
        self.phases.append(phase)
        self.seconds.append(seconds)

    def sums(self) -> Counter[str]:
        """Seconds by phase."""
        sums: Counter[str] = Counter()
        for phase, seconds in zip(self.phases, self.seconds, strict=True):
            sums[phase] += seconds
        return sums


def measure(question: dict[str, Any], send: Send) -> Profile:
    """Caption everything twice and put the two together."""
    job, problems = document.from_json(Job, question)
    assert job is not None, problems
    assert job.artifact is not None
    plain, total_s, readable = _plain(job, send)
    module, _, name = TRACERS[open_artifact(Path(job.artifact)).manifest.runtime].partition(":")
    tracer: Tracer = getattr(import_module(module), name)()
    traced, traced_s = _traced(job, readable, tracer, send)  # where it returns, the captioner is gone
    return summarize(plain, total_s, traced, traced_s, tracer.read(), len(readable))


def _plain(job: Job, send: Send) -> tuple[_Laps, float, list[str]]:
    assert job.artifact is not None
    captioner = load(job.artifact, job.device, job.threads)
    _warm_up(captioner, job, _Laps())
    laps, total_s, readable, error = _Laps(), 0.0, [], None
    for image in job.images:
        own, started = _Laps(), time.perf_counter()
        [caption] = captioner.caption([image], **_decoding(job), clock=own)
        elapsed = time.perf_counter() - started
        send({"captioned": 1})
        if caption.error is None:  # failing is fast: such a picture says nothing
            total_s += elapsed
            laps.phases += own.phases
            laps.seconds += own.seconds
            readable.append(image)
        error = error or caption.error
    if not readable:
        raise RequestError(f"no picture could be captioned: {error}")
    del captioner
    gc.collect()
    return laps, total_s, readable


def _traced(job: Job, images: list[str], tracer: Tracer, send: Send) -> tuple[_Laps, float]:
    assert job.artifact is not None
    captioner = load(job.artifact, job.device, job.threads)
    warming, laps = _Laps(), _Laps()
    _warm_up(captioner, job, warming)
    tracer.start(captioner, warming.phases)
    started = time.perf_counter()
    for image in images:
        captioner.caption([image], **_decoding(job), clock=laps)
        send({"captioned": 1})
    return laps, time.perf_counter() - started


def _warm_up(captioner: Captioner, job: Job, laps: _Laps) -> None:
    for turn in range(max(1, job.warmup)):
        captioner.caption([job.images[turn % len(job.images)]], **_decoding(job), clock=laps)


def _decoding(job: Job) -> dict[str, Any]:
    return {"prompt": job.prompt, "beams": job.beams, "min_length": job.min_length, "max_length": job.max_length}


def summarize(plain: _Laps, total_s: float, traced: _Laps, traced_s: float, trace: Trace, pictures: int) -> Profile:
    """Put both passes together as means over pictures."""
    python: defaultdict[str, float] = defaultdict(float)
    runs = {component: iter(seconds) for component, seconds in trace.runs.items()}
    for phase, seconds in zip(traced.phases, traced.seconds, strict=True):
        if phase in COMPONENT:
            python[phase] += seconds - next(runs[COMPONENT[phase]])
    assert all(next(left, None) is None for left in runs.values()), "a run of each component a phase"
    stages = [
        Stage(name=name, seconds=plain.sums()[name] / pictures, python_seconds=python[name] / pictures if name in COMPONENT else None)
        for name in STAGES
    ]
    stages.append(Stage(name="rest", seconds=(total_s - sum(plain.seconds)) / pictures, python_seconds=None))
    return Profile(
        pictures=pictures,
        tokens=(plain.phases.count("first_token") + plain.phases.count("token")) / pictures,
        seconds=total_s / pictures,
        traced_seconds=traced_s / pictures,
        stages=tuple(stages),
        operators={
            component: {name: seconds / pictures for name, seconds in operators.items()} for component, operators in trace.operators.items()
        },
    )


if __name__ == "__main__":
    answer(measure)
