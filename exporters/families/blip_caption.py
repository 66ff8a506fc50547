"""Family adapter of BLIP image captioning, transformers' `BlipForConditionalGeneration`."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import BlipConfig

from exporters.families.adapter import CheckpointConfig, FamilyAdapter
from exporters.families.architectures import OWN_PARTS
from exporters.families.blip_calibration import blip_folds, run_blip
from exporters.families.blip_forced import FORCED
from exporters.families.blip_graphs import blip_graphs
from exporters.families.blip_reference import HfCaptioner, run_reference
from exporters.families.blip_resolution import interpolate_positions, resized
from exporters.families.hf_text_model import pillow_processor, untied_model
from exporters.gate.gate import evaluate, evaluate_joined
from runtimes.artifact.manifest import TokenizerSpec
from runtimes.engines.pytorch.blip import Blip
from runtimes.engines.pytorch.layers import ACTIVATIONS
from runtimes.engines.pytorch.session import TorchSession
from runtimes.families.blip import BlipSpec
from runtimes.families.signature import SINGLE, SPLIT

((HEAD, TABLE),) = Blip.HEAD_TABLES.items()
POSITIONS = "vision_model.embeddings.position_embedding"
PATCHES = "vision_model.embeddings.patch_embedding.weight"
ALIASES: dict[str, str | None] = {
    "text_decoder.cls.predictions.decoder.bias": "text_decoder.cls.predictions.bias",
    "text_decoder.bert.embeddings.position_ids": None,
    "text_encoder.embeddings.position_ids": None,
    "vision_model.embeddings.position_ids": None,
}
"""Tensor name in some checkpoints → name of the same tensor in our module; None for buffers of 0, 1, 2, ..., which are not needed."""

ORIGINAL = (
    (r"visual_encoder\.cls_token", "vision_model.embeddings.class_embedding"),
    (r"visual_encoder\.pos_embed", "vision_model.embeddings.position_embedding"),
    (r"visual_encoder\.patch_embed\.proj\.", "vision_model.embeddings.patch_embedding."),
    (r"visual_encoder\.norm\.", "vision_model.post_layernorm."),
    (r"visual_encoder\.blocks\.(\d+)\.norm([12])\.", r"vision_model.encoder.layers.\1.layer_norm\2."),
    (r"visual_encoder\.blocks\.(\d+)\.attn\.qkv\.", r"vision_model.encoder.layers.\1.self_attn.qkv."),
    (r"visual_encoder\.blocks\.(\d+)\.attn\.proj\.", r"vision_model.encoder.layers.\1.self_attn.projection."),
    (r"visual_encoder\.blocks\.(\d+)\.mlp\.fc([12])\.", r"vision_model.encoder.layers.\1.mlp.fc\2."),
)
"""Start of a name in a file of BLIP's authors, whose vision encoder is timm's → start of the name in our module. Text names are equal."""


def read_config(config: Mapping[str, Any], spec: Callable[..., BlipSpec] = BlipSpec) -> CheckpointConfig:
    """See `FamilyAdapter.read_config`. `spec` makes the task's sizes."""
    parsed = BlipConfig.from_dict(config)
    vision, text = parsed.vision_config, parsed.text_config
    if (kind := getattr(text, "position_embedding_type", "absolute")) != "absolute":
        raise ValueError(f"text position embeddings are {kind!r}; only 'absolute' is supported")
    for activation in (vision.hidden_act, text.hidden_act):
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation {activation!r} is not supported; supported: {', '.join(ACTIVATIONS)}")
    for name in ("bos_token_id", "sep_token_id", "pad_token_id"):
        number = getattr(text, name)
        if type(number) is not int or not 0 <= number < text.vocab_size:
            raise ValueError(
                f"text_config.{name} is {number!r}, the vocabulary has the ids 0 to {text.vocab_size - 1} (vocab_size "
                f"{text.vocab_size}); write the id that the model was trained with"
            )
    model = spec(
        image_px=vision.image_size,
        patch_px=vision.patch_size,
        vision_width=vision.hidden_size,
        vision_inner=vision.intermediate_size,
        vision_layers=vision.num_hidden_layers,
        vision_heads=vision.num_attention_heads,
        vision_activation=vision.hidden_act,
        vision_norm_eps=vision.layer_norm_eps,
        text_width=text.hidden_size,
        text_inner=text.intermediate_size,
        text_layers=text.num_hidden_layers,
        text_heads=text.num_attention_heads,
        text_activation=text.hidden_act,
        text_norm_eps=text.layer_norm_eps,
        vocabulary=text.vocab_size,
        max_positions=text.max_position_embeddings,
    )
    return CheckpointConfig(
        model=model,
        tokenizer=TokenizerSpec(bos_id=text.bos_token_id, eos_id=text.sep_token_id, pad_id=text.pad_token_id),
    )


