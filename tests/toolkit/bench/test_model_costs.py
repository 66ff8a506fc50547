"""Minimum work of a caption: the numbers of BLIP-base, computed by hand."""

from dataclasses import replace

import pytest

from runtimes.artifact.folder import open_artifact
from runtimes.families.blip import BlipSpec
from toolkit.bench.roofline.model_costs import (
    arithmetic_of,
    baseline_arithmetic,
    cross_products,
    cross_values,
    decoder_products,
    encoder_attention,
    encoder_products,
)

BASE = BlipSpec(
    image_px=384,
    patch_px=16,
    vision_width=768,
    vision_inner=3072,
    vision_layers=12,
    vision_heads=12,
    vision_activation="gelu",
    vision_norm_eps=1e-5,
    text_width=768,
    text_inner=3072,
    text_layers=12,
    text_heads=12,
    text_activation="gelu",
    text_norm_eps=1e-12,
    vocabulary=30524,
    max_positions=512,
)

LAYER = 7_077_888
"""Weights of a layer of the encoder or decoder: 4 x 768 x 768 of attention and 2 x 768 x 3072 of the MLP."""


def test_the_encoder_of_blip_base():
    assert encoder_products(BASE) == 12 * 577 * LAYER == 49_007_296_512
    assert encoder_attention(BASE) == 12 * 2 * 577**2 * 768 + 576 * 768 * 768 == 6_476_285_952
    assert (encoder_products(BASE) + encoder_attention(BASE)) / 1e9 == pytest.approx(55.5, abs=0.05)
    assert 2 * (encoder_products(BASE) + encoder_attention(BASE)) / 1e9 == pytest.approx(111, abs=0.1), "the known 111 GFLOP"
    assert cross_products(BASE) == 24 * 577 * 768 * 768 == 8_167_882_752


def test_the_decoder_of_blip_base():
    """A layer also has the query and output of cross-attention; cross keys and values are computed once per image."""
    weights = sum(inputs * outputs for inputs, outputs in decoder_products(BASE))
    assert weights == 12 * (LAYER + 2 * 768 * 768) + 768 * 768 + 30524 * 768 == 123_122_688
    assert 4 * cross_values(BASE) == 24 * 577 * 768 * 4 == 42_541_056


def manifest(path, weights, decoder=None):
    """Return an artifact's manifest with the sizes of BLIP-base and another recipe."""
    original = open_artifact(path).manifest
    component = {"weights": weights, "block_size": None}
    applied = {role: {} if weights == "fp32" else {"MatMul": 1} for role in ("encoder", "decoder")}
    recipe = {**original.recipe, "components": {"encoder": component, "decoder": decoder or component}}
    image = replace(original.image, height_px=BASE.image_px, width_px=BASE.image_px)
    return replace(original, model=BASE, image=image, recipe=recipe, applied=applied)


def test_work_of_recipes_with_the_sizes_of_blip_base(tiny_artifacts):
    path = tiny_artifacts["onnx-fp32"]
    floats = arithmetic_of(manifest(path, "fp32"))
    assert (floats.encode_float_macs, floats.encode_int8_macs) == (49_007_296_512 + 6_476_285_952 + 8_167_882_752, 0)
    assert (floats.token_weight_bytes, floats.token_cross_bytes) == (4 * 123_122_688, 42_541_056)

    outputs = 12 * (8 * 768 - 768 + 3072) + 768 + 30524  # Q, K, V, out, cross Q, cross out, MLP's two; the head's two
    per_channel = arithmetic_of(manifest(path, "qint8"))
    assert (per_channel.encode_float_macs, per_channel.encode_int8_macs) == (6_476_285_952, 49_007_296_512 + 8_167_882_752)
    assert per_channel.token_weight_bytes == 123_122_688 + 4 * outputs

    blocks = arithmetic_of(manifest(path, "qint8", {"weights": "qint4", "block_size": 128}))
    assert blocks.token_weight_bytes == 123_122_688 // 2 + 4 * 123_122_688 // 128
    assert blocks.token_cross_bytes == 42_541_056


def test_a_quantization_that_was_not_applied_counts_as_float(tiny_artifacts):
    bare = replace(manifest(tiny_artifacts["onnx-fp32"], "qint8"), applied={"encoder": {}, "decoder": {}})
    assert arithmetic_of(bare) == arithmetic_of(manifest(tiny_artifacts["onnx-fp32"], "fp32"))


def test_the_baseline_computes_cross_values_with_its_first_token():
    base = baseline_arithmetic(BASE)
    assert (base.encode_float_macs, base.encode_int8_macs) == (49_007_296_512 + 6_476_285_952, 0)
    assert base.token_weight_bytes + base.token_cross_bytes == 4 * 123_122_688 + 42_541_056


@pytest.mark.parametrize("recipe", ["onnx-int8", "pytorch-int8", "onnx-fp16"])
def test_shipped_recipes_are_understood(tiny_artifacts, recipe):
    """Bytes per weight of the tiny model: INT8 has 1 and its scales, FP16 has 2."""
    shape = open_artifact(tiny_artifacts[recipe]).manifest.model
    weights = sum(inputs * outputs for inputs, outputs in decoder_products(shape))
    work = arithmetic_of(open_artifact(tiny_artifacts[recipe]).manifest)
    assert 1 < work.token_weight_bytes / weights <= (2 if recipe == "onnx-fp16" else 1.2)
    assert (work.encode_int8_macs > 0) == (recipe != "onnx-fp16")
