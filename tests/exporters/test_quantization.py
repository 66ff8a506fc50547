"""What quantizing does to weights: exact integers worked out by hand or by torch.ao, and counts worked out from the architecture.

A BLIP layer has these products with constant weights. Vision: qkv, projection, two of the MLP. Decoder: query, key, value and output of
self-attention, query and output of cross-attention, two of the MLP; cross-attention's key and value belong to the encoder, which
computes them once per picture. The head adds its transform and the word table.
"""

import json
from collections import Counter
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.torch
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.ao.quantization import PerChannelMinMaxObserver

from exporters.base import export
from exporters.checkpoint import HEAD, TABLE, open_checkpoint
from exporters.onnx_dynamic import quantize
from exporters.recipes import RECIPES, Component, Recipe, find_recipe
from runtimes import document
from runtimes.artifact import open_artifact
from runtimes.errors import RecipeError, UnknownNameError
from runtimes.int8 import Int8Embedding, Int8Linear, quantize_rows, select_engine
from runtimes.loading import load

TINY_LAYERS = 2
"""Of the vision tower and of the decoder."""
ENCODER_PRODUCTS = 4 * TINY_LAYERS + 2 * TINY_LAYERS
DECODER_PRODUCTS = 8 * TINY_LAYERS + 2
ONNX_INT8 = ("onnx-int8", "onnx-int8-vnni", "onnx-int8-arm64")
ONNX = (*ONNX_INT8, "onnx-fp32", "onnx-fp16")

FLOAT32_EPSILON = 2.0**-23

pytestmark = pytest.mark.filterwarnings("ignore:.*quantized tensor creation functions:UserWarning")


def graph_of(artifact: Path, role: str) -> onnx.GraphProto:
    return onnx.load(open_artifact(artifact).verified(role)).graph


