"""Calibration of BLIP: the layers whose channels can be scaled, and a run of the module as an engine runs it.

The decoder normalizes after the residual sum, so the output of a LayerNorm is also a residual: only the last one, which the head alone
reads, can be scaled. Activations behind GELU cannot be scaled in either component.
"""

from collections.abc import Collection, Iterator, Sequence

import torch
from torch import Tensor

from exporters.families.folding import Fold
from runtimes.artifact.manifest import TokenizerSpec
from runtimes.engines.pytorch.blip import Blip
from runtimes.families.blip import BlipSpec

VISION, TEXT, HEAD = "vision_model.encoder.layers", "text_decoder.bert.encoder.layer", "text_decoder.cls.predictions"
MAX_LENGTH = 20
"""Tokens per text of `run_decoder`, with the start token. Captions have about 11."""


def blip_folds(model: BlipSpec) -> tuple[Fold, ...]:
    """Return the folds of a captioner; see `FamilyAdapter.folds`."""
    layers = [f"{TEXT}.{index}" for index in range(model.text_layers)]
    return (*vision_folds(model, layers), *decoder_folds(model))


def vision_folds(model: BlipSpec, readers: Sequence[str], others: Sequence[str] = ()) -> Iterator[Fold]:
    """Yield the folds of the vision encoder.

    Args:
        model: Sizes.
        readers: Text layers whose cross-attention reads the image states.
        others: Other linear layers that read them.
    """
    for layer in (f"{VISION}.{index}" for index in range(model.vision_layers)):
        yield Fold(source=f"{layer}.layer_norm1", consumers=(f"{layer}.self_attn.qkv",))
        # Of the outputs of qkv, the last third are values. Attention weights them per token, so channels stay apart.
        yield Fold(source=f"{layer}.self_attn.qkv", consumers=(f"{layer}.self_attn.projection",), first=2 * model.vision_width)
        yield Fold(source=f"{layer}.layer_norm2", consumers=(f"{layer}.mlp.fc1",))
    yield Fold(source="vision_model.post_layernorm", consumers=(*keys_and_values(readers), *others))


def decoder_folds(model: BlipSpec) -> Iterator[Fold]:
    """Yield the folds of the decoder and its head."""
    layers = [f"{TEXT}.{index}" for index in range(model.text_layers)]
    yield from value_folds(layers)
    yield Fold(source=f"{layers[-1]}.output.LayerNorm", consumers=(f"{HEAD}.transform.dense",))
    if not model.tied:
        yield Fold(source=f"{HEAD}.transform.LayerNorm", consumers=(f"{HEAD}.decoder",))


def value_folds(layers: Sequence[str]) -> Iterator[Fold]:
    """Yield the folds of the values of text layers."""
    for layer in layers:
        for attention in ("attention", "crossattention"):
            yield Fold(source=f"{layer}.{attention}.self.value", consumers=(f"{layer}.{attention}.output.dense",))


def keys_and_values(layers: Sequence[str]) -> tuple[str, ...]:
    """Return the projections of text layers that read what they attend to."""
    return tuple(f"{layer}.crossattention.self.{kind}" for layer in layers for kind in ("key", "value"))


def run_blip(model: Blip, pixels: Tensor, tokenizer: TokenizerSpec, components: Collection[str]) -> list[list[int]]:
    """Encode images and caption them greedily; see `FamilyAdapter.run`, and `run_decoder` for the result."""
    cross = model.encode(pixels)
    return run_decoder(model, cross, tokenizer) if "decoder" in components else []


def run_decoder(model: Blip, cross: Sequence[Tensor], tokenizer: TokenizerSpec) -> list[list[int]]:
    """Generate texts greedily, one token per run.

    Args:
        model: With FP32 weights.
        cross: Key and value f[B,H,N,Dh] per decoder layer.
        tokenizer: Special tokens.

    Returns:
        Token ids of each text, without special tokens.
    """
    count = len(cross[0])
    texts: list[list[int]] = [[] for _ in range(count)]
    running = torch.arange(count)
    ids = torch.full((count, 1), tokenizer.bos_id)
    past = [torch.zeros(count, model.shape.text_heads, 0, model.shape.head_width) for _ in cross]
    for _ in range(min(MAX_LENGTH, model.shape.max_positions) - 1):
        logits, past = model.decode(ids, torch.tensor([0]), past, cross)
        best = logits[:, 0].argmax(dim=-1)
        going_on = best != tokenizer.eos_id
        if not going_on.any():
            break
        running, ids = running[going_on], best[going_on, None]
        past, cross = ([tensor[going_on] for tensor in tensors] for tensors in (past, cross))
        for text, token in zip(running.tolist(), ids[:, 0].tolist(), strict=True):
            texts[text].append(token)
    return texts