def named_weights(raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """See `FamilyAdapter.named_weights`."""
    weights: dict[str, Tensor] = {}
    for name, tensor in raw.items():
        target = ALIASES.get(name, _renamed(name))
        if target is None:
            continue
        plain = tensor.float() if tensor.is_floating_point() and tensor.itemsize > 1 else tensor  # FP8 and integers are refused later
        if target in weights and not torch.equal(weights[target], plain):
            raise ValueError(f"{name} and {target} differ, although they are one tensor of the model")
        weights[target] = plain
    for missing, present in ((HEAD, TABLE), (TABLE, HEAD)):  # of a tied model, a file may contain either
        if present in weights:
            weights.setdefault(missing, weights[present])
    if PATCHES in weights:
        weights[PATCHES] = weights[PATCHES].flatten(1)
    return weights


def saved_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """See `FamilyAdapter.saved_weights`. Checkpoints store the patch embedding f[D,3*P*P] as the kernel f[D,3,P,P] of a convolution."""
    kernel = weights[PATCHES]
    side = round((kernel.shape[1] / 3) ** 0.5)
    return {**weights, PATCHES: kernel.reshape(-1, 3, side, side)}


def _renamed(name: str) -> str:
    """Return the name in our module of a tensor that BLIP's authors named; other names as they are."""
    return next((re.sub(pattern, replacement, name) for pattern, replacement in ORIGINAL if re.match(pattern, name)), name)


def fitted_weights(weights: dict[str, Tensor], model: BlipSpec) -> dict[str, Tensor]:
    """See `FamilyAdapter.fitted_weights`."""
    return weights | {POSITIONS: interpolate_positions(weights[POSITIONS], model)}


def component_of(name: str) -> str:
    """See `FamilyAdapter.component_of`. Keys and values of cross-attention are computed once per image, so they belong to the encoder."""
    per_image = name.startswith("vision_model.") or ".crossattention.self.key" in name or ".crossattention.self.value" in name
    return "encoder" if per_image else "decoder"


def layer_of(name: str) -> str:
    """See `FamilyAdapter.layer_of`. Graphs join query, key and value of the decoder's self-attention into `qkv`."""
    return re.sub(r"\.attention\.self\.(query|key|value)$", ".attention.self.qkv", name)


BLIP_CAPTION = FamilyAdapter(
    family="blip",
    task="caption",
    contracts={"split": SPLIT, "single": SINGLE},
    components=("encoder", "decoder"),
    per_token=frozenset({"decoder"}),
    head_tables=Blip.HEAD_TABLES,
    own_parts=OWN_PARTS["caption"],
    read_config=read_config,
    image_processor=pillow_processor,
    scaled=resized,
    named_weights=named_weights,
    saved_weights=saved_weights,
    fitted_weights=fitted_weights,
    component_of=component_of,
    layer_of=layer_of,
    forced=FORCED,
    graphs=blip_graphs,
    untied_model=untied_model,
    folds=blip_folds,
    run=run_blip,
    torch_session=TorchSession,
    reference=partial(run_reference, HfCaptioner),
    evaluate=evaluate,
    evaluate_joined=evaluate_joined,
)
