"""BLIP's vision encoder, a ViT (Dosovitskiy et al. 2021), as a torch module with the parameter names of Hugging Face.

Axes: B images, S pixels per side, N vision tokens, D width.
"""

import torch
from torch import Tensor, nn

from runtimes.engines.pytorch.layers import ACTIVATIONS, LayerNorm, Linear, SelfAttend
from runtimes.families.blip import BlipSpec


class VisionAttention(nn.Module):
    """Self-attention of the vision encoder, with one product for query, key and value."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.width = width
        self.attend = SelfAttend(heads)
        self.qkv = Linear(width, 3 * width)
        self.projection = Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """f[B,N,D] → f[B,N,D]."""
        context, _ = self.attend(*self.qkv(x).split(self.width, dim=-1), None, None)
        return self.projection(context)


class VisionMLP(nn.Module):
    """Feed-forward block of the vision encoder."""

    def __init__(self, width: int, inner: int, activation: str) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.fc1 = Linear(width, inner)
        self.fc2 = Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """f[B,N,D] → f[B,N,D]."""
        return self.fc2(self.activation(self.fc1(x)))


class VisionLayer(nn.Module):
    """Pre-norm transformer layer."""

    def __init__(self, shape: BlipSpec) -> None:
        super().__init__()
        self.self_attn = VisionAttention(shape.vision_width, shape.vision_heads)
        self.layer_norm1 = LayerNorm(shape.vision_width, eps=shape.vision_norm_eps)
        self.mlp = VisionMLP(shape.vision_width, shape.vision_inner, shape.vision_activation)
        self.layer_norm2 = LayerNorm(shape.vision_width, eps=shape.vision_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """f[B,N,D] → f[B,N,D]."""
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class VisionEmbeddings(nn.Module):
    """Embeddings of patches, class token and positions."""

    def __init__(self, shape: BlipSpec) -> None:
        super().__init__()
        self.side, self.patch_px = shape.image_px // shape.patch_px, shape.patch_px
        self.class_embedding = nn.Parameter(torch.zeros(1, 1, shape.vision_width))
        self.patch_embedding = Linear(3 * shape.patch_px**2, shape.vision_width)
        self.position_embedding = nn.Parameter(torch.zeros(1, shape.vision_tokens, shape.vision_width))

    def forward(self, pixels: Tensor) -> Tensor:
        """f[B,3,S,S] → f[B,N,D]."""
        images, side, px = pixels.shape[0], self.side, self.patch_px
        patches = pixels.reshape(images, 3, side, px, side, px).permute(0, 2, 4, 1, 3, 5).reshape(images, side**2, -1)
        x = torch.cat([self.class_embedding.expand(images, -1, -1), self.patch_embedding(patches)], dim=1)
        return x + self.position_embedding


class VisionModel(nn.Module):
    """The vision encoder (ViT)."""

    def __init__(self, shape: BlipSpec) -> None:
        super().__init__()
        self.embeddings = VisionEmbeddings(shape)
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList(VisionLayer(shape) for _ in range(shape.vision_layers))
        self.post_layernorm = LayerNorm(shape.vision_width, eps=shape.vision_norm_eps)

    def forward(self, pixels: Tensor) -> Tensor:
        """f[B,3,S,S] → f[B,N,D]."""
        x = self.embeddings(pixels)
        for layer in self.encoder.get_submodule("layers").children():
            x = layer(x)
        return self.post_layernorm(x)
