"""Family adapter of BLIP visual question answering, transformers' `BlipForQuestionAnswering`.

It is the captioner's adapter with one more component, `question`: the question encoder, and the keys and values that the decoder computes
from its states. Their layers run once per question.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from exporters.families.adapter import CheckpointConfig, GraphExport
from exporters.families.architectures import OWN_PARTS
from exporters.families.blip_calibration import TEXT, decoder_folds, keys_and_values, run_decoder, value_folds, vision_folds
from exporters.families.blip_caption import BLIP_CAPTION, read_config
from exporters.families.blip_graphs import IMAGES, ROWS, decoder_graph, encoder_graph, key_value_examples, prepare
from exporters.families.blip_reference import HfAnswerer, run_reference
from exporters.families.folding import Fold
from exporters.families.hf_text_model import untied_model
from runtimes.artifact.manifest import TokenizerSpec
from runtimes.decoding.session import Inputs
from runtimes.decoding.tokenizer import CaptionTokenizer
from runtimes.engines.pytorch.blip_vqa import BlipVqa
from runtimes.engines.pytorch.question_session import TorchQuestionSession
from runtimes.families.blip import BlipSpec
from runtimes.families.blip_vqa import BlipVqaSpec
from runtimes.families.signature import QUESTION

QUESTION_ENCODER = "text_encoder.encoder.layer"
QUESTIONS = (
    "what is in the middle of the picture?",
    "what color is the largest thing in the picture?",
    "how many people are there in the picture?",
    "where was this picture taken, inside or outside?",
    "what is the person in the picture doing?",
    "is there an animal in the picture?",
)
"""Questions about calibration images, which have none of their own; image i has question i modulo their number. Each has at least as many
tokens as `exporters.calibration.activations.ROWS`."""


class QuestionGraph(nn.Module):
    """The graph from a question and an image's keys and values to keys and values of the decoder's cross-attention."""

    def __init__(self, model: BlipVqa) -> None:
        super().__init__()
        self.model = model

    def forward(self, question_ids: Tensor, *image: Tensor) -> tuple[Tensor, ...]:
        """question_ids i64[R,T], key and value f[B,H,N,Dh] per question layer → key and value f[R,H,T,Dh] per decoder layer."""
        return tuple(self.model.ask(question_ids, image))


def vqa_graphs(model: BlipVqa) -> list[GraphExport]:
    """Return encoder, question and decoder graph of an FP32 or FP16 module. The module is modified and cannot be used afterwards."""
    layers = prepare(model)
    image, example, image_axes = key_value_examples(model, "image", IMAGES, model.shape.vision_tokens)
    cross, _, cross_axes = key_value_examples(model, "cross", 1, 1)
    question = GraphExport(
        role="question",
        module=QuestionGraph(model),
        attention=model.text_encoder,
        example=(torch.zeros(ROWS, 3, dtype=torch.int64), *example),
        inputs=["question_ids", *image],
        outputs=cross,
        axes={"question_ids": {0: "rows", 1: "question"}, **image_axes, **cross_axes},
        layers=layers,
    )
    return [encoder_graph(model, layers, "image"), question, decoder_graph(model, layers)]


def read_vqa_config(config: Mapping[str, Any]) -> CheckpointConfig:
    """See `FamilyAdapter.read_config`."""
    parsed = read_config(config, BlipVqaSpec)
    model = parsed.model
    assert isinstance(model, BlipSpec)
    if model.vision_width != model.text_width:
        raise ValueError(
            f"vision width {model.vision_width} and text width {model.text_width} differ; transformers then gives the decoder keys of the "
            "vision width, and cannot run it on questions"
        )
    return parsed


def component_of(name: str) -> str:
    """See `FamilyAdapter.component_of`. Keys and values of cross-attention belong to the component that computes what they read."""
    cross = ".crossattention.self.key" in name or ".crossattention.self.value" in name
    if name.startswith("vision_model.") or (name.startswith("text_encoder.") and cross):
        return "encoder"
    return "question" if name.startswith("text_encoder.") or cross else "decoder"


def vqa_folds(model: BlipSpec) -> tuple[Fold, ...]:
    """Return the folds of a model; see `FamilyAdapter.folds`."""
    questions, answers = ([f"{prefix}.{index}" for index in range(model.text_layers)] for prefix in (QUESTION_ENCODER, TEXT))
    return (
        *vision_folds(model, questions),
        *value_folds(questions),
        Fold(source=f"{questions[-1]}.output.LayerNorm", consumers=keys_and_values(answers)),
        *decoder_folds(model),
    )


def run_vqa(model: BlipVqa, pixels: Tensor, tokenizer: TokenizerSpec, components: Collection[str], **inputs: Tensor) -> list[list[int]]:
    """Encode images, ask one question about each and answer it greedily; see `FamilyAdapter.run` and `run_decoder`."""
    image = model.encode(pixels)
    if not {"question", "decoder"} & set(components):
        return []
    cross = model.ask(inputs["question_ids"], image)
    return run_decoder(model, cross, tokenizer) if "decoder" in components else []


def calibration_inputs(tokenizer: CaptionTokenizer, index: int) -> Inputs:
    """See `FamilyAdapter.calibration_inputs`."""
    return {"question_ids": np.array([tokenizer.encoder_ids(QUESTIONS[index % len(QUESTIONS)])])}


BLIP_VQA = replace(
    BLIP_CAPTION,
    task="vqa",
    contracts={"split": QUESTION},
    components=("encoder", "question", "decoder"),
    lookup_tables=("text_encoder.embeddings.word_embeddings.weight",),
    own_parts=OWN_PARTS["vqa"],
    drafts=False,
    read_config=read_vqa_config,
    component_of=component_of,
    forced=None,
    graphs=vqa_graphs,
    untied_model=partial(untied_model, model=HfAnswerer.MODEL),
    folds=vqa_folds,
    run=run_vqa,
    torch_session=TorchQuestionSession,
    calibration_inputs=calibration_inputs,
    reference=partial(run_reference, HfAnswerer),
)
