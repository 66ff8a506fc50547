"""Test what a recipe keeps in float (nodes or modules that match a pattern, or a component), and unusual mixes of formats."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from onnx import numpy_helper

from exporters.checkpoint.checkpoint import open_checkpoint
from exporters.export import export
from exporters.families.blip_caption import TABLE
from exporters.recipes import Component, Recipe, find_recipe
from runtimes.artifact.folder import open_artifact
from runtimes.loading import load
from tests.exporters.onnx.onnx_files import ENCODER_PRODUCTS, ONNX_DECODER_PRODUCTS, TINY_LAYERS, TORCH_DECODER_PRODUCTS, graph_of, stored

pytestmark = pytest.mark.filterwarnings("ignore:.*quantized tensor creation functions:UserWarning")


class TestKeepFp32:
    """Patterns match names of modules for torch, and names of nodes for ONNX Runtime."""

    def applied(self, tiny_checkpoint, drawn_images, output: Path, recipe: Recipe) -> dict[str, dict[str, int]]:
        (path,) = export(open_checkpoint(str(tiny_checkpoint)), [recipe], output, drawn_images[:2], on_gate_failure="write")
        assert len(load(path, device="cpu").caption([drawn_images[0].path])[0].token_ids) > 1
        return open_artifact(path).manifest.applied

    def test_torch_keeps_modules(self, tiny_checkpoint, drawn_images, tmp_path):
        shipped = find_recipe("pytorch-int8")
        recipe = replace(
            shipped,
            components={
                "encoder": replace(shipped.component("encoder"), keep_fp32=("vision_model.*.mlp.*",)),
                "decoder": replace(shipped.component("decoder"), keep_fp32=("text_decoder.cls.*", "*.layer.1.attention.self.query")),
            },
        )
        assert self.applied(tiny_checkpoint, drawn_images, tmp_path, recipe) == {
            "encoder": {"Linear": ENCODER_PRODUCTS - 2 * TINY_LAYERS},
            "decoder": {"Linear": TORCH_DECODER_PRODUCTS - 3},  # without head, transform and one query; the embedding uses the head's table
        }

    def test_onnx_keeps_nodes(self, tiny_checkpoint, drawn_images, tmp_path):
        shipped = find_recipe("onnx-int8")
        recipe = replace(
            shipped,
            components={
                "encoder": replace(shipped.component("encoder"), keep_fp32=("/vision_model/*/mlp/*",)),
                "decoder": replace(shipped.component("decoder"), keep_fp32=("/layer.1/attention/self/qkv/*",)),
            },
        )
        assert self.applied(tiny_checkpoint, drawn_images, tmp_path, recipe) == {
            "encoder": {"MatMul": ENCODER_PRODUCTS - 2 * TINY_LAYERS},
            "decoder": {"MatMul": ONNX_DECODER_PRODUCTS - 1, "Embedding": 1},
        }

    @pytest.mark.parametrize("name", ["onnx-int8", "onnx-int4"])
    def test_onnx_keeps_the_head_and_therefore_the_embedding(self, tiny_checkpoint, drawn_images, tmp_path, name):
        shipped = find_recipe(name)
        recipe = replace(
            shipped,
            components={**shipped.components, "decoder": replace(shipped.component("decoder"), keep_fp32=("/predictions/decoder/MatMul",))},
        )
        assert self.applied(tiny_checkpoint, drawn_images, tmp_path, recipe) == {
            "encoder": {"MatMul": ENCODER_PRODUCTS},
            "decoder": {"MatMul": ONNX_DECODER_PRODUCTS - 1},
        }
        decoder_tensors = stored(tmp_path / f"tiny-{name}", "decoder")
        tables = [tensor for tensor in decoder_tensors if tensor.name.startswith("model.text_decoder.bert.embeddings.word_embeddings")]
        weights = open_checkpoint(str(tiny_checkpoint)).load_weights()
        assert [numpy_helper.to_array(tensor).tolist() for tensor in tables] == [weights[TABLE].T.tolist()]

    def test_blocks_in_the_encoder_and_channels_in_the_decoder(self, tiny_checkpoint, drawn_images, tmp_path):
        """The formats of the two components are exchanged, compared with the shipped recipe."""
        recipe = replace(
            find_recipe("onnx-int8"),
            components={
                "encoder": Component(weights="qint8", block_size=32),
                "decoder": Component(weights="qint8", per_channel=True, reduce_range=True),
            },
        )
        assert self.applied(tiny_checkpoint, drawn_images, tmp_path, recipe) == {
            "encoder": {"MatMul": ENCODER_PRODUCTS},
            "decoder": {"MatMul": ONNX_DECODER_PRODUCTS, "Embedding": 1},
        }
        for role, blocked, integer in (("encoder", ENCODER_PRODUCTS, 0), ("decoder", 0, ONNX_DECODER_PRODUCTS)):
            operators = Counter(node.op_type for node in graph_of(tmp_path / "tiny-onnx-int8", role).node)
            integers = sum(operators[kind] for kind in ("MatMulInteger", "DynamicQuantizeMatMul", "MatMulIntegerToFloat"))
            assert (operators["MatMulNBits"], integers) == (blocked, integer)

    @pytest.mark.parametrize(("runtime", "kind"), [("torch", "Linear"), ("ort", "MatMul")])
    def test_one_component_may_stay_in_float(self, tiny_checkpoint, drawn_images, tmp_path, runtime, kind):
        int8 = Component(weights="qint8", per_channel=True)
        recipe = Recipe(name="encoder-only", runtime=runtime, why="Only the encoder.", components={"encoder": int8}, drift_limit_nat=0.05)
        assert self.applied(tiny_checkpoint, drawn_images, tmp_path, recipe) == {"encoder": {kind: ENCODER_PRODUCTS}, "decoder": {}}
