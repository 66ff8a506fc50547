"""Test the reader of graphs against the onnx package, and that damaged or inconsistent graphs are refused."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporters.recipes import RECIPES
from runtimes.artifact.folder import open_artifact
from runtimes.engines.ort import graph_check
from runtimes.engines.ort.graph_check import check_graph, external_tensors, read_graph
from runtimes.engines.ort.operator_table import OPERATORS
from runtimes.errors import GraphRefusedError

ONNX_RECIPES = [recipe.name for recipe in RECIPES if recipe.runtime == "ort" and recipe.layout == "split"]
PATH = Path("graph.onnx")
WEIGHTS = [helper.make_attribute("value", numpy_helper.from_array(np.ones(4, np.float32)))]


def content(artifact, role):
    return (artifact / open_artifact(artifact).manifest.file_of(role)).read_bytes()


@pytest.fixture(scope="module")
def manifest(tiny_artifacts):
    return open_artifact(tiny_artifacts["onnx-int8"]).manifest


@pytest.fixture(scope="module")
def encoder(tiny_artifacts):
    return content(tiny_artifacts["onnx-int8"], "encoder")


@pytest.fixture
def model(encoder):
    """Return a copy that a test may modify."""
    return onnx.load_from_string(encoder)


def axes_of(value):
    return [dim.dim_param or str(dim.dim_value) for dim in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize("role", ["encoder", "decoder"])
@pytest.mark.parametrize("recipe", ONNX_RECIPES)
def test_it_reads_the_same_as_the_onnx_package(tiny_artifacts, recipe, role):
    data = content(tiny_artifacts[recipe], role)
    library, contents = onnx.load_from_string(data), read_graph(PATH, data)
    for values, expected in ((contents.spec.inputs, library.graph.input), (contents.spec.outputs, library.graph.output)):
        assert list(values) == [value.name for value in expected]
        assert [text.partition("[")[2][:-1].split(",") for text in values.values()] == [axes_of(value) for value in expected]
        kinds = [helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name for value in expected]
        assert [text.partition("[")[0] for text in values.values()] == kinds
    counted = Counter((node.domain or "ai.onnx", node.op_type) for node in library.graph.node)
    assert {(domain, name): count for domain, names in contents.spec.operators.items() for name, count in names.items()} == counted
    assert contents.spec.opsets == {opset.domain or "ai.onnx": opset.version for opset in library.opset_import}
    weights = open_artifact(tiny_artifacts[recipe]).path_of(f"{role}-weights")
    entries = [{entry.key: entry.value for entry in tensor.external_data} for tensor in library.graph.initializer]
    expected = [
        (tensor.name, entry["location"], int(entry.get("offset", "0")), int(entry["length"]))
        for tensor, entry in zip(library.graph.initializer, entries, strict=True)
        if entry
    ]
    assert [tuple(tensor) for tensor in external_tensors(PATH, data)] == expected
    assert ends_of(contents) == {weights.name: weights.stat().st_size}


def ends_of(contents):
    """Return file → the end of its last tensor, in bytes."""
    return {file: max(each.offset + each.bytes for each in contents.external if each.file == file) for _, file, *_ in contents.external}


@pytest.mark.parametrize("recipe", ONNX_RECIPES)
def test_exported_graphs_pass(tiny_artifacts, recipe):
    artifact = open_artifact(tiny_artifacts[recipe])
    manifest = artifact.manifest
    assert set(manifest.graphs) == {"encoder", "decoder"}
    for role in manifest.graphs:
        name = manifest.file_of(f"{role}-weights")
        check_graph(PATH, content(artifact.path, role), role, manifest, {name: manifest.files[name].bytes})
        with pytest.raises(GraphRefusedError, match=f"'{name}'"):
            check_graph(PATH, content(artifact.path, role), role, manifest)


def test_the_table_has_no_operator_with_subgraphs_or_custom_code():
    assert {"If", "Loop", "Scan", "SequenceMap", "PyOp", "ATen"} & {name for names in OPERATORS.values() for name in names.split()} == set()


def spoil_operator(model):
    model.graph.node[3].op_type = "If"


def spoil_domain(model):
    model.graph.node[3].domain = "evil"


def spoil_count(model):
    model.graph.node.append(helper.make_node("Identity", ["pixels"], ["unused"]))


def spoil_arity(model):
    del next(node for node in model.graph.node if node.op_type == "MultiHeadAttention").input[2:]


def spoil_missing(model):
    next(node for node in model.graph.node if node.op_type == "MultiHeadAttention").input[1] = ""


def spoil_subgraph(model):
    inner = helper.make_graph([], "inner", [], [])
    model.graph.node[3].attribute.append(helper.make_attribute("body", inner))


def spoil_subgraphs(model):
    model.graph.node[3].attribute.append(helper.make_attribute("body", [helper.make_graph([], "inner", [], [])]))


def spoil_function(model):
    model.functions.append(helper.make_function("evil", "f", [], [], [], []))


def spoil_sparse(model):
    values = helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, helper.make_tensor("i", TensorProto.INT64, [1], [0]), [9]))


def spoil_training(model):
    model.training_info.add()


def spoil_tensors_attribute(model):
    model.graph.node[3].attribute.append(helper.make_attribute("many", [helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0])]))


def spoil_external(model):
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "../../etc/passwd", "offset": "0", "length": str(len(tensor.raw_data))}.items():
        tensor.external_data.add(key=key, value=value)
    tensor.ClearField("raw_data")


def spoil_external_key(model):
    spoil_external(model)
    model.graph.initializer[0].external_data.add(key="checksum", value="x")


def spoil_external_length(model):
    spoil_external(model)
    model.graph.initializer[0].external_data[2].value = "3"


def spoil_external_offset(model):
    spoil_external(model)
    model.graph.initializer[0].external_data[1].value = "-1"


def spoil_external_twice(model):
    model.graph.initializer[0].external_data.add(key="location", value="x")


def spoil_external_attribute(model):
    node = helper.make_node("Constant", [], ["unused"])
    tensor = helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    node.attribute.append(helper.make_attribute("value", tensor))
    model.graph.node.append(node)


def spoil_short(model):
    largest(model).raw_data = largest(model).raw_data[:-4]


def spoil_long(model):
    largest(model).raw_data += b"\0" * 4


def spoil_dims(model):
    largest(model).dims[0] += 1


def spoil_negative(model):
    largest(model).dims[0] = -1


def spoil_overflow(model):
    largest(model).dims[:] = [1 << 33, 1 << 33, 0]


def spoil_axes(model):
    largest(model).dims[:] = [1] * 9


def spoil_type(model):
    largest(model).data_type = TensorProto.DOUBLE


def spoil_strings(model):
    model.graph.initializer.append(helper.make_tensor("s", TensorProto.STRING, [1], [b"x"]))


def spoil_two_payloads(model):
    largest(model).int32_data.append(1)


def spoil_wrong_payload(model):
    model.graph.initializer.append(TensorProto(name="w", data_type=TensorProto.INT64, dims=[1], int32_data=[1]))


def spoil_input(model):
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16


def spoil_rank(model):
    model.graph.input[0].type.tensor_type.shape.dim.add(dim_value=1)


def spoil_size(model):
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 1 << 40


def spoil_comma(model):
    del model.graph.input[0].type.tensor_type.shape.dim[2:]
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "3,32,32"


def spoil_no_rank(model):
    model.graph.input[0].type.tensor_type.ClearField("shape")


def spoil_sequence(model):
    model.graph.input[0].type.sequence_type.elem_type.tensor_type.elem_type = TensorProto.FLOAT


def spoil_more_inputs(model):
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))


def spoil_same_input(model):
    model.graph.input.append(model.graph.input[0])


def spoil_fewer_outputs(model):
    del model.graph.output[-1]


def spoil_opset(model):
    model.opset_import[0].version = 99


def spoil_more_opsets(model):
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))


def spoil_same_opset(model):
    model.opset_import.append(helper.make_opsetid("ai.onnx", 17))


def spoil_name(model):
    model.graph.node[3].op_type = "Add\n"


def spoil_long_name(model):
    model.graph.node[3].op_type = "A" * 5000


def spoil_no_operator(model):
    model.graph.node[3].ClearField("op_type")


def spoil_no_graph(model):
    model.ClearField("graph")


def largest(model):
    return max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))


SPOILERS = {name.removeprefix("spoil_"): spoil for name, spoil in list(globals().items()) if name.startswith("spoil_")}
MESSAGES = {
    "arity": "MultiHeadAttention has fewer than the 3 inputs that it needs",
    "missing": "MultiHeadAttention has fewer than the 3 inputs that it needs",
    "operator": "it computes If of ai.onnx, which is not in operator table 2",
    "domain": "of evil, which is not in operator table 2",
    "count": "its operators are not those that the manifest declares",
    "subgraphs": "field 11 of the attribute is not one that this toolkit writes",
    "function": "field 25 of the model is not one that this toolkit writes",
    "external": "its tensors are in the file '../../etc/passwd', which the manifest does not declare",
    "short": "instead of",
    "opset": "its opsets are not those that the manifest declares",
    "input": "its inputs are not those",
    "no_graph": "it contains no graph",
    "long_name": "a name has 5000 bytes",
}


@pytest.mark.parametrize("name", SPOILERS)
def test_graphs_that_no_exporter_writes_are_refused(manifest, model, name):
    SPOILERS[name](model)
    with pytest.raises(GraphRefusedError) as caught:
        check_graph(PATH, model.SerializeToString(), "encoder", manifest)
    message = str(caught.value)
    assert message.startswith("graph.onnx: refused before it is run: ")
    assert message.endswith(". Export the artifact again with this toolkit.")
    assert message.isprintable()
    assert MESSAGES.get(name, "") in message


@pytest.mark.parametrize("name", ["input", "rank", "size", "more_inputs", "fewer_outputs", "comma"])
def test_a_manifest_cannot_allow_inputs_or_outputs_of_another_shape(manifest, model, name):
    """The shapes must also be those of the model's sizes."""
    SPOILERS[name](model)
    data = model.SerializeToString()
    declared = {**manifest.graphs, "encoder": read_graph(PATH, data).spec}
    with pytest.raises(GraphRefusedError, match="encoder"):
        check_graph(PATH, data, "encoder", replace(manifest, graphs=declared))


