"""Test the formats of single layers: their names, exceptions in recipes, and unusual mixes of formats."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper

from exporters.checkpoint.checkpoint import open_checkpoint
from exporters.export import export
from exporters.families.blip_caption import TABLE
from exporters.onnx.graphs import weight_products
from exporters.recipe import Component, Layer, Recipe
from exporters.recipes import find_recipe
from runtimes.artifact.folder import open_artifact
from runtimes.errors import RecipeError
from runtimes.loading import load
from tests.exporters.onnx.onnx_files import ENCODER_PRODUCTS, ONNX_DECODER_PRODUCTS, TINY_LAYERS, TORCH_DECODER_PRODUCTS, graph_of, stored

pytestmark = pytest.mark.filterwarnings("ignore:.*quantized tensor creation functions:UserWarning")


HEAD = "text_decoder.cls.predictions.decoder"
TINY_LAYER_NAMES = {
    "encoder": {"vision_model.embeddings.patch_embedding"}
    | {
        f"vision_model.encoder.layers.{i}.{name}"
        for i in range(TINY_LAYERS)
        for name in ("self_attn.qkv", "self_attn.projection", "mlp.fc1", "mlp.fc2")
    }
    | {f"text_decoder.bert.encoder.layer.{i}.crossattention.self.{name}" for i in range(TINY_LAYERS) for name in ("key", "value")},
    "decoder": {
        f"text_decoder.bert.encoder.layer.{i}.{name}"
        for i in range(TINY_LAYERS)
        for name in (
            "attention.self.qkv", "attention.output.dense", "crossattention.self.query", "crossattention.output.dense",
            "intermediate.dense", "output.dense",
        )
    }
    | {"text_decoder.cls.predictions.transform.dense", HEAD},
}  # fmt: skip


def with_layers(recipe: Recipe, layers: Mapping[str, Mapping[str, Layer]]) -> Recipe:
    """Return a recipe with exceptions: component → pattern → format."""
    return replace(
        recipe, components={**recipe.components, **{name: replace(recipe.component(name), layers=part) for name, part in layers.items()}}
    )


class TestNames:
    """Both engines and the checkpoint have the same layers."""

    def test_of_the_checkpoint(self, tiny_checkpoint):
        assert {part: set(names) for part, names in open_checkpoint(str(tiny_checkpoint)).layers().items()} == TINY_LAYER_NAMES

    @pytest.mark.parametrize("role", ["encoder", "decoder"])
    def test_of_products_in_graphs(self, tiny_artifacts, tiny_checkpoint, role):
        graph = graph_of(tiny_artifacts["onnx-fp32"], role)
        products = weight_products(graph)
        assert set(products) == TINY_LAYER_NAMES[role]
        weights = open_checkpoint(str(tiny_checkpoint)).load_weights()
        tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        for layer, tensor in products.items():
            parts = (
                [f"{layer.removesuffix('qkv')}{part}" for part in ("query", "key", "value")] if ".attention.self.qkv" in layer else [layer]
            )
            expected = np.concatenate([weights[f"{part}.weight"].numpy() for part in parts])
            np.testing.assert_array_equal(tensors[tensor], expected.T, err_msg=layer)

    def test_the_longest_pattern_that_matches_a_layer_applies(self):
        general, special = Layer(weights="fp16"), Layer(weights="qint8", block_size=32)
        component = Component(weights="qint8", per_channel=True, layers={"*.fc1": special, "*": general, "*.2.fc1": Layer()})
        assert [component.layer(name) for name in ("a.fc1", "a.fc2", "a.2.fc1")] == [special, general, Layer()]
        assert Component(weights="fp16").layer("a") == Layer(weights="fp16")

    def test_a_pattern_without_a_layer_is_refused_with_similar_names(self, tiny_checkpoint, drawn_images, tmp_path):
        recipe = with_layers(find_recipe("onnx-int8"), {"encoder": {"vision_model.encoder.layers.7.mlp.fc2": Layer()}})
        with pytest.raises(RecipeError) as caught:
            list(export(open_checkpoint(str(tiny_checkpoint)), [recipe], tmp_path / "out", drawn_images[:2]))
        assert "components.encoder.layers: no layer matches 'vision_model.encoder.layers.7.mlp.fc2'" in str(caught.value)
        assert "vision_model.encoder.layers.1.mlp.fc2" in str(caught.value)
        assert not (tmp_path / "out").exists()

    def test_a_layer_of_the_other_component_is_refused(self, tiny_checkpoint):
        layers = open_checkpoint(str(tiny_checkpoint)).layers()
        with_layers(find_recipe("pytorch-int8"), {"decoder": {HEAD: Layer()}}).check_layers(layers)
        with pytest.raises(RecipeError):
            with_layers(find_recipe("onnx-int8"), {"encoder": {HEAD: Layer()}}).check_layers(layers)


class TestFormats:
    """Exceptions of single layers, for both engines."""

    def applied(self, tiny_checkpoint, drawn_images, output: Path, recipe: Recipe) -> dict[str, dict[str, int]]:
        (path,) = export(open_checkpoint(str(tiny_checkpoint)), [recipe], output, drawn_images[:2], on_gate_failure="write")
        assert len(load(path, device="cpu").caption([drawn_images[0].path])[0].token_ids) > 1
        return open_artifact(path).manifest.applied

    def test_torch_keeps_modules(self, tiny_checkpoint, drawn_images, tmp_path):
        layers = {
            "encoder": {"vision_model.*.mlp.*": Layer()},
            "decoder": {"text_decoder.cls.*": Layer(), "*.layer.1.attention.self.qkv": Layer()},
        }
        recipe = with_layers(find_recipe("pytorch-int8"), layers)
        assert self.applied(tiny_checkpoint, drawn_images, tmp_path, recipe) == {
            "encoder": {"Linear": ENCODER_PRODUCTS - 2 * TINY_LAYERS},
            "decoder": {"Linear": TORCH_DECODER_PRODUCTS - 5},  # without head, its table, transform, and query, key and value of one layer
        }

    def test_onnx_mixes_formats_in_one_graph(self, tiny_checkpoint, drawn_images, tmp_path):
        """Of 12 encoder layers, 2 are in FP32, 2 in FP16, 2 in 8-bit blocks, 1 in 4-bit blocks and 1 with 8 bits per channel."""
        encoder = {
            "vision_model.encoder.layers.0.mlp.fc?": Layer(),
            "vision_model.encoder.layers.0.self_attn.*": Layer(weights="fp16"),
            "vision_model.encoder.layers.1.mlp.fc?": Layer(weights="qint8", block_size=32),
            "vision_model.encoder.layers.1.self_attn.qkv": Layer(weights="qint4", block_size=32),
            "vision_model.encoder.layers.1.self_attn.projection": Layer(weights="qint8", per_channel=True),
        }
        decoder = {"*.layer.0.*": Layer(weights="qint4", block_size=16), HEAD: Layer(weights="qint8", per_channel=True, reduce_range=True)}
        recipe = with_layers(find_recipe("onnx-int8"), {"encoder": encoder, "decoder": decoder})
        assert self.applied(tiny_checkpoint, drawn_images, tmp_path, recipe) == {
            "encoder": {"MatMul": ENCODER_PRODUCTS - 4},
            "decoder": {"MatMul": ONNX_DECODER_PRODUCTS, "Embedding": 1},
        }
        graphs = {role: graph_of(tmp_path / "tiny-onnx-int8", role) for role in ("encoder", "decoder")}
        operators = {role: Counter(node.op_type for node in graph.node) for role, graph in graphs.items()}
        assert operators["encoder"]["MatMulNBits"] == 3
        assert operators["decoder"]["MatMulNBits"] == ONNX_DECODER_PRODUCTS - 1
        weights = open_checkpoint(str(tiny_checkpoint)).load_weights()
        stored = [numpy_helper.to_array(tensor) for tensor in graphs["encoder"].initializer]
        for name, kind in (
            ("mlp.fc1", np.float32),
            ("mlp.fc2", np.float32),
            ("self_attn.qkv", np.float16),
            ("self_attn.projection", np.float16),
        ):
            expected = weights[f"vision_model.encoder.layers.0.{name}.weight"].numpy().T.astype(kind)
            assert sum(values.dtype == kind and np.array_equal(values, expected) for values in stored) == 1, name
        bits = Counter(
            attribute.i
            for graph in graphs.values()
            for node in graph.node
            if node.op_type == "MatMulNBits"
            for attribute in node.attribute
            if attribute.name == "bits"
        )
        assert bits == {4: 1 + 6, 8: 2 + 6 + 1}

    def test_one_layer_alone_may_be_quantized(self, tiny_checkpoint, drawn_images, tmp_path):
        layers = {
            "decoder": {HEAD: Layer(weights="qint4", block_size=32)},
            "encoder": {"*.layers.0.mlp.fc1": Layer(weights="qint8", per_channel=True)},
        }
        recipe = Recipe(
            name="two",
            runtime="ort",
            why="Two layers.",
            components={name: Component(layers=part) for name, part in layers.items()},
            drift_limit_nat=0.05,
        )
        assert (recipe.precision, recipe.target.full_range) == ("int4", True)
        assert self.applied(tiny_checkpoint, drawn_images, tmp_path, recipe) == {
            "encoder": {"MatMul": 1},
            "decoder": {"MatMul": 1, "Embedding": 1},
        }

    @pytest.mark.parametrize("name", ["onnx-int8", "onnx-int4"])
    def test_onnx_keeps_the_head_and_therefore_the_embedding(self, tiny_checkpoint, drawn_images, tmp_path, name):
        recipe = with_layers(find_recipe(name), {"decoder": {HEAD: Layer()}})
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
