"""Probe what ONNX Runtime supports on this machine."""

import onnxruntime

from runtimes.engines.offer import Offer
from runtimes.engines.ort.int8_selftest import run_int8_selftest


def probe() -> Offer:
    """Return the execution providers and the result of the INT8 self-test."""
    providers = tuple(onnxruntime.get_available_providers())
    return Offer(providers=providers, cuda="CUDAExecutionProvider" in providers, product=run_int8_selftest())
