"""Run one benchmark case in this fresh process (a worker of `runtimes.workers`).

Peak memory is read before the references are scored, because scoring needs more memory than captioning.
"""

import time

started = time.perf_counter()

from collections.abc import Sequence  # noqa: E402 - the clock above starts before the slow imports
from dataclasses import dataclass  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from runtimes.decoding.scoring import sequence_log_probability  # noqa: E402
from runtimes.engine_registry import load_target  # noqa: E402
from runtimes.workers.child import Send, serve  # noqa: E402
from toolkit.bench.cases import Opened  # noqa: E402
from toolkit.bench.distributions import Distributions  # noqa: E402
from toolkit.bench.job import CaseJob, Result, prompt_tokens  # noqa: E402
from toolkit.bench.meters.gpu_memory import peak_gpu_bytes  # noqa: E402
from toolkit.bench.meters.rapl import EnergyMeter  # noqa: E402
from toolkit.bench.meters.rss import peak_bytes, resident_bytes  # noqa: E402
from toolkit.bench.meters.throttling import ThrottleMeter  # noqa: E402
from toolkit.records.record import ImageTimes  # noqa: E402


def run(job: CaseJob, send: Send) -> Result:
    """Load the case, caption all images, then score the references."""
    open_case = load_target(job.opener)(Path(job.path), job)
    import_s = time.perf_counter() - started
    opened: Opened = open_case()
    load_s = time.perf_counter() - started - import_s - opened.import_s
    loaded, captioner, size = resident_bytes(), opened.captioner, job.batch_size
    decoding = {**job.decoding(captioner), "batch_size": size}
    warmups = []
    for turn in range(max(1, job.warmup)):
        batch = [job.images[(turn * size + index) % len(job.images)] for index in range(size)]
        begun = time.perf_counter()
        captioner.caption(batch, **decoding)
        warmups.append(time.perf_counter() - begun)
    captions: list[Any] = []
    times = []
    cpu, energy, throttling = time.process_time(), EnergyMeter(), ThrottleMeter()
    for start in range(0, len(job.images), size):
        timer = _BatchTimer()
        begun = time.perf_counter()
        batch_captions = captioner.caption(job.images[start : start + size], **decoding, timer=timer)
        times.append(timer.times(time.perf_counter() - begun))
        captions += batch_captions
        energy.update()
        send(len(batch_captions))
    cpu, throttled = time.process_time() - cpu, throttling.seconds()
    peak, gpu = peak_bytes(), peak_gpu_bytes(job.device)
    prompt_length = prompt_tokens(captioner, job.prompt)
    scores = _scores(job, opened, [caption.error is None for caption in captions])
    return Result(
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
        captions=tuple(caption.text for caption in captions),
        without_prompt=tuple(captioner.strip_prompt(caption, job.prompt) for caption in captions),
        tokens=tuple(max(0, len(caption.token_ids) - prompt_length) for caption in captions),
        errors=tuple(caption.error for caption in captions),
        log_probabilities=tuple(score.log_probability for score in scores),
        scored_tokens=tuple(score.tokens for score in scores),
        kl_divergences=tuple(score.kl_divergence for score in scores),
    )


@dataclass(frozen=True)
class _Score:
    """The references of one image under the model; see `toolkit.records.record.ImageQuality`."""

    log_probability: float | None = None
    tokens: int | None = None
    kl_divergence: float | None = None


def _scores(job: CaseJob, opened: Opened, captioned: Sequence[bool]) -> list[_Score]:
    """Score the references of each captioned image; an empty list if the images have none or the case shall not score."""
    if not job.score or not any(job.references):
        return []
    distributions = Distributions(Path(job.distributions)) if job.distributions else None
    scores = []
    for index, (image, references) in enumerate(zip(job.images, job.references, strict=True)):
        if not captioned[index] or not opened.scores:
            scores.append(_Score())
            continue
        rows = opened.captioner.token_log_probabilities(image, captions=references)
        ids = [opened.captioner.text_ids(reference) for reference in references]
        divergence = None
        if distributions is not None and job.stores_distributions:
            distributions.store(index, rows)
        elif distributions is not None:
            divergence = distributions.divergence(index, rows)
        total = sum(sequence_log_probability(row, sequence) for row, sequence in zip(rows, ids, strict=True))
        scores.append(_Score(total, sum(len(sequence) - 1 for sequence in ids), divergence))
    return scores


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
            first_token_s=None if "loop" in self._once else self._of("first_token"),
            token_s=tuple(round(seconds, 6) for seconds in self._tokens),
            steps=self._steps or None,
        )

    def _of(self, phase: str) -> float:
        return round(self._once.get(phase, 0.0), 6)


if __name__ == "__main__":
    serve(CaseJob, run)
