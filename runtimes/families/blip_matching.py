"""BLIP image-text matching: the ViT encoder of `runtimes.families.blip` and a BERT encoder with cross-attention (Li et al. 2022)."""

from dataclasses import dataclass
from typing import ClassVar

from runtimes.families.blip import BlipSpec
from runtimes.families.signature import MATCHING, Signature


@dataclass(frozen=True, kw_only=True)
class BlipMatchingSpec(BlipSpec):
    """Sizes of a BLIP matcher, from its config.json. Fields of the text are those of its text encoder; `tied` has no effect."""

    TORCH_MODULE: ClassVar[str] = "runtimes.engines.pytorch.blip_matching:BlipMatching"

    embedding_width: int
    """E: width of the embeddings of images and texts."""

    def signatures(self, contract: str, precision: str) -> dict[str, Signature]:
        """Return role → inputs and outputs of its graph; empty for an unknown contract."""
        if contract != MATCHING:
            return {}
        kind = "float16" if precision == "fp16" else "float32"
        cross = self.cross_values(kind)
        return {
            "encoder": (self.pixels, {"image_embeddings": f"float32[images,{self.embedding_width}]", **cross}),
            "text": (
                {"token_ids": "int64[rows,tokens]", "with_image": "int64[]", **cross},
                {"text_embeddings": f"float32[rows,{self.embedding_width}]", "probabilities": "float32[rows]"},
            ),
        }
