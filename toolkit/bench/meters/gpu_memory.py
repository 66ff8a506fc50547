"""Read the peak memory that torch allocated on the GPU."""

import sys


def peak_gpu_bytes(device: str) -> int | None:
    """Return the peak memory of this process on a device of torch in bytes; None on the CPU, and for other engines."""
    torch = sys.modules.get("torch")
    if torch is None or device == "cpu" or not torch.cuda.is_available():
        return None
    return int(torch.cuda.max_memory_allocated())
