"""Ask one runtime's library what it offers, in this fresh process: its name comes as JSON on stdin, the offer goes out on stdout.

Started as `python -m toolkit.doctor.engines_worker`.
"""

from collections.abc import Callable
from typing import Any

from runtimes.errors import UnavailableError
from runtimes.selection.fitness import largest_product
from runtimes.workers.child import Send, answer
from toolkit.doctor.engines import Offer


def _onnxruntime() -> Offer:
    import onnxruntime

    providers = tuple(onnxruntime.get_available_providers())
    return Offer(providers=providers, cuda="CUDAExecutionProvider" in providers, product=largest_product())


def _torch() -> Offer:
    import torch

    engines = tuple(engine for engine in torch.backends.quantized.supported_engines if engine != "none")
    return Offer(providers=engines, cuda=torch.cuda.is_available(), product=None)


ASKED: dict[str, Callable[[], Offer]] = {"ort": _onnxruntime, "torch": _torch}


def offer(question: dict[str, Any], send: Send) -> Offer:
    """Answer for the runtime that is asked of."""
    try:
        return ASKED[question["runtime"]]()
    except ImportError as error:
        raise UnavailableError(f"cannot be imported: {error}") from error


if __name__ == "__main__":
    answer(offer)
