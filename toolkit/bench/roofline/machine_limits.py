"""What this machine can do at most, measured on the spot: threads go in, memory bandwidth and throughput of products come out.

With an artifact's arithmetic they say how fast each stage could be, and so how much of the hardware a recipe uses.
"""

import logging
from dataclasses import dataclass

from runtimes.workers.parent import ask
from toolkit.bench.roofline.model_costs import Arithmetic

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The best of several runs each."""

    threads: int
    bytes_per_s: float
    """Reading memory outside every cache."""
    float_macs_per_s: float
    """Multiplications with additions in FP32, of a product as an encoder has it."""
    int8_macs_per_s: float | None
    """The same in INT8; None without onnxruntime."""
    library: str
    """What multiplied: onnxruntime, or numpy where that is absent."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What the measuring process is asked."""

    threads: int


def measure_limits(threads: int) -> Limits | None:
    """Measure for about two seconds in a process of its own; what cannot be measured costs a warning, never the run."""
    limits, error = ask("toolkit.bench.roofline.machine_limits_worker", Question(threads=threads), Limits, threads=threads)
    if limits is None:
        logger.warning("no hardware limits: %s", error)
    elif limits.int8_macs_per_s is None:
        logger.warning("no INT8 limit: onnxruntime is not installed; pip install 'blip-toolkit[ort]'")
    return limits


def encode_limit_s(limits: Limits, work: Arithmetic) -> float | None:
    """Return the least seconds of one picture's encoding; None where integers are needed and were not measured."""
    seconds = work.encode_float_macs / limits.float_macs_per_s
    if not work.encode_int8_macs:
        return seconds
    return None if limits.int8_macs_per_s is None else seconds + work.encode_int8_macs / limits.int8_macs_per_s


def token_bytes(work: Arithmetic, batch_size: int = 1) -> float:
    """Return the bytes that one token of one picture reads: a batch reads the weights once."""
    return work.token_weight_bytes / batch_size + work.token_cross_bytes


def token_limit_s(limits: Limits, work: Arithmetic, batch_size: int = 1) -> float:
    """Return the least seconds of one token of one picture: a few rows are bound by reading, not by multiplying."""
    return token_bytes(work, batch_size) / limits.bytes_per_s
