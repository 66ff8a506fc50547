"""Layers of BLIP: torch's layers without initialization, activations by name, and attention.

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
"""Name in a checkpoint's config → activation function."""


class _Uninitialized:
    """Mixin that skips the initialization of parameters.

    Weights are always loaded. Initializing them on the meta device would import torch's symbolic modules, which takes 2 s and 68 MB.
    """

    def reset_parameters(self) -> None:
        """Do nothing."""


class Linear(_Uninitialized, nn.Linear):
    """Linear without initialization."""


class EmbeddingTable(_Uninitialized, nn.Embedding):
    """Embedding without initialization."""


class LayerNorm(_Uninitialized, nn.LayerNorm):
    """LayerNorm without initialization."""


def split_heads(x: Tensor, images: int, heads: int) -> Tensor:
    """Reshape f[R,T,D] to f[B,H,R*T/B,Dh]. Rows of an image are adjacent, so folding them into its token axis copies no data."""
    return x.reshape(images, -1, heads, int(x.shape[-1]) // heads).transpose(1, 2)


class Attend(nn.Module):
    """Scaled dot-product attention of split heads; it has no weights.

    In an ONNX export, the formula is written out with a scaled query. The ONNX exporter would translate torch's fused operator to a
    scaled copy of the keys: with cross-attention, all keys would be copied at every token.
    """

    def __init__(self, scale: float | None = None) -> None:
        super().__init__()
        self.scale = scale
        """Factor of the scores; None: Dh**-0.5."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map query f[B,H,T,Dh], key and value f[B,H,N,Dh] and mask f[T,N], which is added to the scores, to f[B,T,H,Dh]."""
        if torch.onnx.is_in_onnx_export():
            scale = int(query.shape[-1]) ** -0.5 if self.scale is None else self.scale
            scores = (query if scale == 1 else query * scale) @ key.transpose(-1, -2)
            if mask is not None:
                scores = scores + mask
            context = torch.softmax(scores, dim=-1) @ value
        else:
            context = functional.scaled_dot_product_attention(query, key, value, mask, scale=self.scale)
        return context.transpose(1, 2)


class SelfAttend(nn.Module):
    """Self-attention of tokens, optionally with a KV cache of earlier tokens; it has no weights."""

    def __init__(self, heads: int, scale: float | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.attend = Attend(scale)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, past: tuple[Tensor, Tensor] | None, mask: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Compute attention of the new tokens.

        Args:
            query: f[R,T,D].
            key: f[R,T,D].
            value: f[R,T,D].
            past: Key and value f[R,H,P,Dh] of earlier tokens, or None.
            mask: f[T,P+T], added to the scores, or None.

        Returns:
            f[R,T,D], and the present key and value f[R,H,P+T,Dh].
        """
        rows = query.shape[0]
        present = split_heads(key, rows, self.heads), split_heads(value, rows, self.heads)
        if past is not None:
            present = torch.cat([past[0], present[0]], dim=2), torch.cat([past[1], present[1]], dim=2)
        return self.attend(split_heads(query, rows, self.heads), *present, mask).reshape(query.shape), present
