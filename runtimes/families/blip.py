"""BLIP: a ViT encoder and a BERT decoder with cross-attention (Li et al. 2022).

The model fixes H heads, Dh width of a head, S pixels per side and V vocabulary. Named axes may have any size.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from runtimes.families.registry import check_sizes
from runtimes.families.signature import SINGLE, SPLIT, Signature, Values

Activation = Literal["gelu", "gelu_new", "quick_gelu", "relu"]

MAX_SIZES = {
    "image_px": 4096,
    "patch_px": 4096,
    "vision_layers": 256,
    "text_layers": 256,
    "vocabulary": 1 << 20,
    "max_positions": 1 << 16,
}
"""Field → largest value: far above any BLIP, and low enough that a forged manifest cannot exhaust the memory of a device."""
MAX_OTHER_SIZE = 1 << 16
"""Largest value of the other fields: widths and numbers of heads."""


@dataclass(frozen=True, kw_only=True)
class BlipSpec:
    """Sizes of a BLIP captioner, from its config.json."""

    TORCH_MODULE: ClassVar[str] = "runtimes.engines.pytorch.blip:Blip"

    image_px: int
    """S: pixels per side of an image."""
    patch_px: int
    """Pixels per side of a patch."""
    vision_width: int
    """Width of the encoder's hidden states."""
    vision_inner: int
    """Width between the two products of the encoder's MLP."""
    vision_layers: int
    """Number of encoder layers."""
    vision_heads: int
    """Attention heads per encoder layer."""
    vision_activation: Activation
    """Activation function of the encoder's MLP."""
    vision_norm_eps: float
    """Epsilon of the encoder's LayerNorms."""
    text_width: int
    """D: width of the decoder's hidden states."""
    text_inner: int
    """Width between the two products of the decoder's MLP."""
    text_layers: int
    """Number of decoder layers."""
    text_heads: int
    """H: attention heads per decoder layer."""
    text_activation: Activation
    """Activation function of the decoder's MLP."""
    text_norm_eps: float
    """Epsilon of the decoder's LayerNorms."""
    vocabulary: int
    """V: number of token ids."""
    max_positions: int
    """Largest number of tokens of a text, prompt included."""
    tied: bool = True
    """Whether the head and the word embeddings are one tensor."""

    def __post_init__(self) -> None:
        """Check the sizes; raise ValueError for sizes that no model has."""
        check_sizes(self, MAX_SIZES, MAX_OTHER_SIZE)
        if self.image_px < self.patch_px or self.vision_width % self.vision_heads or self.text_width % self.text_heads:
            raise ValueError("image_px must be at least patch_px, vision_width and text_width must be multiples of their numbers of heads")
        if not (0 < self.vision_norm_eps < 1 and 0 < self.text_norm_eps < 1):
            raise ValueError("vision_norm_eps and text_norm_eps must lie between 0 and 1")

    @property
    def vision_tokens(self) -> int:
        """N: number of patches, plus the class token."""
        return (self.image_px // self.patch_px) ** 2 + 1

    @property
    def head_width(self) -> int:
        """Dh: width of an attention head of the decoder."""
        return self.text_width // self.text_heads

    def check_image(self, height_px: int, width_px: int) -> None:
        """Raise ValueError unless the image has the size of the position embeddings, which is square."""
        if {height_px, width_px} != {self.image_px}:
            raise ValueError(f"image is {height_px}x{width_px} px, the model takes {self.image_px}x{self.image_px}")

    def signatures(self, contract: str, precision: str) -> dict[str, Signature]:
        """Return role → inputs and outputs of its graph; empty for an unknown contract."""
        if contract == SINGLE:
            lengths = dict.fromkeys(("min_length", "max_length"), "int64[]")
            return {
                "captioner": (
                    {**self.pixels, "prompt_ids": "int64[prompt]", **lengths},
                    {"token_ids": "int64[images,length]", "log_probabilities": "float32[images]"},
                )
            }
        if contract != SPLIT:
            return {}
        kind = "float16" if precision == "fp16" else "float32"
        past, present = (self._cached(kind, *names) for names in (("past", "rows", "past"), ("present", "rows", "past_and_new")))
        cross = self.cross_values(kind)
        return {
            "encoder": (self.pixels, cross),
            "decoder": (
                {"token_ids": "int64[rows,new]", "positions": "int64[positions]", **past, **cross},
                {"logits": f"float32[rows,positions,{self.vocabulary}]", **present},
            ),
        }

    @property
    def pixels(self) -> Values:
        """The inputs of an encoder."""
        return {"pixels": f"float32[images,3,{self.image_px},{self.image_px}]"}

    def cross_values(self, kind: str) -> Values:
        """Return keys and values of cross-attention of an element type."""
        return self._cached(kind, "cross", "images", "vision_tokens")

    def _cached(self, kind: str, prefix: str, rows: str, tokens: str) -> Values:
        axes = f"{kind}[{rows},{self.text_heads},{tokens},{self.head_width}]"
        return {f"{prefix}_{name}_{layer}": axes for layer in range(self.text_layers) for name in ("key", "value")}
