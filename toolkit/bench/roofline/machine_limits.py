"""Measure this machine's memory bandwidth and its throughput of matrix products.

`toolkit.stats.roofline` divides an artifact's work by these limits: the result is the minimum time of each stage.
"""

import logging
from dataclasses import dataclass

from runtimes.workers.parent import request_once
from toolkit.records.record import MachineLimits

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LimitsRequest:
    """The request to the measuring process."""

    threads: int


def measure_limits(threads: int) -> MachineLimits | None:
    """Measure in a separate process, for about two seconds. Log a warning and return None if that fails."""
    limits, error = request_once(
        "toolkit.bench.roofline.machine_limits_worker", LimitsRequest(threads=threads), MachineLimits, threads=threads
    )
    if limits is None:
        logger.warning("no hardware limits: %s", error)
    elif limits.int8_macs_per_s is None:
        logger.warning("no INT8 limit: onnxruntime is not installed; pip install 'blip-toolkit[ort]'")
    return limits
