"""Count the minimum work of one caption: multiplications per image and bytes per token.

The counts follow from the model's sizes, so they hold for every runtime. They omit what adds less than 1 %: norms, activations, biases,
one row of the embedding, and the cache of self-attention. If a recipe keeps some products of a component in float, they are counted as
quantized; the minimum is then too low, but still a minimum.

Sizes: N vision tokens, D width (v vision, t text), I inner width, L layers, V vocabulary.
"""

from typing import Any

from runtimes.artifact.manifest import Manifest
from runtimes.families.blip import BlipSpec
from toolkit.records.record import Arithmetic

WEIGHT_BITS = {"fp32": 32, "fp16": 16, "qint8": 8, "quint8": 8, "qint4": 4}
"""Weight type of a recipe's component → bits per weight."""

SCALE_BYTES = 4
"""Scales are float32."""


def arithmetic_of(manifest: Manifest) -> Arithmetic | None:
    """Return the minimum work of an artifact; None if it is not a captioner, because only its work is counted."""
    if manifest.task != "caption":
        return None
    shape, float_bytes = blip_sizes(manifest), 2 if manifest.target.precision == "fp16" else 4
    encoder, decoder = (_component(manifest, name) for name in ("encoder", "decoder"))
    if float_bytes == 2:
        encoder = decoder = {"weights": "fp16"}
    products, attention = encoder_products(shape) + cross_products(shape), encoder_attention(shape)
    integers = WEIGHT_BITS[encoder["weights"]] < 16
    return Arithmetic(
        encode_float_macs=attention + (0 if integers else products),
        encode_int8_macs=products if integers else 0,
        token_weight_bytes=sum(_stored_bytes(inputs, outputs, decoder) for inputs, outputs in decoder_products(shape)),
        token_cross_bytes=cross_values(shape) * float_bytes,
    )


def baseline_arithmetic(shape: BlipSpec) -> Arithmetic:
    """Return the minimum work of transformers' FP32 `generate`, which computes cross keys and values with the first token."""
    return Arithmetic(
        encode_float_macs=encoder_attention(shape) + encoder_products(shape),
        encode_int8_macs=0,
        token_weight_bytes=sum(_stored_bytes(inputs, outputs, {"weights": "fp32"}) for inputs, outputs in decoder_products(shape)),
        token_cross_bytes=cross_values(shape) * 4,
    )


def _component(manifest: Manifest, name: str) -> dict[str, Any]:
    """Return a component's part of the recipe; FP32 if none of its operators was quantized."""
    components = manifest.recipe["components"]
    return components.get(name, components.get("*")) if manifest.applied.get(name) else {"weights": "fp32"}


def blip_sizes(manifest: Manifest) -> BlipSpec:
    """Return the model's sizes.

    Raises:
        AssertionError: The model is not a BLIP.
    """
    assert isinstance(manifest.model, BlipSpec)  # the counts below are BLIP's
    return manifest.model


def encoder_products(shape: BlipSpec) -> int:
    """Return the multiplications with weights in the vision tower: Lv N (4 Dv Dv + 2 Dv Iv)."""
    width = shape.vision_width
    return shape.vision_layers * shape.vision_tokens * (4 * width * width + 2 * width * shape.vision_inner)


def encoder_attention(shape: BlipSpec) -> int:
    """Return the multiplications that no recipe quantizes: attention 2 Lv N N Dv, and the patches (N - 1) 3 P P Dv."""
    tokens, width = shape.vision_tokens, shape.vision_width
    return 2 * shape.vision_layers * tokens * tokens * width + (tokens - 1) * 3 * shape.patch_px**2 * width


def cross_products(shape: BlipSpec) -> int:
    """Return the multiplications for cross keys and values of one image: 2 Lt N Dv Dt."""
    return 2 * shape.text_layers * shape.vision_tokens * shape.vision_width * shape.text_width


def cross_values(shape: BlipSpec) -> int:
    """Return how many numbers the cross keys and values of one image have: 2 Lt N Dt."""
    return 2 * shape.text_layers * shape.vision_tokens * shape.text_width


def decoder_products(shape: BlipSpec) -> list[tuple[int, int]]:
    """Return (inputs, outputs) of every weight matrix that one token is multiplied with, the head last."""
    width, inner = shape.text_width, shape.text_inner
    layer = [(width, width)] * 6 + [(width, inner), (inner, width)]  # Q, K, V, out; cross Q, out; the two of the MLP
    return layer * shape.text_layers + [(width, width), (width, shape.vocabulary)]


def _stored_bytes(inputs: int, outputs: int, component: dict[str, Any]) -> int:
    bits = WEIGHT_BITS[component["weights"]]
    scales = 0 if bits >= 16 else outputs * -(-inputs // (component.get("block_size") or inputs))
    return inputs * outputs * bits // 8 + scales * SCALE_BYTES
