"""What this machine can do at most, measured on the spot: threads go in, memory bandwidth and throughput of products come out.

`toolkit.stats.roofline` computes from them and an artifact's arithmetic how fast each stage could be.
"""

import logging
from dataclasses import dataclass

from runtimes.workers.parent import request_once
from toolkit.records.record import Limits

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Question:
    """What the measuring process is asked."""

    threads: int


def measure_limits(threads: int) -> Limits | None:
    """Measure for about two seconds in a process of its own; what cannot be measured costs a warning, never the run."""
    limits, error = request_once("toolkit.bench.roofline.machine_limits_worker", Question(threads=threads), Limits, threads=threads)
    if limits is None:
        logger.warning("no hardware limits: %s", error)
    elif limits.int8_macs_per_s is None:
        logger.warning("no INT8 limit: onnxruntime is not installed; pip install 'blip-toolkit[ort]'")
    return limits
