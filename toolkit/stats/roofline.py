"""Compute the minimum time of a stage from the machine's limits and the artifact's minimum work (roofline model)."""

from toolkit.records.record import Arithmetic, MachineLimits


def encode_limit_s(limits: MachineLimits, work: Arithmetic) -> float | None:
    """Return the minimum seconds to encode one image; None if the work has INT8 products and their rate was not measured."""
    seconds = work.encode_float_macs / limits.float_macs_per_s
    if not work.encode_int8_macs:
        return seconds
    return None if limits.int8_macs_per_s is None else seconds + work.encode_int8_macs / limits.int8_macs_per_s


def token_bytes(work: Arithmetic, batch_size: int = 1) -> float:
    """Return the bytes that are read for one token of one image; a batch reads the weights once."""
    return work.token_weight_bytes / batch_size + work.token_cross_bytes


def token_limit_s(limits: MachineLimits, work: Arithmetic, batch_size: int = 1) -> float:
    """Return the minimum seconds for one token of one image. With few rows, memory bandwidth is the limit, not arithmetic."""
    return token_bytes(work, batch_size) / limits.bytes_per_s
