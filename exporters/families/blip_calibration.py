"""Calibration of BLIP: the layers whose channels can be scaled, and a run of the module as an engine runs it.

The decoder normalizes after the residual sum, so the output of a LayerNorm is also a residual: only the last one, which the head alone
reads, can be scaled. Activations behind GELU cannot be scaled in either component.
"""

from collections.abc import Collection

import torch
from torch import Tensor

from exporters.families.folding import Fold
from runtimes.artifact.manifest import TokenizerSpec
from runtimes.engines.pytorch.blip import Blip
from runtimes.families.blip import BlipSpec

VISION, TEXT, HEAD = "vision_model.encoder.layers", "text_decoder.bert.encoder.layer", "text_decoder.cls.predictions"
MAX_LENGTH = 20
"""Tokens per caption of `run_blip`, with the start token. Captions have about 11."""


def blip_folds(model: BlipSpec) -> tuple[Fold, ...]:
    """Return the folds of a model; see `FamilyAdapter.folds`."""
    folds = []
    for layer in (f"{VISION}.{index}" for index in range(model.vision_layers)):
        folds += [
            Fold(source=f"{layer}.layer_norm1", consumers=(f"{layer}.self_attn.qkv",)),
            # Of the outputs of qkv, the last third are values. Attention weights them per token, so channels stay apart.
            Fold(source=f"{layer}.self_attn.qkv", consumers=(f"{layer}.self_attn.projection",), first=2 * model.vision_width),
            Fold(source=f"{layer}.layer_norm2", consumers=(f"{layer}.mlp.fc1",)),
        ]
    layers = [f"{TEXT}.{index}" for index in range(model.text_layers)]
    readers = tuple(f"{layer}.crossattention.self.{kind}" for layer in layers for kind in ("key", "value"))
    folds.append(Fold(source="vision_model.post_layernorm", consumers=readers))
    for layer in layers:
        folds += [
            Fold(source=f"{layer}.{attention}.self.value", consumers=(f"{layer}.{attention}.output.dense",))
            for attention in ("attention", "crossattention")
        ]
    folds.append(Fold(source=f"{layers[-1]}.output.LayerNorm", consumers=(f"{HEAD}.transform.dense",)))
    if not model.tied:
        folds.append(Fold(source=f"{HEAD}.transform.LayerNorm", consumers=(f"{HEAD}.decoder",)))
    return tuple(folds)


def run_blip(model: Blip, pixels: Tensor, tokenizer: TokenizerSpec, components: Collection[str]) -> list[list[int]]:
    """Encode images and caption them greedily, one token per run; see `FamilyAdapter.run`.

    Args:
        model: With FP32 weights.
        pixels: f32[B,3,S,S].
        tokenizer: Special tokens.
        components: Without "decoder", images are only encoded.

    Returns:
        Token ids per image, without special tokens.
    """
    cross = model.encode(pixels)
    captions: list[list[int]] = [[] for _ in pixels]
    if "decoder" not in components:
        return captions
    running = torch.arange(len(pixels))
    ids = torch.full((len(pixels), 1), tokenizer.bos_id)
    past = [torch.zeros(len(pixels), model.shape.text_heads, 0, model.shape.head_width) for _ in cross]
    for _ in range(min(MAX_LENGTH, model.shape.max_positions) - 1):
        logits, past = model.decode(ids, torch.tensor([0]), past, cross)
        best = logits[:, 0].argmax(dim=-1)
        going_on = best != tokenizer.eos_id
        if not going_on.any():
            break
        running, ids = running[going_on], best[going_on, None]
        past, cross = ([tensor[going_on] for tensor in tensors] for tensors in (past, cross))
        for image, token in zip(running.tolist(), ids[:, 0].tolist(), strict=True):
            captions[image].append(token)
    return captions
