"""Run one benchmark case in this fresh process (a worker of `runtimes.workers`).

Peak memory is read before the references are scored, because scoring needs more memory than the measured requests.
"""

import time

started = time.perf_counter()

from pathlib import Path  # noqa: E402 - the clock above starts before the slow imports
from typing import Any  # noqa: E402

from runtimes.engine_registry import load_target  # noqa: E402
from runtimes.workers.child import Send, serve  # noqa: E402
from toolkit.bench.cases import Opened  # noqa: E402
from toolkit.bench.job import CaseJob, CaseResult  # noqa: E402
from toolkit.bench.meters.gpu_memory import peak_gpu_bytes  # noqa: E402
from toolkit.bench.meters.rapl import EnergyMeter  # noqa: E402
from toolkit.bench.meters.rss import peak_bytes, resident_bytes  # noqa: E402
from toolkit.bench.meters.throttling import ThrottleMeter  # noqa: E402
from toolkit.bench.tasks.requests import REQUESTS, Requests  # noqa: E402
from toolkit.records.record import ImageTimes  # noqa: E402

TEXT_PHASES = ("question", "match")
"""Phases whose seconds are `toolkit.records.record.ImageTimes.text_s`."""


def run(job: CaseJob, send: Send) -> CaseResult:
    """Load the case, run the model on all samples, then score the references."""
    open_case = load_target(job.opener)(Path(job.path), job)
    import_s = time.perf_counter() - started
    opened: Opened = open_case()
    load_s = time.perf_counter() - started - import_s - opened.import_s
    loaded, size = resident_bytes(), job.batch_size
    requests: Requests = load_target(REQUESTS[job.task])(opened, job)
    warmups = []
    for turn in range(max(1, job.warmup)):
        batch = [(turn * size + index) % len(job.images) for index in range(size)]
        begun = time.perf_counter()
        requests.run(batch)
        warmups.append(time.perf_counter() - begun)
    responses: list[Any] = []
    times = []
    cpu, energy, throttling = time.process_time(), EnergyMeter(), ThrottleMeter()
    for start in range(0, len(job.images), size):
        timer, batch = _BatchTimer(), list(range(len(job.images))[start : start + size])
        begun = time.perf_counter()
        of_batch = requests.run(batch, timer)
        times.append(timer.times(time.perf_counter() - begun))
        responses += of_batch
        energy.update()
        send(len(of_batch))
    cpu, throttled = time.process_time() - cpu, throttling.seconds()
    peak, gpu = peak_bytes(), peak_gpu_bytes(job.device)
    return CaseResult(
        versions=opened.versions,
        providers=opened.providers,
        parameter_bytes=opened.parameter_bytes,
        import_s=import_s + opened.import_s,
        load_s=load_s,
        hash_s=opened.hash_s,
        first_caption_s=warmups[0],
        cpu_s=cpu,
        energy_j=energy.joules,
        throttled_s=throttled,
        loaded_rss_bytes=loaded,
        peak_rss_bytes=peak,
        peak_gpu_bytes=gpu,
        warmup_s=tuple(warmups),
        times=tuple(times),
        samples=tuple(requests.results(responses)),
    )


class _BatchTimer:
    """Collects the seconds of each phase of one batch."""

    def __init__(self) -> None:
        self._once: dict[str, float] = {}
        self._tokens: list[float] = []
        self._steps = 0

    def __call__(self, phase: str, seconds: float) -> None:
        if phase == "token":
            self._tokens.append(seconds)
        elif phase == "step":
            self._steps += 1
        else:
            self._once[phase] = seconds

    def times(self, total_s: float) -> ImageTimes:
        return ImageTimes(
            total_s=round(total_s, 6),  # microseconds: the clock is no more precise, and records stay short
            read_s=self._of("read"),
            encode_s=None if "loop" in self._once else self._of("encode"),
            first_token_s=None if {"loop", "match"} & set(self._once) else self._of("first_token"),
            token_s=tuple(round(seconds, 6) for seconds in self._tokens),
            steps=self._steps or None,
            text_s=next((self._of(phase) for phase in TEXT_PHASES if phase in self._once), None),
        )

    def _of(self, phase: str) -> float:
        return round(self._once.get(phase, 0.0), 6)


if __name__ == "__main__":
    serve(CaseJob, run)
