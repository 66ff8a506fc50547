"""Run one benchmark case in this fresh process (a worker of `runtimes.workers`).

Memory is read before references are scored, which takes more of it than captioning does.
"""

import time

started = time.perf_counter()

from pathlib import Path  # noqa: E402 - the clock above starts before anything heavy is imported
from typing import TYPE_CHECKING, Any  # noqa: E402

from runtimes.workers.child import Send, serve  # noqa: E402
from toolkit.bench.job import Job, Result  # noqa: E402
from toolkit.bench.meters.rapl import EnergyMeter  # noqa: E402
from toolkit.bench.meters.rss import peak_bytes, resident_bytes  # noqa: E402
from toolkit.bench.meters.throttling import ThrottleMeter  # noqa: E402
from toolkit.records.record import PictureTimes  # noqa: E402

if TYPE_CHECKING:
    from runtimes.decoding.session import EngineInfo


def run(job: Job, send: Send) -> Result:
    """Load, caption everything, then score the references."""
    captioner, import_s, load_s, described = _open(job)
    loaded = resident_bytes()
    decoding: dict[str, Any] = {
        "prompt": job.prompt,
        "beams": job.beams,
        "min_length": job.min_length,
        "max_length": job.max_length,
    }
    decoding["batch_size"] = size = job.batch_size
    warmups = []
    for turn in range(max(1, job.warmup)):
        batch = [job.images[(turn * size + place) % len(job.images)] for place in range(size)]
        begun = time.perf_counter()
        captioner.caption(batch, **decoding)
        warmups.append(time.perf_counter() - begun)
    captions: list[Any] = []
    times = []
    cpu, energy, throttling = time.process_time(), EnergyMeter(), ThrottleMeter()
    for start in range(0, len(job.images), size):
        laps = _Laps()
        begun = time.perf_counter()
        found = captioner.caption(job.images[start : start + size], **decoding, clock=laps)
        times.append(laps.times(time.perf_counter() - begun))
        captions += found
        energy.update()
        send(len(found))
    cpu, throttled = time.process_time() - cpu, throttling.seconds()
    peak = peak_bytes()
    prompt_tokens = len(captioner.caption_ids(job.prompt)) - 1 if job.prompt else 1
    log_probabilities: list[float | None] = []
    scored_tokens: list[int | None] = []
    if job.score and any(job.references):
        for image, references, caption in zip(job.images, job.references, captions, strict=True):
            scores = described["scores"] and caption.error is None
            log_probabilities.append(float(captioner.score([image], captions=[references])[0].sum()) if scores else None)
            scored_tokens.append(sum(len(captioner.caption_ids(reference)) - 1 for reference in references) if scores else None)
    return Result(
        versions=described["versions"],
        providers=described["providers"],
        parameter_bytes=described["parameter_bytes"],
        import_s=import_s,
        load_s=load_s,
        hash_s=captioner.timings.hash_s if job.artifact is not None and job.peer is None else None,
        first_caption_s=warmups[0],
        cpu_s=cpu,
        energy_j=energy.joules,
        throttled_s=throttled,
        loaded_rss_bytes=loaded,
        peak_rss_bytes=peak,
        warmup_s=tuple(warmups),
        times=tuple(times),
        captions=tuple(caption.text for caption in captions),
        without_prompt=tuple(captioner.strip_prompt(caption, job.prompt) for caption in captions),
        tokens=tuple(max(0, len(caption.token_ids) - prompt_tokens) for caption in captions),
        errors=tuple(caption.error for caption in captions),
        log_probabilities=tuple(log_probabilities),
        scored_tokens=tuple(scored_tokens),
    )


def _open(job: Job) -> tuple[Any, float, float, dict[str, Any]]:
    """Import what the case needs, load it, and tell how long both took."""
    if job.peer is not None:
        from toolkit.bench.peers.folder import opener

        open_peer = opener(Path(job.peer))
        import_s = time.perf_counter() - started
        captioner, description = open_peer(Path(job.peer), job.threads)
        load_s = time.perf_counter() - started - import_s
        return captioner, import_s, load_s, _described(description, scores=True)
    if job.artifact is None:
        from exporters.families.blip_reference import HfCaptioner, versions

        import_s = time.perf_counter() - started
        assert job.checkpoint is not None
        baseline = HfCaptioner(Path(job.checkpoint), job.threads, allow_bin=job.allow_bin)
        load_s = time.perf_counter() - started - import_s
        described = {
            "versions": versions(),
            "providers": ("cpu",),
            "parameter_bytes": 4 * sum(p.numel() for p in baseline.model.parameters()),
            "scores": True,
        }
        return baseline, import_s, load_s, described
    from runtimes.loading import load

    import_s = time.perf_counter() - started
    captioner = load(job.artifact, device=job.device, threads=job.threads)
    import_s += captioner.timings.import_s  # `load` imports the runtime's library while the files are being hashed
    load_s = time.perf_counter() - started - import_s
    scores = "score" in captioner.session.capabilities
    return captioner, import_s, load_s, _described(captioner.session.info(), scores=scores)


def _described(found: "EngineInfo", *, scores: bool) -> dict[str, Any]:
    return {"versions": found.versions, "providers": found.providers, "parameter_bytes": None, "scores": scores}


class _Laps:
    """Collects the phases of one batch."""

    def __init__(self) -> None:
        self._once: dict[str, float] = {}
        self._tokens: list[float] = []

    def __call__(self, phase: str, seconds: float) -> None:
        if phase == "token":
            self._tokens.append(seconds)
        else:
            self._once[phase] = seconds

    def times(self, total_s: float) -> PictureTimes:
        return PictureTimes(
            total_s=round(total_s, 6),  # microseconds: records stay readable, and no clock here is better
            read_s=self._of("read"),
            encode_s=None if "loop" in self._once else self._of("encode"),
            first_token_s=None if "loop" in self._once else self._of("first_token"),
            token_s=tuple(round(seconds, 6) for seconds in self._tokens),
        )

    def _of(self, phase: str) -> float:
        return round(self._once.get(phase, 0.0), 6)


if __name__ == "__main__":
    serve(Job, run)
