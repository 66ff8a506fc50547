"""Linear and Embedding layers with INT8 weights and dynamic quantization, for torch.

Weights are packed directly from int8 tensors, without a pickle and without an FP32 copy. Activations are quantized per tensor to 7 bits at
every call, as in torch.ao's dynamic Linear: with 8 bits, U8S8 products would saturate on x86 without VNNI.
"""

import contextlib
import threading
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from runtimes.errors import UnavailableError

ENGINES = ("x86", "fbgemm", "onednn", "qnnpack")
"""Quantized engines of torch, best first. On AVX-512 VNNI, onednn needs 1.2 times the time of x86 for 577 rows, 1.5 times the time for one
row, and a third more memory."""


_packing = threading.Lock()


@contextlib.contextmanager
def packing_engine() -> Iterator[str]:
    """Select the best quantized engine of this torch build while the body packs weights, and yield its name.

    The selection is process-wide, so a lock serializes the bodies of several threads, and the previous engine is restored at the end.
    Packed weights keep their engine.

    Raises:
        UnavailableError: This torch build has no quantized engine.
    """
    engine = next((name for name in ENGINES if name in torch.backends.quantized.supported_engines), None)
    if engine is None:
        raise UnavailableError("this build of torch has no quantized engine, so it cannot run INT8 artifacts; use an FP32 artifact")
    with _packing:
        before = torch.backends.quantized.engine
        torch.backends.quantized.engine = engine
        try:
            yield engine
        finally:
            torch.backends.quantized.engine = before


class Int8Linear(nn.Module):
    """Linear layer with INT8 weights and one scale per output channel."""

    def __init__(self, weight: Tensor, scales: Tensor, bias: Tensor | None) -> None:
        """Pack the weights with the current quantized engine.

        Args:
            weight: i8[out,in], with zero points 0.
            scales: f32[out].
            bias: f32[out], or None.
        """
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns that quantized tensors are deprecated (pytorch#184982); the torch range is pinned
            zeros = torch.zeros(len(scales), dtype=torch.int64)
            quantized = torch._make_per_channel_quantized_tensor(weight, scales.double(), zeros, 0)
            self.packed = torch.ops.quantized.linear_prepack(quantized, bias)

    def forward(self, x: Tensor) -> Tensor:
        """f32[...,in] → f32[...,out]."""
        return torch.ops.quantized.linear_dynamic(x, self.packed, reduce_range=True)


class Int8Embedding(nn.Module):
    """Embedding that reads rows of the head's INT8 weights."""

    def __init__(self, table: Tensor, scales: Tensor) -> None:
        """Set the table i8[V,D] and its scales f32[V]."""
        super().__init__()
        self.table, self.scales = table, scales

    def forward(self, token_ids: Tensor) -> Tensor:
        """Look up token_ids i64[R,T]; return f32[R,T,D]."""
        return self.table[token_ids].float() * self.scales[token_ids].unsqueeze(-1)


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize a matrix symmetrically per row, as torch.ao's per-channel observer does.

    The scale is max|row| / 127.5, and at least float32's epsilon. Values are rounded half to even and clipped to [-128, 127].

    Args:
        weight: f32[out,in].

    Returns:
        Codes i8[out,in] and scales f32[out].
    """
    scales = (weight.abs().amax(dim=1) / 127.5).clamp_min(torch.finfo(torch.float32).eps)
    return torch.clamp(torch.round(weight / scales[:, None]), -128, 127).to(torch.int8), scales