def test_a_manifest_cannot_allow_an_operator(manifest, model):
    spoil_operator(model)
    data = model.SerializeToString()
    declared = {**manifest.graphs, "encoder": read_graph(PATH, data).spec}
    with pytest.raises(GraphRefusedError, match=r"\bIf\b"):
        check_graph(PATH, data, "encoder", replace(manifest, graphs=declared))


def test_a_graph_that_the_manifest_does_not_declare_is_refused(manifest, encoder):
    with pytest.raises(GraphRefusedError, match="manifest"):
        check_graph(PATH, encoder, "encoder", replace(manifest, graphs={}))


def test_external_tensors_must_be_within_a_declared_file(manifest, model):
    spoil_external(model)
    tensor = model.graph.initializer[0]
    tensor.external_data[0].value, tensor.external_data[1].value = "weights.bin", "4096"
    data, end = model.SerializeToString(), 4096 + int(tensor.external_data[2].value)
    name = manifest.file_of("encoder-weights")
    size = manifest.files[name].bytes
    assert ends_of(read_graph(PATH, data)) == {"weights.bin": end, name: size}
    check_graph(PATH, data, "encoder", manifest, {"weights.bin": end, name: size})
    with pytest.raises(GraphRefusedError, match=rf"byte {end} of weights\.bin.* {end - 1}"):
        check_graph(PATH, data, "encoder", manifest, {"weights.bin": end - 1, name: size})
    with pytest.raises(GraphRefusedError, match="declare"):
        check_graph(PATH, data, "encoder", manifest, {"other.bin": end, name: size})


