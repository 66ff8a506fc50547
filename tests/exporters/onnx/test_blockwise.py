"""Test quantization of graphs in blocks: the results of ONNX Runtime's operators against NumPy."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import ImageOps

from exporters.calibration.activations import SHIPPED
from exporters.checkpoint.checkpoint import open_checkpoint
from exporters.families.blip_caption import TABLE
from exporters.onnx.blockwise import packed, quantize
from exporters.recipe import Component, Layer
from exporters.recipes import find_recipe
from runtimes.host.facts import read_host
from runtimes.images.reading import read_image
from runtimes.loading import load
from tests.exporters.onnx.onnx_files import graph_of, initializers, one_product
from tests.exporters.rounding.test_blocks import exact

WEIGHTS = {4: "qint4", 8: "qint8"}
INVARIANT = {4: 32, 8: 64}
"""Bits → largest block with which a product has the same bits for one row and for several. 4 bits: on x86 with AVX-512."""


def component(bits: int, block: int, **options: object) -> Component:
    return Component(weights=WEIGHTS[bits], block_size=block, **options)


def normal(inputs: int, outputs: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(inputs, outputs)).astype(np.float32)


def tied_table(path: Path, table: np.ndarray) -> Path:
    """Write a graph with y = x @ table f[D,V] and the embeddings rows f[R,T,D], which use the table as in exported graphs."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["columns"], "/Gather", axis=1),
        helper.make_node("Transpose", ["columns"], ["rows"], "/Transpose", perm=[1, 2, 0]),
        helper.make_node("MatMul", ["x", "table"], ["y"], "/head"),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, table.shape[0]]),
        helper.make_tensor_value_info("ids", TensorProto.INT64, [None, None]),
    ]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y", "rows")]
    graph = helper.make_graph(nodes, "tied", inputs, outputs, [numpy_helper.from_array(table, "table")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def run(path: Path, **inputs: np.ndarray) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, inputs)


def stored_matrix(path: Path, name: str, bits: int) -> np.ndarray:
    """Return the matrix f32[K,N] that codes and scales of a file represent."""
    stored = initializers(path)
    codes, scales = stored[f"{name}_quantized"], stored[f"{name}_scale"]
    if bits == 4:
        codes = np.stack([codes % 16, codes // 16], axis=-1).reshape(*codes.shape[:-1], -1)
    values = (codes.astype(np.float32) - np.float32(2 ** (bits - 1))) * scales[..., None]
    return values.reshape(len(values), -1).T


class TestPacked:
    def test_the_first_of_two_codes_is_in_the_low_half(self):
        codes = np.array([[[1, 2, 15, 0], [0, 15, 7, 8]]], dtype=np.uint8)
        assert packed(codes, 4).tolist() == [[[0x21, 0x0F], [0xF0, 0x87]]]
        assert packed(codes, 4).dtype == np.uint8

    def test_8_bit_codes_are_not_changed(self):
        codes = np.array([[[1, 255, 0, 128]]], dtype=np.uint8)
        assert packed(codes, 8).tolist() == codes.tolist()


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("rows", [1, 3, 20])
class TestProduct:
    """ONNX Runtime has other kernels for other numbers of rows. A step of one caption has one row."""

    @pytest.mark.parametrize("block", [16, 32, 64, 128, 256])
    def test_the_product_of_unit_rows_is_the_matrix(self, tmp_path, bits, rows, block):
        """8 bits represent a row with a single 1 exactly, and blocks represent this matrix exactly."""
        weight = exact(bits, 512, 40, block)
        path = one_product(tmp_path / "graph.onnx", weight)
        quantize(path, component(bits, block))
        indices = np.random.default_rng(rows).permutation(512)[:rows]
        (product,) = run(path, x=np.eye(512, dtype=np.float32)[indices])
        np.testing.assert_allclose(product, weight[indices], rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("block", [16, 32, 128])
    def test_the_product_is_that_of_the_stored_matrix_within_the_rounding_of_activations(self, tmp_path, bits, rows, block):
        """An 8-bit activation has an error of at most half a step. A step is 1/127 of the largest activation in its row and block."""
        path = one_product(tmp_path / "graph.onnx", normal(384, 40))
        quantize(path, component(bits, block))
        matrix, x = stored_matrix(path, "weight", bits), normal(rows, 384, seed=rows)
        (product,) = run(path, x=x)
        blocks = x.reshape(rows, -1, block)
        half_steps = np.broadcast_to(np.abs(blocks).max(-1, keepdims=True) / 254, blocks.shape).reshape(rows, 384)
        expected = x.astype(np.float64) @ matrix
        assert (np.abs(product - expected) <= half_steps @ np.abs(matrix) + 1e-4).all()
        alone = np.concatenate([run(path, x=row[None])[0] for row in x])
        if block <= INVARIANT[bits] and (bits == 8 or "avx512" in read_host().cpu_features):
            np.testing.assert_array_equal(alone, product)
        np.testing.assert_allclose(alone, product, atol=1e-3)  # with larger blocks, the order of summation depends on the number of rows
        assert np.sqrt(np.square(product - expected).mean()) < 0.01 * np.sqrt(np.square(expected).mean())


class TestBlockSize:
    @pytest.mark.parametrize(
        ("inputs", "requested", "block"), [(384, 256, 128), (96, 128, 32), (48, 32, 16), (48, 16, 16), (1536, 256, 256), (32, 256, 32)]
    )
    @pytest.mark.parametrize("bits", [4, 8])
    def test_the_block_is_the_largest_power_of_two_that_divides_the_inputs(self, tmp_path, bits, inputs, requested, block):
        path = one_product(tmp_path / "graph.onnx", exact(bits, inputs, 6, block))
        quantize(path, component(bits, requested))
        (node,) = onnx.load(path).graph.node
        attributes = {attribute.name: attribute.i for attribute in node.attribute}
        assert (node.op_type, node.domain) == ("MatMulNBits", "com.microsoft")
        assert attributes == {"K": inputs, "N": 6, "bits": bits, "block_size": block, "accuracy_level": 4}
        stored = initializers(path)
        assert {name: values.shape for name, values in stored.items()} == {
            "weight_quantized": (6, inputs // block, block * bits // 8),
            "weight_scale": (6, inputs // block),
        }

    @pytest.mark.parametrize("inputs", [24, 40, 15, 8])
    def test_with_blocks_below_16_the_product_stays_in_fp32(self, tmp_path, inputs):
        weight = normal(inputs, 6)
        path = one_product(tmp_path / "graph.onnx", weight)
        before = onnx.load(path)
        quantize(path, component(4, 32))
        assert onnx.load(path) == before  # no unused operator set was added
        x = normal(3, inputs, seed=1)
        np.testing.assert_allclose(run(path, x=x)[0], x @ weight, rtol=1e-5, atol=1e-5)

    def test_a_product_named_by_a_pattern_stays_in_fp32(self, tmp_path):
        path = one_product(tmp_path / "graph.onnx", normal(32, 6))
        before = onnx.load(path)
        quantize(path, component(8, 32, layers={"/prod*": Layer()}))
        assert onnx.load(path) == before


@pytest.mark.parametrize("bits", [4, 8])
class TestTiedTable:
    IDS = np.array([[11, 0, 3], [3, 39, 11]])

    def test_embedding_and_head_use_the_same_values(self, tmp_path, bits):
        path = tied_table(tmp_path / "graph.onnx", normal(96, 40))
        quantize(path, component(bits, 32))
        matrix = stored_matrix(path, "table", bits)
        y, rows = run(path, x=np.eye(96, dtype=np.float32)[:1], ids=self.IDS)
        np.testing.assert_array_equal(rows, matrix.T[self.IDS])
        np.testing.assert_allclose(y, matrix[:1], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(matrix, normal(96, 40), atol=np.abs(normal(96, 40)).max() / 2**bits * 2.01)

    def test_it_is_stored_once(self, tmp_path, bits):
        path = tied_table(tmp_path / "graph.onnx", exact(bits, 96, 40, 32))
        quantize(path, component(bits, 32))
        large = {name: values.shape for name, values in initializers(path).items() if values.size > 3}
        assert large == {"table_quantized": (40, 3, 32 * bits // 8), "table_scale": (40, 3)}
        np.testing.assert_array_equal(run(path, x=np.zeros((1, 96), np.float32), ids=self.IDS)[1], exact(bits, 96, 40, 32).T[self.IDS])

    def test_its_range_is_not_narrowed(self, tmp_path, bits):
        """A narrower range would make logits smaller. In other matrices, 4-bit blocks have narrower ranges (see `SHRINK`)."""
        weight = normal(96, 40)
        ends = np.take_along_axis(blocks := weight.T.reshape(40, 3, 32), np.abs(blocks).argmax(-1)[..., None], -1)[..., 0]
        full = -ends / 2 ** (bits - 1)
        tied, plain = tied_table(tmp_path / "tied.onnx", weight), one_product(tmp_path / "plain.onnx", weight)
        for path in (tied, plain):
            quantize(path, component(bits, 32))
        np.testing.assert_array_equal(initializers(tied)["table_scale"], full.astype(np.float16))
        narrowed = np.abs(initializers(plain)["weight_scale"]) < np.abs(full) * 0.999
        assert (narrowed.mean() > 0.5) == narrowed.any() == (bits == 4)


@pytest.mark.full
class TestShippedModel:
    def test_the_word_embeddings_of_the_4_bit_decoder_have_the_full_range(self, mini_artifacts, mini_checkpoint):
        weights = open_checkpoint(str(mini_checkpoint)).load_weights()
        stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph_of(mini_artifacts["onnx-int4"], "decoder").initializer}
        (name,) = [name for name in stored if name.endswith("table_scale_half")]
        blocks = weights[TABLE].numpy().reshape(len(weights[TABLE]), -1, 32)
        np.testing.assert_array_equal(np.abs(stored[name]), (np.abs(blocks).max(-1) / 8).astype(np.float16))

    @pytest.mark.parametrize("recipe", ["onnx-int8", "onnx-int4"])
    @pytest.mark.parametrize(("prompt", "num_beams"), [(None, 1), ("a picture of ", 3)])
    def test_fp32_gives_its_captions_nearly_the_same_probability_as_its_own(self, mini_artifacts, sample_images, recipe, prompt, num_beams):
        """Captions may differ if two tokens have nearly the same probability. The FP32 model scores the tokens that both generated.

        A caption that was cut at its greatest length has no end token. Greedy captions vary more than those of beams, so that the mean
        needs more images.
        """
        paths = [image.path for image in sample_images]
        images = list(map(read_image, paths if num_beams > 1 else [*paths, *SHIPPED]))
        if num_beams == 1:
            images += map(ImageOps.mirror, list(images))
        fp32, blocked = (load(mini_artifacts[name], device="cpu", threads=1) for name in ("onnx-fp32", recipe))
        nats = []
        for captioner in (fp32, blocked):
            captions = captioner.caption(images, prompt=prompt, num_beams=num_beams, batch_size=5)
            assert [caption.error for caption in captions] == [None] * len(images)
            assert all(caption.text.startswith((prompt or "").strip()) for caption in captions)
            scores = []
            for image, caption in zip(images, captions, strict=True):
                (log_probabilities,) = fp32.token_log_probabilities(image, captions=[caption.text])
                scores += [float(row[token]) for row, token in zip(log_probabilities, caption.token_ids[1:], strict=False)]
            nats.append(sum(scores) / sum(len(caption.token_ids) for caption in captions))
        assert nats[0] - nats[1] < find_recipe(recipe).drift_limit_nat
