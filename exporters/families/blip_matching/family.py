"""Family adapter of BLIP image-text matching, transformers' `BlipForImageTextRetrieval`."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from transformers import BlipConfig

from exporters.families.adapter import CheckpointConfig
from exporters.families.architectures import OWN_PARTS
from exporters.families.blip_caption import BLIP_CAPTION, read_config
from exporters.families.blip_matching.calibration import calibration_inputs, matching_folds, run_matching
from exporters.families.blip_matching.graphs import matching_graphs
from exporters.families.blip_matching.reference import run_reference, transformers_matcher
from exporters.gate.matching import MatchingReference, evaluate
from runtimes.engines.pytorch.match_session import TorchMatchSession
from runtimes.families.blip_matching import BlipMatchingSpec
from runtimes.families.signature import MATCHING


def read_matching_config(config: Mapping[str, Any]) -> CheckpointConfig:
    """See `FamilyAdapter.read_config`."""
    return read_config(config, partial(BlipMatchingSpec, embedding_width=BlipConfig.from_dict(config).image_text_hidden_size))


def component_of(name: str) -> str:
    """See `FamilyAdapter.component_of`. Keys and values of cross-attention are computed once per image, so they belong to the encoder."""
    cross = ".crossattention.self.key" in name or ".crossattention.self.value" in name
    return "encoder" if cross or name.startswith(("vision_model.", "vision_proj")) else "text"


BLIP_MATCHING = replace(
    BLIP_CAPTION,
    task="matching",
    contracts={"split": MATCHING},
    components=("encoder", "text"),
    per_token=frozenset(),
    head_tables={},
    lookup_tables=("text_encoder.embeddings.word_embeddings.weight",),
    own_parts=OWN_PARTS["matching"],
    by_name_only=frozenset({"pytorch-int8"}),  # decision 58
    drafts=False,
    read_config=read_matching_config,
    component_of=component_of,
    forced=None,
    graphs=matching_graphs,
    untied_model=transformers_matcher,
    folds=matching_folds,
    run=run_matching,
    torch_session=TorchMatchSession,
    calibration_inputs=calibration_inputs,
    reference=run_reference,
    reference_class=MatchingReference,
    evaluate=evaluate,
)
