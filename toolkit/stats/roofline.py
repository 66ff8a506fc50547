"""The least time that a stage can take: a machine's limits and an artifact's arithmetic → seconds."""

from toolkit.records.record import Arithmetic, Limits


def encode_limit_s(limits: Limits, work: Arithmetic) -> float | None:
    """Return the least seconds of one image's encoding; None where integers are needed and were not measured."""
    seconds = work.encode_float_macs / limits.float_macs_per_s
    if not work.encode_int8_macs:
        return seconds
    return None if limits.int8_macs_per_s is None else seconds + work.encode_int8_macs / limits.int8_macs_per_s


def token_bytes(work: Arithmetic, batch_size: int = 1) -> float:
    """Return the bytes that one token of one image reads: a batch reads the weights once."""
    return work.token_weight_bytes / batch_size + work.token_cross_bytes


def token_limit_s(limits: Limits, work: Arithmetic, batch_size: int = 1) -> float:
    """Return the least seconds of one token of one image: a few rows are bound by reading, not by multiplying."""
    return token_bytes(work, batch_size) / limits.bytes_per_s
