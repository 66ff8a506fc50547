"""Probe what torch supports on this machine."""

import torch

from runtimes.engines.offer import Offer


def probe() -> Offer:
    """Return the quantized engines, and whether torch can use a GPU."""
    engines = tuple(engine for engine in torch.backends.quantized.supported_engines if engine != "none")
    return Offer(providers=engines, cuda=torch.cuda.is_available(), product=None)
