"""Layers that BLIP is built of: torch's own without initialization, activations by name, and attention.

Axes: B images, R rows (hypotheses; a multiple of B), H heads, T new tokens, P past tokens, N keys, D width, Dh width of a head.
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


def split_heads(x: Tensor, images: int, heads: int) -> Tensor:
    """f[R,T,D] → f[B,H,R*T/B,Dh]: rows of an image are neighbours, so folding them into its token axis moves nothing."""
    return x.reshape(images, -1, heads, int(x.shape[-1]) // heads).transpose(1, 2)


class Attend(nn.Module):
    """Scaled dot-product attention between heads that are split already; it has no weights.

    The ONNX exporter spells torch's fused operator with a scaled copy of the keys, which for cross-attention means copying all of them
    at every token; there the formula is written out, scaling the query.
    """

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """Query f[B,H,T,Dh], key and value f[B,H,N,Dh], mask f[T,N] added to the scores → f[B,T,H,Dh]."""
        if torch.onnx.is_in_onnx_export():
            scores = (query * int(query.shape[-1]) ** -0.5) @ key.transpose(-1, -2)
            if mask is not None:
                scores = scores + mask
            context = torch.softmax(scores, dim=-1) @ value
        else:
            context = functional.scaled_dot_product_attention(query, key, value, mask)
        return context.transpose(1, 2)


class SelfAttend(nn.Module):
    """Attention of tokens to each other and to those before them; it has no weights."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attend = Attend()

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, past: tuple[Tensor, Tensor] | None, mask: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Query, key and value f[R,T,D] of the new tokens, past key and value f[R,H,P,Dh], mask f[T,P+T] → f[R,T,D] and present K/V."""
        rows = query.shape[0]
        present = split_heads(key, rows, self.heads), split_heads(value, rows, self.heads)
        if past is not None:
            present = torch.cat([past[0], present[0]], dim=2), torch.cat([past[1], present[1]], dim=2)
        return self.attend(split_heads(query, rows, self.heads), *present, mask).reshape(query.shape), present
