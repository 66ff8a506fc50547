"""The metrics of the service."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.serve.metrics import Counter, Gauge, Histogram, Labels, exposition
from toolkit.serve.model.messages import ItemResult

if TYPE_CHECKING:
    from toolkit.serve.admission import Admission
    from toolkit.serve.model.supervisor import ModelSupervisor

STAGES = ("read", "encode", "decode")


class ServiceMetrics:
    """All metrics of a server. Probes and scrapes are not counted as requests."""

    def __init__(self, model: "ModelSupervisor", admission: "Admission") -> None:
        self._model = model
        self.in_flight = 0
        """Requests that are not answered."""
        self.requests = Counter("blip_requests_total", "Requests by path and HTTP status; 499: the client was gone.")
        self.request_seconds = Histogram("blip_request_seconds", "Seconds from the first byte of a request to its answer.")
        self.images = Counter("blip_images_total", "Images by result: ok, or the code of the error.")
        self.tokens = Counter("blip_generated_tokens_total", "Generated tokens of all captions.")
        self.stage_seconds = Histogram("blip_stage_seconds", "Seconds of an image by stage: queue, read, encode, decode.")
        self._all = (
            self.requests,
            self.request_seconds,
            self.images,
            self.tokens,
            self.stage_seconds,
            Gauge("blip_requests_in_flight", "Requests that are not answered.", lambda: {(): self.in_flight}),
            Gauge("blip_queued_images", "Images in the queue and in the model process.", lambda: {(): model.items}),
            Gauge("blip_queued_seconds", "Expected seconds until the queued work is done.", lambda: {(): model.wait_s()}),
            Gauge("blip_buffered_bytes", "Bytes of request bodies in memory.", lambda: {(): admission.buffered}),
            Gauge("blip_model_runs_total", "Runs of the model.", lambda: {(): model.runs}, "counter"),
            Gauge("blip_model_starts_total", "Starts of the model process.", lambda: {(): model.starts}, "counter"),
            Gauge("blip_ready", "1 if the model is ready.", lambda: {(): model.stage == "ready"}),
            Gauge("blip_start_seconds", "Seconds of the last start of the model, by step.", self._start_seconds),
            Gauge("blip_resident_bytes", "Resident memory by process.", self._resident_bytes),
        )

    def add_images(self, results: Sequence[ItemResult]) -> None:
        """Count the results of a request."""
        for result in results:
            row = result.row or {}
            self.images.add(result=row.get("code", "ok"))
            self.tokens.add(max(0, len(row.get("token_ids", ())) - 1))
            for stage in STAGES:
                self.stage_seconds.observe(getattr(result, f"{stage}_s"), stage=stage)

    def exposition(self) -> str:
        """Return all metrics in Prometheus' text format."""
        return exposition(self._all)

    def _start_seconds(self) -> dict[Labels, float]:
        loaded = self._model.loaded
        return {} if loaded is None else {(("step", "load"),): loaded.load_s, (("step", "check"),): loaded.check_s}

    def _resident_bytes(self) -> dict[Labels, float]:
        processes = {"server": "self", "model": self._model.process_id}
        return {(("process", name),): resident for name, process in processes.items() if (resident := resident_bytes(process)) is not None}


def resident_bytes(process: int | str | None) -> float | None:
    """Return the resident memory of a process; None where the system has no /proc, or the process has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((1024.0 * int(line.split()[1]) for line in lines if line.startswith("VmRSS:")), None)
