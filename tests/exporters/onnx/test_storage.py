"""Test how graphs are stored: the contents of the file of weights, and that onnxruntime computes the same as before."""

import hashlib

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from exporters.onnx.storage import duplicate_lookup_names, externalize_weights, optimize, store, store_as_fp16
from exporters.recipe import Component
from runtimes.artifact.folder import open_artifact
from tests.exporters.onnx.onnx_files import initializers, one_product


def external_data(path):
    """Return tensor name → (file, offset, bytes) of the external tensors of a graph."""
    tensors = {}
    for tensor in onnx.load(path, load_external_data=False).graph.initializer:
        entry = {entry.key: entry.value for entry in tensor.external_data}
        if entry:
            tensors[tensor.name] = entry["location"], int(entry["offset"]), int(entry["length"])
    return tensors


def run(path, **inputs):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, inputs)


def test_a_table_with_a_product_and_a_lookup_has_two_names_and_is_stored_once(tmp_path):
    weight = np.random.default_rng(0).normal(size=(32, 40)).astype(np.float32)
    path = one_product(tmp_path / "decoder.onnx", weight, with_lookup=True)
    rows, ids = np.ones((2, 32), np.float32), np.array([7, 0])
    before = run(path, x=rows, ids=ids)
    files = store(path, Component())
    assert files == {"decoder": path, "decoder-weights": tmp_path / "decoder-weights.bin"}
    content = files["decoder-weights"].read_bytes()
    assert content == weight.tobytes()
    name = f"decoder-weights-{hashlib.sha256(content).hexdigest()[:8]}.bin"  # the file's name in an artifact
    assert external_data(path) == {"weight": (name, 0, weight.nbytes), "weight_looked_up": (name, 0, weight.nbytes)}
    files["decoder-weights"].rename(tmp_path / name)
    for after, expected in zip(run(path, x=rows, ids=ids), before, strict=True):
        np.testing.assert_array_equal(after, expected)


def test_small_tensors_stay_in_the_graph_and_others_are_aligned(tmp_path):
    tensors = {"small": np.arange(255, dtype=np.float32), "odd": np.arange(1025, dtype=np.int8), "large": np.arange(256, dtype=np.float32)}
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in tensors]
    outputs = [
        helper.make_tensor_value_info(f"{name}_out", onnx.helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for name, v in tensors.items()
    ]
    graph = helper.make_graph(nodes, "three", [], outputs, [numpy_helper.from_array(value, name) for name, value in tensors.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    externalize_weights(model.graph, tmp_path / "three-weights.bin")
    onnx.save(model, tmp_path / "three.onnx")
    (name,) = {file for file, _, _ in external_data(tmp_path / "three.onnx").values()}
    assert external_data(tmp_path / "three.onnx") == {"odd": (name, 0, 1025), "large": (name, 1088, 1024)}
    (tmp_path / "three-weights.bin").rename(tmp_path / name)
    assert [value.tolist() for value in run(tmp_path / "three.onnx")] == [value.tolist() for value in tensors.values()]


def test_scales_are_stored_as_fp16_only_if_that_is_exact(tmp_path):
    exact, rounded = np.full(1024, 0.375, np.float32), np.full(1024, 0.1, np.float32)
    few, floats, small = np.full(1023, 0.375, np.float32), np.full(1 << 14, 0.1, np.float32), np.full((1 << 14) - 1, 0.1, np.float32)
    tensors = {"a_scale": exact, "b_scale": rounded, "c_scale": few, "positions": floats, "bias": small}
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in tensors]
    outputs = [helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, v.shape) for name, v in tensors.items()]
    graph = helper.make_graph(nodes, "scales", [], outputs, [numpy_helper.from_array(value, name) for name, value in tensors.items()])
    path = tmp_path / "graph.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    store_as_fp16(path)
    assert {name: values.dtype for name, values in initializers(path).items()} == {
        "a_scale_half": np.float16, "b_scale": np.float32, "c_scale": np.float32, "positions_half": np.float16, "bias": np.float32,
    }  # fmt: skip
    values = dict(zip(tensors, run(path), strict=True))
    np.testing.assert_array_equal(values["a_scale"], exact)
    np.testing.assert_array_equal(values["positions"], floats.astype(np.float16).astype(np.float32))


def test_fusing_keeps_fp16_tensors_and_declares_only_the_operator_sets_that_are_used(tmp_path):
    weight = np.random.default_rng(1).normal(size=(128, 128)).astype(np.float32)
    path = one_product(tmp_path / "graph.onnx", weight)
    store_as_fp16(path)
    before = run(path, x=np.eye(128, dtype=np.float32))
    optimize(path)
    model = onnx.load(path)
    assert {name: values.dtype for name, values in initializers(path).items()} == {"weight_half": np.float16}
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]
    np.testing.assert_array_equal(run(path, x=np.eye(128, dtype=np.float32))[0], before[0])


def test_a_table_with_one_use_keeps_its_name(tmp_path):
    path = one_product(tmp_path / "graph.onnx", np.ones((4, 4), np.float32))
    graph = onnx.load(path).graph
    duplicate_lookup_names(graph)
    assert [tensor.name for tensor in graph.initializer] == ["weight"]


def test_graphs_of_an_artifact_refer_to_their_files_of_weights(tiny_artifacts):
    for recipe in ("onnx-fp32", "onnx-int8", "onnx-int4", "onnx-fp16"):
        artifact = open_artifact(tiny_artifacts[recipe])
        for role in ("encoder", "decoder"):
            weights = artifact.path_of(f"{role}-weights")
            extents = external_data(artifact.path_of(role)).values()
            assert {file for file, _, _ in extents} == {weights.name}
            assert max(offset + length for _, offset, length in extents) == weights.stat().st_size
