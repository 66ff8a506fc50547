"""Test INT8 products of ONNX graphs: exact integers of a hand-made matrix, and the range of an encoder's weights."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import numpy_helper

from exporters.onnx.optimum_int8 import quantize
from exporters.recipe import Component, Layer
from tests.exporters.onnx.onnx_files import ENCODER_PRODUCTS, graph_of, initializers, one_product


class TestOnnxProduct:
    """Columns are output channels, with the largest magnitudes 127, 64, 0 and 2.5."""

    WEIGHT = np.array([[127.0, -64.0, 0.0, 2.5], [-1.5, 32.0, 0.0, -1.0], [2.5, 16.0, 0.0, 0.0]], dtype=np.float32)

    def quantized(self, tmp_path: Path, component: Component, weight: np.ndarray = WEIGHT) -> dict[str, np.ndarray]:
        path = one_product(tmp_path / "graph.onnx", weight)
        quantize(path, component)
        return initializers(path)

    def test_8_bits_use_minus_127_to_127_per_column(self, tmp_path):
        stored = self.quantized(tmp_path, Component(weights="qint8", per_channel=True))
        expected = [[127, -127, 0, 127], [-2, 64, 0, -51], [2, 32, 0, 0]]  # -1.5 and 2.5 are rounded to even; 32 / (64/127) = 63.5
        assert stored["weight_quantized"].tolist() == expected
        np.testing.assert_array_equal(stored["weight_scale"][[0, 1, 3]], np.float32([1.0, 64 / 127, 2.5 / 127]))
        assert stored["weight_zero_point"].tolist() == [0, 0, 0, 0]
        assert "weight" not in stored

    def test_7_bits_use_minus_64_to_64_per_column(self, tmp_path):
        stored = self.quantized(tmp_path, Component(weights="qint8", per_channel=True, reduce_range=True))
        expected = [
            [64, -64, 0, 64],
            [-1, 32, 0, -26],
            [1, 16, 0, 0],
        ]  # the scale is 127 / 64: -1.5 is -0.76, 2.5 is 1.26; -1 / (2.5/64) = -25.6
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
    def test_lookup_and_product_use_the_same_columns(self, tmp_path, component):
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

    def test_a_product_that_matches_a_pattern_is_not_quantized(self, tmp_path):
        stored = self.quantized(tmp_path, Component(weights="qint8", per_channel=True, layers={"/prod*": Layer()}))
        assert set(stored) == {"weight"}  # an empty list of nodes does not mean all nodes
        np.testing.assert_array_equal(stored["weight"], self.WEIGHT)


@pytest.mark.parametrize(("recipe", "largest"), [("onnx-int8", 64), ("onnx-int4", 64), ("onnx-int8-full", 127)])
def test_weights_of_the_encoder_use_exactly_the_range_of_the_recipe(tiny_artifacts, recipe, largest):
    tensors = [numpy_helper.to_array(tensor) for tensor in graph_of(tiny_artifacts[recipe], "encoder").initializer]
    matrices = [values for values in tensors if values.dtype == np.int8 and values.ndim == 2]
    assert len(matrices) == ENCODER_PRODUCTS
    assert {int(np.abs(values.astype(int)).max()) for values in matrices} == {largest}
