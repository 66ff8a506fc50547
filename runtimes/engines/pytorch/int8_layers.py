"""Dynamic INT8 layers for torch: int8 weights and scales go in, modules that stand in for Linear and Embedding come out.

Weights are packed straight from plain int8 tensors, so there is no pickle and no FP32 copy. Activations are quantized per tensor at every
call, to 7 bits, as torch.ao's own dynamic Linear does: U8S8 products would saturate on x86 without VNNI.
"""

import contextlib
import threading
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from runtimes.errors import UnavailableError

ENGINES = ("x86", "fbgemm", "onednn", "qnnpack")
"""Quantized engines, best first: onednn takes 1.2 times x86's time on 577 rows, 1.5 on one, and a third more memory (AVX-512 VNNI)."""


_packing = threading.Lock()


@contextlib.contextmanager
def packing_engine() -> Iterator[str]:
    """Make the best quantized engine of this torch build the process's own while the body packs weights; yields its name.

    Packed weights keep their engine, so the process gets its former one back. Bodies of several threads wait for each other.

    Raises:
        UnavailableError: It has none.
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
    """Linear with weights i8[out,in], one scale per output channel, zero points 0."""

    def __init__(self, weight: Tensor, scales: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # quantized tensors are announced to go (pytorch#184982); the torch range is pinned
            zeros = torch.zeros(len(scales), dtype=torch.int64)
            quantized = torch._make_per_channel_quantized_tensor(weight, scales.double(), zeros, 0)
            self.packed = torch.ops.quantized.linear_prepack(quantized, bias)

    def forward(self, x: Tensor) -> Tensor:
        """f32[...,in] → f32[...,out]."""
        return torch.ops.quantized.linear_dynamic(x, self.packed, reduce_range=True)


class Int8Embedding(nn.Module):
    """Rows of the table i8[V,D] that the head multiplies by, with its scales f32[V]."""

    def __init__(self, table: Tensor, scales: Tensor) -> None:
        super().__init__()
        self.table, self.scales = table, scales

    def forward(self, token_ids: Tensor) -> Tensor:
        """token_ids i64[R,T] → f32[R,T,D]."""
        return self.table[token_ids].float() * self.scales[token_ids].unsqueeze(-1)


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize f32[out,in] symmetrically per row to i8[out,in] and scales f32[out], as torch.ao's per-channel observer does.

    The scale is max|row| / 127.5, at least float32's epsilon; values are rounded half to even and clipped to [-128, 127].
    """
    scales = (weight.abs().amax(dim=1) / 127.5).clamp_min(torch.finfo(torch.float32).eps)
    return torch.clamp(torch.round(weight / scales[:, None]), -128, 127).to(torch.int8), scales
