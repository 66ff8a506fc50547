"""Profile one artifact in this fresh process (a worker of `runtimes.workers`).

The images are captioned twice: as always, for what each stage takes, then with the runtime's profiler, for what its operators take. That
slows every run, so it says nothing of the stages' speed.
"""

import gc
import time
from pathlib import Path

from runtimes.artifact.folder import open_artifact
from runtimes.captioner import Captioner
from runtimes.engine_registry import find_engine, load_target
from runtimes.errors import RequestError
from runtimes.families.signature import SINGLE
from runtimes.loading import load
from runtimes.workers.child import Send, serve
from toolkit.bench.job import Job
from toolkit.bench.profiling.profile import Profile, Stage
from toolkit.bench.profiling.trace import Trace, Tracer, outside_runs

STAGES = ("read", "encode", "first_token", "token")


class _Laps:
    """The clock of a pass: every phase with its seconds, in order."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.seconds: list[float] = []
        self.total_s = 0.0

    def __call__(self, phase: str, seconds: float) -> None:
        self.phases.append(phase)
        self.seconds.append(seconds)

    def add(self, caption: "_Laps", total_s: float) -> None:
        """Add one caption's phases and the seconds of the whole."""
        self.phases += caption.phases
        self.seconds += caption.seconds
        self.total_s += total_s

    def sums(self) -> dict[str, float]:
        """Seconds by phase."""
        sums = dict.fromkeys(STAGES, 0.0)
        for phase, seconds in zip(self.phases, self.seconds, strict=True):
            sums[phase] += seconds
        return sums


def measure(job: Job, send: Send) -> Profile:
    """Caption everything twice and put the two passes together."""
    manifest = open_artifact(Path(job.path)).manifest
    if manifest.contract == SINGLE:
        raise RequestError("its whole loop is one run of one graph, so its stages cannot be told apart; profile its split recipe")
    profiler = find_engine(manifest.runtime).profiler
    if profiler is None:
        raise RequestError(f"the engine '{manifest.runtime}' has no profiler")
    tracer: Tracer = load_target(profiler)()
    with tracer.timing_runs() as runs:
        plain, readable = _plain(job, runs, send)
    gc.collect()
    tracer.open()
    traced = _traced(job, readable, tracer, send)  # when it returns, the captioner is gone
    return summarize(plain, runs, traced, tracer.read(), len(readable))


def _plain(job: Job, runs: list[float], send: Send) -> tuple[_Laps, list[str]]:
    """Return the laps of all images that can be read, and which they are."""
    captioner = load(job.path, device=job.device, threads=job.threads)
    _warm_up(captioner, job, _Laps())
    runs.clear()
    laps, readable, error = _Laps(), [], None
    for image in job.images:
        own, started = _Laps(), time.perf_counter()
        [caption] = captioner.caption([image], **job.decoding(captioner), timer=own)
        elapsed = time.perf_counter() - started
        send(1)
        if caption.error is None:  # failing is fast: such an image says nothing
            laps.add(own, elapsed)
            readable.append(image)
        error = error or caption.error
    if not readable:
        raise RequestError(f"no image could be captioned: {error}")
    return laps, readable


def _traced(job: Job, images: list[str], tracer: Tracer, send: Send) -> _Laps:
    captioner = load(job.path, device=job.device, threads=job.threads)
    warming, laps = _Laps(), _Laps()
    _warm_up(captioner, job, warming)
    tracer.start(captioner, warming.phases)
    for image in images:
        own, started = _Laps(), time.perf_counter()
        captioner.caption([image], **job.decoding(captioner), timer=own)
        laps.add(own, time.perf_counter() - started)
        send(1)
    return laps


def _warm_up(captioner: Captioner, job: Job, laps: _Laps) -> None:
    for turn in range(max(1, job.warmup)):
        captioner.caption([job.images[turn % len(job.images)]], **job.decoding(captioner), timer=laps)


def summarize(plain: _Laps, runs: list[float], traced: _Laps, trace: Trace, images: int) -> Profile:
    """Put both passes together as means over images."""
    sums = plain.sums()
    if runs:
        python = outside_runs(plain.phases, plain.seconds, iter(runs))
    else:  # only the profiler knows: its share of each phase
        outside, whole = outside_runs(traced.phases, traced.seconds, iter(trace.runs)), traced.sums()
        python = {phase: sums[phase] * outside[phase] / whole[phase] for phase in outside}
    stages = [
        Stage(name=name, seconds=sums[name] / images, python_seconds=python[name] / images if name in python else None) for name in STAGES
    ]
    stages.append(Stage(name="rest", seconds=(plain.total_s - sum(plain.seconds)) / images, python_seconds=None))
    return Profile(
        images=images,
        tokens=(plain.phases.count("first_token") + plain.phases.count("token")) / images,
        seconds=plain.total_s / images,
        traced_seconds=traced.total_s / images,
        stages=tuple(stages),
        operators={
            component: {name: seconds / images for name, seconds in operators.items()} for component, operators in trace.operators.items()
        },
    )


if __name__ == "__main__":
    serve(Job, measure)
