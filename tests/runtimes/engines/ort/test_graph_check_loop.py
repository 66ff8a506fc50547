"""Test the check of a single graph: the same rules apply to the body of its loop, and any other subgraph is refused."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from runtimes.artifact.folder import open_artifact
from runtimes.engines.ort.graph_check import check_graph, read_graph
from runtimes.errors import GraphRefusedError

PATH = Path("graph.onnx")


@pytest.fixture(scope="module")
def artifact(tiny_artifacts):
    return open_artifact(tiny_artifacts["onnx-int8-single"])


@pytest.fixture(scope="module")
def content(artifact):
    return artifact.path_of("captioner").read_bytes()


@pytest.fixture
def model(content):
    """Return a copy that a test may modify."""
    return onnx.load_from_string(content)


def loop_of(model):
    (loop,) = (node for node in model.graph.node if node.op_type == "Loop")
    return loop


def body_of(model):
    (body,) = (attribute.g for attribute in loop_of(model).attribute)
    return body


def refusal(artifact, model, *, declared=True):
    """Return the reason for refusing a model; with `declared`, the manifest is changed to declare what the model contains."""
    data, manifest = model.SerializeToString(), artifact.manifest
    with pytest.raises(GraphRefusedError) as caught:  # noqa: PT012 - `read_graph` may raise, too
        if declared:
            manifest = replace(manifest, graphs={"captioner": read_graph(PATH, data).spec})
        check_graph(PATH, data, "captioner", manifest, {name: entry.bytes for name, entry in manifest.files.items()})
    return (
        str(caught.value)
        .removeprefix("graph.onnx: refused before it is run: ")
        .removesuffix(". Export the artifact again with this toolkit.")
    )


def test_the_body_is_read_with_the_graph(artifact, content):
    library, contents = onnx.load_from_string(content), read_graph(PATH, content)
    nodes = [*library.graph.node, *body_of(library).node]
    assert {(domain, name): count for domain, names in contents.spec.operators.items() for name, count in names.items()} == Counter(
        (node.domain or "ai.onnx", node.op_type) for node in nodes
    )
    weights = artifact.path_of("captioner-weights")
    assert {tensor.file for tensor in contents.external} == {weights.name}
    assert max(tensor.offset + tensor.bytes for tensor in contents.external) == weights.stat().st_size
    check_graph(PATH, content, "captioner", artifact.manifest, {weights.name: weights.stat().st_size})


def test_a_loop_belongs_to_a_single_graph_only(tiny_artifacts, model):
    split = open_artifact(tiny_artifacts["onnx-int8"])
    encoder = onnx.load(split.path_of("encoder"), load_external_data=False)
    encoder.graph.node.append(loop_of(model))
    data = encoder.SerializeToString()
    manifest = replace(split.manifest, graphs={"encoder": read_graph(PATH, data).spec})
    with pytest.raises(GraphRefusedError, match=r"\bLoop\b"):
        check_graph(PATH, data, "encoder", manifest)


def test_a_second_loop_is_refused(artifact, model):
    model.graph.node.append(loop_of(model))
    assert refusal(artifact, model) == "it has a second subgraph, or one within another"


def test_a_loop_within_the_loop_is_refused(artifact, model):
    body_of(model).node.append(loop_of(model))
    assert refusal(artifact, model) == "it has a second subgraph, or one within another"


def test_a_second_body_is_refused(artifact, model):
    loop_of(model).attribute.append(helper.make_attribute("more", body_of(model)))
    assert refusal(artifact, model) == "it has a second subgraph, or one within another"


def test_subgraphs_in_a_list_are_refused(artifact, model):
    loop_of(model).attribute.append(helper.make_attribute("more", [body_of(model)]))
    assert refusal(artifact, model) == "field 11 of the attribute is not one that this toolkit writes, or the file is damaged"


@pytest.mark.parametrize(("operator", "domain"), [("If", ""), ("Scan", ""), ("Loop", "com.microsoft")])
def test_another_operator_with_a_body_is_refused(artifact, model, operator, domain):
    loop = loop_of(model)
    loop.op_type, loop.domain = operator, domain
    assert refusal(artifact, model) == f"a {operator} has a subgraph"


def test_a_loop_without_a_body_is_refused(artifact, model):
    del loop_of(model).attribute[:]
    assert refusal(artifact, model) == "a Loop has no body"


def test_operators_in_the_body_are_counted_and_checked(artifact, model):
    body_of(model).node.append(helper.make_node("Identity", ["ids"], ["unused"]))
    assert refusal(artifact, model, declared=False) == "its operators are not those that the manifest declares"
    body_of(model).node[-1].op_type = "PyOp"
    assert refusal(artifact, model) == "it computes PyOp of ai.onnx, which is not in operator table 2"


def test_tensors_of_the_body_are_checked(artifact, model):
    tensor = body_of(model).initializer.add()
    tensor.CopyFrom(helper.make_tensor("more", TensorProto.FLOAT, [2], [1.0, 2.0]))
    tensor.dims[0] = 3
    assert refusal(artifact, model) == "a tensor of float32[3] contains 8 instead of 12"
    tensor.CopyFrom(TensorProto(name="more", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL))
    for key, value in {"location": "../secret", "offset": "0", "length": "8"}.items():
        tensor.external_data.add(key=key, value=value)
    assert refusal(artifact, model) == "its tensors are in the file '../secret', which the manifest does not declare for it"


def test_the_interface_is_that_of_the_contract(artifact, model):
    model.graph.input[1].name = "words"
    assert refusal(artifact, model).startswith("as captioner of this model it has pixels, words, min_length, max_length instead of ")
