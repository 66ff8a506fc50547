"""BLIP visual question answering: the captioner's sizes, and a question encoder of the decoder's sizes (Li et al. 2022)."""

from dataclasses import dataclass
from typing import ClassVar

from runtimes.families.blip import BlipSpec
from runtimes.families.signature import QUESTION, SPLIT, Signature


@dataclass(frozen=True, kw_only=True)
class BlipVqaSpec(BlipSpec):
    """Sizes of a BLIP model that answers questions. The question encoder has the sizes of the decoder."""

    TORCH_MODULE: ClassVar[str] = "runtimes.engines.pytorch.blip_vqa:BlipVqa"

    def signatures(self, contract: str, precision: str) -> dict[str, Signature]:
        """Return role → inputs and outputs of its graph; empty for an unknown contract.

        The decoder is the captioner's: its cross-attention attends to a question in place of an image.
        """
        if contract != QUESTION:
            return {}
        captioner = super().signatures(SPLIT, precision)
        pixels, cross = captioner["encoder"]
        image = {name.replace("cross_", "image_", 1): axes for name, axes in cross.items()}
        return {
            "encoder": (pixels, image),
            "question": ({"question_ids": "int64[rows,question]", **image}, cross),
            "decoder": captioner["decoder"],
        }
