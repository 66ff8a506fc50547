"""Calibration of a BLIP matcher: the layers whose channels can be scaled, and a run of the module as an engine runs it."""

from collections.abc import Collection

import numpy as np
from torch import Tensor

from exporters.families.blip_calibration import value_folds, vision_folds
from exporters.families.folding import Fold
from runtimes.artifact.manifest import TokenizerSpec
from runtimes.decoding.session import Inputs
from runtimes.decoding.tokenizer import CaptionTokenizer
from runtimes.engines.pytorch.blip_matching import BlipMatching
from runtimes.families.blip_matching import BlipMatchingSpec

TEXTS = (
    "a photo of an animal in the grass",
    "a man and a woman standing on a street",
    "a plate of food on a table",
    "a large building with a clock tower",
    "a group of people playing music on a stage",
    "a lot of flowers in a green field",
)
"""Texts for calibration images, which have none of their own; image i has text i modulo their number. Each has at least 8 tokens, the
number that `exporters.calibration.activations` keeps of a run."""


def matching_folds(model: BlipMatchingSpec) -> tuple[Fold, ...]:
    """Return the folds of a model; see `FamilyAdapter.folds`."""
    layers = [f"text_encoder.encoder.layer.{index}" for index in range(model.text_layers)]
    return (*vision_folds(model, layers, ("vision_proj",)), *value_folds(layers))


def run_matching(model: BlipMatching, pixels: Tensor, tokenizer: TokenizerSpec, components: Collection[str], **inputs: Tensor) -> None:
    """Encode images, and compare each with a text; see `FamilyAdapter.run`."""
    _, *cross = model.encode(pixels)
    if "text" in components:
        model.match(inputs["token_ids"], cross)


def calibration_inputs(tokenizer: CaptionTokenizer, index: int) -> Inputs:
    """See `FamilyAdapter.calibration_inputs`."""
    return {"token_ids": np.array([tokenizer.encoder_ids(TEXTS[index % len(TEXTS)])])}
