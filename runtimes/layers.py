"""Layers that BLIP is built of: torch's own without initialization, activations by name, and attention.

Axes: B batch, H heads, T queries, N keys, Dh width of a head.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_new": lambda x: functional.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": functional.relu,
}
"""Activations of BLIP checkpoints by the name that their config uses."""


class _Loaded:
    """Leaves parameters as they are made.

    Ours are always loaded, and initializing them on the meta device would import torch's symbolic half: 2 s and 68 MB.
    """

    def reset_parameters(self) -> None:
        """Do nothing."""


class Linear(_Loaded, nn.Linear):
    """Linear without initialization."""


class Embedding(_Loaded, nn.Embedding):
    """Embedding without initialization."""


class LayerNorm(_Loaded, nn.LayerNorm):
    """LayerNorm without initialization."""


class Conv2d(_Loaded, nn.Conv2d):
    """Conv2d without initialization."""


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention: query f[B,H,T,Dh], key and value f[B,H,N,Dh], mask f[T,N] added to the scores → f[B,H,T,Dh].

    The ONNX exporter spells torch's fused operator with a scaled copy of the keys, which for cross-attention means copying all of them
    at every token; there the formula is written out, scaling the query.
    """
    if not torch.onnx.is_in_onnx_export():
        return functional.scaled_dot_product_attention(query, key, value, mask)
    scores = (query * int(query.shape[-1]) ** -0.5) @ key.transpose(-1, -2)
    if mask is not None:
        scores = scores + mask
    return torch.softmax(scores, dim=-1) @ value