def test_repeated_singular_fields_are_refused(encoder):
    """Protobuf would merge a second graph into the first, and use the second of two operators."""
    second = onnx.ModelProto(graph=helper.make_graph([helper.make_node("Loop", [], [])], "g", [], [])).SerializeToString()
    with pytest.raises(GraphRefusedError, match="twice"):
        read_graph(PATH, encoder + second)
    assert onnx.load_from_string(encoder + second).graph.node[-1].op_type == "Loop"  # the onnx package merges them


@pytest.mark.parametrize(
    "tail", [b"\xff", b"\x3a", b"\x3a\xff\xff\xff\xff\x7f", b"\x80" * 11, b"\xff" * 9 + b"\x7f", b"\x3b", b"\x39\0\0\0\0\0\0\0\0", b"\0\0"]
)
def test_a_malformed_end_is_refused(encoder, tail):
    with pytest.raises(GraphRefusedError):
        read_graph(PATH, encoder + tail)


def test_every_truncation_is_refused_or_reads_less(encoder):
    whole = read_graph(PATH, encoder).spec
    for length in range(0, len(encoder), 97):
        try:
            assert read_graph(PATH, encoder[:length]).spec != whole
        except GraphRefusedError as error:
            assert str(error).isprintable()  # noqa: PT017 - a thousand `raises` are slow


def test_the_number_of_fields_is_limited(encoder, monkeypatch):
    monkeypatch.setattr(graph_check, "MAX_FIELDS", 100)
    with pytest.raises(GraphRefusedError, match="100"):
        read_graph(PATH, encoder)