def tensors_of(artifact: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(open_artifact(artifact).verified("weights"))


class TestTorchRows:
    def test_integers_and_scales_of_a_hand_made_matrix(self):
        weight = torch.tensor(
            [
                [255.0, 1.0, 3.0, -5.0],  # scale 2: 127.5 is clipped, 0.5, 1.5 and -2.5 go to the even neighbour
                [127.5, -127.5, 63.75, 0.4],  # scale 1: -128 is used
                [0.0, 0.0, 0.0, 0.0],  # a zero row must not divide by zero
                [-0.00255, 0.001, 0.0, 0.00001],  # scale 0.00002: 0.001 is 50 of them
            ]
        )
        values, scales = quantize_rows(weight)
        assert values.tolist()[:3] == [[127, 0, 2, -2], [127, -128, 64, 0], [0, 0, 0, 0]]
        assert values.tolist()[3][1:3] == [50, 0]
        assert values.dtype == torch.int8
        assert scales[:3].tolist() == [2.0, 1.0, FLOAT32_EPSILON]
        assert scales[3].item() == pytest.approx(0.00002, rel=1e-6)

    def test_equals_the_per_channel_observer_of_torch_ao(self):
        """Scales are equal to the bit; an integer may be the other neighbour where a weight is half way between two.

        torch.ao multiplies by 1 / scale where we divide. That matters to -max|row|, which is -127.5 scales: half way by definition.
        """
        weight = torch.randn(512, 768, generator=torch.Generator().manual_seed(0))
        observer = PerChannelMinMaxObserver(dtype=torch.qint8, qscheme=torch.per_channel_symmetric, ch_axis=0)
        observer(weight)
        expected_scales, zeros = observer.calculate_qparams()
        expected = torch.quantize_per_channel(weight, expected_scales.double(), zeros, 0, torch.qint8).int_repr()
        values, scales = quantize_rows(weight)
        assert torch.equal(scales, expected_scales)
        different = values != expected
        exact = weight.double() / scales.double()[:, None]
        assert ((exact - exact.floor() - 0.5).abs()[different] < 2e-5).all()
        assert (values.int() - expected.int()).abs().max() <= 1
        assert different.sum() <= 512

    @pytest.mark.parametrize("bias", [True, False])
    def test_linear_equals_that_of_torch_ao_to_the_bit(self, bias):
        select_engine()
        random = torch.Generator().manual_seed(1)
        weight, offsets = torch.randn(96, 64, generator=random), torch.randn(96, generator=random) if bias else None
        values, scales = quantize_rows(weight)
        theirs = torch.ao.nn.quantized.dynamic.Linear(64, 96, bias_=bias)
        zeros = torch.zeros(96, dtype=torch.int64)
        theirs.set_weight_bias(torch._make_per_channel_quantized_tensor(values, scales.double(), zeros, 0), offsets)
        ours = Int8Linear(values, scales, offsets)
        for rows in (1, 7, 257):
            x = torch.randn(2, rows, 64, generator=random)
            assert torch.equal(ours(x), theirs(x))

    def test_embedding_gives_the_rows_of_the_table_times_their_scales(self):
        values = torch.tensor([[1, -2, 3], [127, -128, 0], [4, 5, 6]], dtype=torch.int8)
        embedding = Int8Embedding(values, torch.tensor([0.5, 2.0, 0.25]))
        found = embedding(torch.tensor([[1, 0], [2, 2]]))
        assert found.tolist() == [[[254.0, -256.0, 0.0], [0.5, -1.0, 1.5]], [[1.0, 1.25, 1.5], [1.0, 1.25, 1.5]]]


class TestTorchArtifact:
    def test_counts_are_those_of_the_architecture(self, tiny_artifacts):
        applied = open_artifact(tiny_artifacts["pytorch-int8"]).manifest.applied
        assert applied == {"encoder": {"Linear": ENCODER_PRODUCTS}, "decoder": {"Linear": DECODER_PRODUCTS, "Embedding": 1}}

    def test_every_matrix_is_int8_with_scales_and_nothing_else_is(self, tiny_artifacts, tiny_checkpoint):
        stored, weights = tensors_of(tiny_artifacts["pytorch-int8"]), open_checkpoint(str(tiny_checkpoint)).load_weights()
        int8 = {name for name, tensor in stored.items() if tensor.dtype == torch.int8}
        assert len(int8) == ENCODER_PRODUCTS + DECODER_PRODUCTS
        assert {name for name in stored if name.endswith(".scales")} == {f"{name}.scales" for name in int8}
        for name in int8:
            values, scales = quantize_rows(weights[name])
            assert torch.equal(stored[name], values)
            assert torch.equal(stored[f"{name}.scales"], scales)
        for name, tensor in stored.items():
            if name not in int8 and not name.endswith(".scales"):
                assert torch.equal(tensor, weights[name])

    @pytest.mark.parametrize("recipe", ["pytorch-fp32", "pytorch-int8", "pytorch-fp16"])
    def test_the_tied_table_is_stored_once(self, tiny_artifacts, recipe):
        stored = tensors_of(tiny_artifacts[recipe])
        assert TABLE in stored
        assert HEAD not in stored

    def test_fp16_halves_every_tensor(self, tiny_artifacts, tiny_checkpoint):
        weights = open_checkpoint(str(tiny_checkpoint)).load_weights()
        stored = tensors_of(tiny_artifacts["pytorch-fp16"])
        assert set(stored) == set(weights) - {HEAD}
        assert all(torch.equal(tensor, weights[name].half()) for name, tensor in stored.items())


def one_product(path: Path, weight: np.ndarray, *, with_lookup: bool = False) -> Path:
    """Write a graph y = x @ weight f[D,V]; `with_lookup` adds the columns of words, as the tied embedding reads them."""
    nodes = [helper.make_node("MatMul", ["x", "weight"], ["y"], name="/product")]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, weight.shape[0]])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    if with_lookup:
        nodes.insert(0, helper.make_node("Gather", ["weight", "ids"], ["columns"], name="/lookup", axis=1))
        inputs.append(helper.make_tensor_value_info("ids", TensorProto.INT64, [None]))
        outputs.append(helper.make_tensor_value_info("columns", TensorProto.FLOAT, None))
    graph = helper.make_graph(nodes, "product", inputs, outputs, [numpy_helper.from_array(weight, "weight")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def initializers(path: Path) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


class TestOnnxProduct:
    """Columns are channels: their largest magnitudes are 127, 64, 0 and 2.5."""

    WEIGHT = np.array([[127.0, -64.0, 0.0, 2.5], [-1.5, 32.0, 0.0, -1.0], [2.5, 16.0, 0.0, 0.0]], dtype=np.float32)

    def quantized(self, tmp_path: Path, component: Component, weight: np.ndarray = WEIGHT) -> dict[str, np.ndarray]:
        path = one_product(tmp_path / "graph.onnx", weight)
        quantize(path, component)
        return initializers(path)

    def test_8_bits_use_minus_127_to_127_per_column(self, tmp_path):
        stored = self.quantized(tmp_path, Component(weights="qint8", per_channel=True))
        expected = [[127, -127, 0, 127], [-2, 64, 0, -51], [2, 32, 0, 0]]  # -1.5 and 2.5 go to the even neighbour; 32 / (64/127) = 63.5
        assert stored["weight_quantized"].tolist() == expected
        np.testing.assert_array_equal(stored["weight_scale"][[0, 1, 3]], np.float32([1.0, 64 / 127, 2.5 / 127]))
        assert stored["weight_zero_point"].tolist() == [0, 0, 0, 0]
        assert "weight" not in stored

    def test_7_bits_use_minus_64_to_64_per_column(self, tmp_path):
        stored = self.quantized(tmp_path, Component(weights="qint8", per_channel=True, reduce_range=True))
        expected = [[64, -64, 0, 64], [-1, 32, 0, -26], [1, 16, 0, 0]]  # 127 / 64 a step: -1.5 is -0.76, 2.5 is 1.26; -1 / (2.5/64) = -25.6
        assert stored["weight_quantized"].tolist() == expected
        np.testing.assert_array_equal(stored["weight_scale"][[0, 1, 3]], np.float32([127 / 64, 1.0, 2.5 / 64]))
        assert stored["weight_zero_point"].tolist() == [0, 0, 0, 0]

    def test_per_tensor_has_one_scale(self, tmp_path):
        stored = self.quantized(tmp_path, Component(weights="qint8"))
        assert stored["weight_quantized"].tolist() == [[127, -64, 0, 2], [-2, 32, 0, -1], [2, 16, 0, 0]]
        assert stored["weight_scale"].item() == 1.0

    def test_unsigned_weights_have_a_zero_point(self, tmp_path):
        weight = np.array([[-5.0, 250.0], [0.0, 100.4]], dtype=np.float32)
        stored = self.quantized(tmp_path, Component(weights="quint8"), weight)
        assert stored["weight_quantized"].tolist() == [[0, 255], [5, 105]]
        assert (stored["weight_scale"].item(), stored["weight_zero_point"].item()) == (1.0, 5)

    def test_unsigned_7_bits_use_0_to_127(self, tmp_path):
        weight = np.array([[-27.0, 100.0], [0.0, 50.4]], dtype=np.float32)
        stored = self.quantized(tmp_path, Component(weights="quint8", reduce_range=True), weight)
        assert stored["weight_quantized"].tolist() == [[0, 127], [27, 77]]
        assert (stored["weight_scale"].item(), stored["weight_zero_point"].item()) == (1.0, 27)

    @pytest.mark.parametrize(
        "component",
        [
            Component(weights="qint8", per_channel=True),
            Component(weights="qint8", per_channel=True, reduce_range=True),
            Component(weights="qint8"),
            Component(weights="quint8"),
            Component(weights="quint8", per_channel=True),
        ],
        ids=str,
    )
    def test_lookup_gives_the_columns_that_the_product_multiplies_by(self, tmp_path, component):
        weight = np.random.default_rng(0).normal(size=(8, 12)).astype(np.float32)
        path = one_product(tmp_path / "graph.onnx", weight, with_lookup=True)
        quantize(path, component)
        stored = initializers(path)
        assert [name for name, values in stored.items() if values.size == weight.size] == ["weight_quantized"]
        integers = stored["weight_quantized"].astype(np.float32) - stored["weight_zero_point"].astype(np.float32)
        ids = np.array([11, 0, 3, 3])
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        x = np.zeros((1, 8), dtype=np.float32)
        (columns,) = session.run(["columns"], {"x": x, "ids": ids})
        np.testing.assert_allclose(columns, (integers * stored["weight_scale"])[:, ids], rtol=1e-6)
        np.testing.assert_allclose(columns, weight[:, ids], atol=np.abs(weight).max() / 60)

    def test_a_product_named_by_a_pattern_stays_as_it_is(self, tmp_path):
        stored = self.quantized(tmp_path, Component(weights="qint8", per_channel=True, keep_fp32=("/prod*",)))
        assert set(stored) == {"weight"}  # no product is left to quantize, which must not mean all of them
        np.testing.assert_array_equal(stored["weight"], self.WEIGHT)


class TestOnnxArtifact:
    @pytest.mark.parametrize("recipe", ONNX_INT8)
    def test_counts_are_those_of_the_architecture(self, tiny_artifacts, recipe):
        applied = open_artifact(tiny_artifacts[recipe]).manifest.applied
        assert applied == {"encoder": {"MatMul": ENCODER_PRODUCTS}, "decoder": {"MatMul": DECODER_PRODUCTS, "Embedding": 1}}

    @pytest.mark.parametrize("recipe", ["pytorch-fp32", "pytorch-fp16", "onnx-fp32", "onnx-fp16"])
    def test_a_float_recipe_says_that_nothing_was_quantized(self, tiny_artifacts, recipe):
        assert open_artifact(tiny_artifacts[recipe]).manifest.applied == {"encoder": {}, "decoder": {}}

    @pytest.mark.parametrize("recipe", ONNX_INT8)
    @pytest.mark.parametrize(
        ("role", "integer", "attentions", "convolutions"),
        [("encoder", ENCODER_PRODUCTS, TINY_LAYERS, 1), ("decoder", DECODER_PRODUCTS, 2 * TINY_LAYERS, 0)],
    )
    def test_products_of_activations_and_the_convolution_stay_float(self, tiny_artifacts, recipe, role, integer, attentions, convolutions):
        operators = Counter(node.op_type for node in graph_of(tiny_artifacts[recipe], role).node)
        assert operators["MatMulInteger"] == integer
        assert operators["MatMul"] == 2 * attentions  # query by key, probabilities by value
        assert (operators["Conv"], operators["ConvInteger"]) == (convolutions, 0)

    @pytest.mark.parametrize("recipe", ONNX)
    @pytest.mark.parametrize("role", ["encoder", "decoder"])
    def test_operators_are_those_of_the_onnx_standard(self, tiny_artifacts, recipe, role):
        model = onnx.load(open_artifact(tiny_artifacts[recipe]).verified(role))
        assert {node.domain for node in model.graph.node} == {""}
        onnx.checker.check_model(model, full_check=True)

    @pytest.mark.parametrize(("recipe", "most"), [("onnx-int8", 64), ("onnx-int8-vnni", 127), ("onnx-int8-arm64", 127)])
    def test_weights_fill_the_range_of_the_recipe_and_no_more(self, tiny_artifacts, recipe, most):
        for role, products in (("encoder", ENCODER_PRODUCTS), ("decoder", DECODER_PRODUCTS)):
            tensors = [numpy_helper.to_array(tensor) for tensor in graph_of(tiny_artifacts[recipe], role).initializer]
            matrices = [values for values in tensors if values.dtype == np.int8 and values.ndim == 2]
            assert len(matrices) == products
            assert {int(np.abs(values.astype(int)).max()) for values in matrices} == {most}

    @pytest.mark.parametrize("recipe", ONNX_INT8)
    def test_float_tensors_that_stay_equal_the_checkpoint(self, tiny_artifacts, tiny_checkpoint, recipe):
        weights = open_checkpoint(str(tiny_checkpoint)).load_weights()
        seen = set()
        for role in ("encoder", "decoder"):
            for tensor in graph_of(tiny_artifacts[recipe], role).initializer:
                name = tensor.name.removeprefix("model.")
                if name in weights:
                    np.testing.assert_array_equal(numpy_helper.to_array(tensor), weights[name].numpy())
                    seen.add(name)
        biases_and_norms = {name for name in weights if name.endswith((".bias", "orm.weight", "norm1.weight", "norm2.weight"))}
        assert biases_and_norms <= seen

    def test_int8_decoder_holds_the_word_table_once(self, mini_artifacts):
        artifact = open_artifact(mini_artifacts["onnx-int8"])
        shape = artifact.manifest.architecture
        tables = [
            tensor.data_type
            for role in ("encoder", "decoder")
            for tensor in graph_of(artifact.path, role).initializer
            if prod(tensor.dims) == shape.vocabulary * shape.text_width
        ]
        assert tables == [TensorProto.INT8]

    def test_fp32_graphs_hold_every_tensor_once(self, mini_artifacts):
        seen = Counter(
            (tuple(tensor.dims), numpy_helper.to_array(tensor).tobytes())
            for role in ("encoder", "decoder")
            for tensor in graph_of(mini_artifacts["onnx-fp32"], role).initializer
            if prod(tensor.dims) > 1000
        )
        assert [dims for (dims, _), count in seen.items() if count > 1] == []


class TestSize:
    def test_fp32_artifacts_are_as_large_as_their_unique_parameters(self, mini_artifacts, mini_checkpoint):
        parameters = sum(tensor.numel() for tensor in safetensors.torch.load_file(mini_checkpoint / "model.safetensors").values())
        for recipe in ("pytorch-fp32", "onnx-fp32"):
            assert 1.0 <= open_artifact(mini_artifacts[recipe]).total_bytes / (4 * parameters) < 1.01

    @pytest.mark.parametrize("recipe", ["pytorch-int8", "onnx-int8"])
    def test_int8_artifacts_of_the_shipped_model_are_near_a_quarter(self, mini_artifacts, mini_checkpoint, recipe):
        parameters = sum(tensor.numel() for tensor in safetensors.torch.load_file(mini_checkpoint / "model.safetensors").values())
        assert 0.25 < open_artifact(mini_artifacts[recipe]).total_bytes / (4 * parameters) < 0.28

    def test_manifest_states_the_size_of_every_file(self, tiny_artifacts):
        for path in tiny_artifacts.values():
            listed = {name: entry.bytes for name, entry in open_artifact(path).manifest.files.items()}
            on_disk = {file.name: file.stat().st_size for file in path.iterdir() if file.name != "manifest.json"}
            assert listed == on_disk


class TestKeepFp32:
    """Patterns of names that stay in float: of modules for torch, of nodes for ONNX Runtime."""

    def applied(self, tiny_checkpoint, drawn_pictures, output: Path, recipe: Recipe) -> dict[str, dict[str, int]]:
        (path,) = export(open_checkpoint(str(tiny_checkpoint)), [recipe], output, drawn_pictures[:2], gate="report")
        assert len(load(path, device="cpu").caption([drawn_pictures[0].path])[0].token_ids) > 1
        return open_artifact(path).manifest.applied

    def test_torch_keeps_modules(self, tiny_checkpoint, drawn_pictures, tmp_path):
        shipped = find_recipe("pytorch-int8")
        recipe = replace(
            shipped,
            encoder=replace(shipped.encoder, keep_fp32=("vision_model.*.mlp.*",)),
            decoder=replace(shipped.decoder, keep_fp32=("text_decoder.cls.*", "*.layer.1.attention.self.query")),
        )
        assert self.applied(tiny_checkpoint, drawn_pictures, tmp_path, recipe) == {
            "encoder": {"Linear": ENCODER_PRODUCTS - 2 * TINY_LAYERS},
            "decoder": {"Linear": DECODER_PRODUCTS - 3},  # head and its transform, one query; no INT8 table, so no INT8 embedding
        }

    def test_onnx_keeps_nodes(self, tiny_checkpoint, drawn_pictures, tmp_path):
        shipped = find_recipe("onnx-int8")
        recipe = replace(
            shipped,
            encoder=replace(shipped.encoder, keep_fp32=("/vision_model/*/mlp/*",)),
            decoder=replace(shipped.decoder, keep_fp32=("/layer.1/attention/query/*",)),
        )
        assert self.applied(tiny_checkpoint, drawn_pictures, tmp_path, recipe) == {
            "encoder": {"MatMul": ENCODER_PRODUCTS - 2 * TINY_LAYERS},
            "decoder": {"MatMul": DECODER_PRODUCTS - 1, "Embedding": 1},
        }

    @pytest.mark.parametrize(("runtime", "kind"), [("torch", "Linear"), ("ort", "MatMul")])
    def test_one_component_may_stay_in_float(self, tiny_checkpoint, drawn_pictures, tmp_path, runtime, kind):
        int8 = Component(weights="qint8", per_channel=True)
        recipe = Recipe(name="encoder-only", runtime=runtime, why="Only the encoder.", encoder=int8, drift_limit_nat=0.05)
        assert self.applied(tiny_checkpoint, drawn_pictures, tmp_path, recipe) == {"encoder": {kind: ENCODER_PRODUCTS}, "decoder": {}}


class TestRecipes:
    def test_recipe_names_are_unique_and_findable(self):
        assert [find_recipe(recipe.name) for recipe in RECIPES] == list(RECIPES)
        assert len({recipe.name for recipe in RECIPES}) == len(RECIPES)
        assert len({recipe.sha256 for recipe in RECIPES}) == len(RECIPES)

    @pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
    def test_a_file_of_its_fields_gives_the_same_recipe(self, tmp_path, recipe):
        file = tmp_path / "mine.json"
        file.write_text(json.dumps(document.to_json(recipe)))
        found = find_recipe(str(file))
        assert found == recipe
        assert found.sha256 == recipe.sha256

    def test_the_hash_changes_with_any_field(self):
        recipe = find_recipe("onnx-int8")
        others = [replace(recipe, drift_limit_nat=0.021), replace(recipe, decoder=replace(recipe.decoder, keep_fp32=("x",)))]
        assert len({one.sha256 for one in (recipe, *others)}) == 3

    def test_the_manifest_holds_the_recipe_and_its_hash(self, tiny_artifacts):
        for name, path in tiny_artifacts.items():
            recipe = find_recipe(name)
            assert open_artifact(path).manifest.recipe == {**document.to_json(recipe), "sha256": recipe.sha256}

    def test_unknown_name_lists_the_known_ones(self):
        with pytest.raises(UnknownNameError) as caught:
            find_recipe("onnx-int4")
        known = "onnx-fp16, onnx-fp32, onnx-int8, onnx-int8-arm64, onnx-int8-vnni, pytorch-fp16, pytorch-fp32, pytorch-int8"
        assert str(caught.value) == f"unknown recipe 'onnx-int4'; known: {known}"

    def test_unknown_key_is_named_with_the_known_ones(self, tmp_path):
        file = tmp_path / "mine.json"
        file.write_text(json.dumps({"name": "mine", "runtime": "ort", "why": "Why not.", "encoder": {"per_chanel": True}, "bits": 4}))
        with pytest.raises(RecipeError) as caught:
            find_recipe(str(file))
        message = str(caught.value)
        assert message.startswith(f"{file}: ")
        assert "unknown recipe field(s) bits; known: name, runtime, why, device, cpu_features, encoder, decoder, drift_limit_nat" in message
        known = "weights, per_channel, reduce_range, keep_fp32"
        assert f"unknown component field(s) encoder.per_chanel; known: {known}" in message

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            ("not json", "cannot read this recipe"),
            ("[]", "document: expected an object, got list"),
            ('{"runtime": "ort"}', "missing name, why"),
            ('{"name": "m", "why": "w", "runtime": "tflite"}', "runtime: 'tflite' is not one of 'ort', 'torch'"),
            ('{"name": "m", "why": "w", "runtime": "ort", "drift_limit_nat": "0.1"}', "drift_limit_nat: expected float, got str"),
            ('{"name": "m", "why": "w", "runtime": "ort", "encoder": {"weights": "int4"}}', "encoder.weights: 'int4' is not one of"),
        ],
    )
    def test_a_file_that_says_nonsense_is_refused_in_one_line(self, tmp_path, content, problem):
        file = tmp_path / "mine.json"
        file.write_text(content)
        with pytest.raises(RecipeError) as caught:
            find_recipe(str(file))
        assert problem in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_missing_file_is_refused(self, tmp_path):
        with pytest.raises(RecipeError, match="cannot read this recipe"):
            find_recipe(str(tmp_path / "none.json"))

    @pytest.mark.parametrize(
        ("fields", "problem"),
        [
            ({"runtime": "ort", "encoder": {"reduce_range": True}}, "reduce_range needs INT8 weights"),
            ({"runtime": "torch", "encoder": {"weights": "quint8", "per_channel": True}}, "full-range qint8 weights only"),
            ({"runtime": "torch", "decoder": {"weights": "qint8", "per_channel": True, "reduce_range": True}}, "full-range qint8"),
            ({"runtime": "torch", "encoder": {"weights": "qint8"}}, "the torch runtime quantizes per channel only"),
            ({"runtime": "ort", "encoder": {"weights": "fp16"}}, "fp16 is for both components or none"),
            ({"runtime": "ort", "encoder": {"weights": "qint8"}, "drift_limit_nat": None}, "needs drift_limit_nat"),
        ],
    )
    def test_combinations_that_no_exporter_can_make_are_refused(self, tmp_path, fields, problem):
        file = tmp_path / "mine.json"
        file.write_text(json.dumps({"name": "mine", "why": "Why not.", "drift_limit_nat": 0.1, **fields}))
        with pytest.raises(RecipeError) as caught:
            find_recipe(str(file))
        assert problem in str(caught.value)
