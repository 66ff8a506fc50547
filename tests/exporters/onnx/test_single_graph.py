"""Test the single graph: its operators, its size, and that its gate compares it with the split graphs."""

from dataclasses import replace

import onnx
import pytest

from exporters.checkpoint.checkpoint import open_checkpoint
from exporters.export import export
from exporters.gate.gate import evaluate_joined, findings_line
from exporters.recipe import Recipe
from exporters.recipes import find_recipe
from runtimes.artifact.folder import open_artifact
from runtimes.errors import GateError
from runtimes.loading import load
from tests.exporters.onnx.onnx_files import graph_of

SINGLE = find_recipe("onnx-int8-single")


@pytest.fixture(scope="module")
def single(tiny_artifacts):
    return open_artifact(tiny_artifacts["onnx-int8-single"])


@pytest.fixture(scope="module")
def split(tiny_artifacts):
    return open_artifact(tiny_artifacts["onnx-int8"])


def test_it_contains_the_operators_of_both_graphs_and_one_loop(single, split):
    (declared,) = single.manifest.graphs.values()
    for domain, operators in declared.operators.items():
        for name, count in operators.items():
            both = sum(graph.operators.get(domain, {}).get(name, 0) for graph in split.manifest.graphs.values())
            assert count >= both
            assert count == both or domain == "ai.onnx"
    assert declared.operators["ai.onnx"]["Loop"] == 1
    assert declared.opsets == split.manifest.graphs["decoder"].opsets
    assert single.manifest.applied == split.manifest.applied
    assert declared.inputs == {
        "pixels": "float32[images,3,32,32]", "prompt_ids": "int64[prompt]", "min_length": "int64[]", "max_length": "int64[]",
    }  # fmt: skip
    assert declared.outputs == {"token_ids": "int64[images,length]", "log_probabilities": "float32[images]"}


def test_a_graph_of_standard_operators_passes_the_onnx_checker(tiny_checkpoint, drawn_images, tmp_path):
    """The gate of an FP32 recipe also requires the token ids of transformers."""
    recipe = replace(find_recipe("onnx-fp32"), name="onnx-fp32-single", layout="single")
    (path,) = export(open_checkpoint(str(tiny_checkpoint)), [recipe], tmp_path, drawn_images[:8])
    artifact = open_artifact(path)
    onnx.checker.check_model(artifact.path_of("captioner"), full_check=True)
    assert set(artifact.manifest.graphs["captioner"].operators) == {"ai.onnx"}
    gate = artifact.manifest.gate
    assert (gate["passed"], gate["exact_captions"], gate["captions_as_split"]) == (True, 8, 8)
    assert {path.name for path in tmp_path.iterdir()} == {"tiny-onnx-fp32-single"}


def test_every_tensor_is_stored_once(single, split):
    roles = ("encoder-weights", "decoder-weights")
    assert 0 <= split.component_bytes[roles[0]] + split.component_bytes[roles[1]] - single.component_bytes["captioner-weights"] < 4096
    names = {tensor.name for tensor in graph_of(single.path, "captioner").initializer}
    for role in ("encoder", "decoder"):
        assert {f"{role}/{tensor.name}" for tensor in graph_of(split.path, role).initializer} <= names


def test_the_loop_has_no_tensors_of_its_own(single):
    (loop,) = (node for node in graph_of(single.path, "captioner").node if node.op_type == "Loop")
    (body,) = (attribute.g for attribute in loop.attribute)
    assert len(body.initializer) == 0


class TestGate:
    def test_its_captions_equal_those_of_the_split_graphs(self, single, split):
        gate, before = single.manifest.gate, split.manifest.gate
        assert gate == before | {"captions_as_split": 16, "captions": before["captions"]}
        assert findings_line(gate).endswith(" nat/token, no verdict (16 of 20 images); 16 of 16 equal the split graphs'")

    def test_captions_that_differ_from_the_split_graphs_fail_the_gate(self, tiny_artifacts, drawn_images):
        """A single graph with 7-bit encoder weights is compared with captions of 8-bit weights."""
        findings = open_artifact(tiny_artifacts["onnx-int8-full"]).manifest.gate
        of_7_bits = open_artifact(tiny_artifacts["onnx-int8"]).manifest.gate["captions"]
        different = sum(findings["captions"][image] != token_ids for image, token_ids in of_7_bits.items())
        assert 0 < different < 16
        captioner = load(tiny_artifacts["onnx-int8-single"], threads=1)
        problem = f"captions of {different} of 16 images differ between the single graph and the split ones (first: drawn-"
        with pytest.raises(GateError) as caught:
            evaluate_joined(captioner, SINGLE, drawn_images, findings | {"problem": None}, "fail")
        assert str(caught.value).startswith(f"onnx-int8-single: {problem}")
        report = evaluate_joined(captioner, SINGLE, drawn_images, findings | {"problem": None, "passed": True}, "write")
        assert (report["passed"], report["captions_as_split"], report["captions"]) == (False, 16 - different, of_7_bits)
        assert report["problem"].startswith(problem)


def test_only_onnx_runtime_has_a_single_graph():
    with pytest.raises(ValueError, match="single"):
        Recipe(name="m", runtime="torch", why="w", layout="single")
