"""Files that equal their manifest and cannot work, found by `make fuzz`, raise a `ToolkitError` when they are loaded or run."""

import json

import onnx
import pytest
from onnx import numpy_helper

import runtimes
from runtimes.artifact.folder import open_artifact
from runtimes.errors import ArtifactCorruptError, EngineError
from tests.fuzz.forge import write


def forged(artifact, role, change, path):
    """Write a copy of an artifact with one file changed and a matching manifest."""
    manifest = open_artifact(artifact).manifest
    content = {name: (artifact / name).read_bytes() for name in manifest.files}
    name = manifest.file_of(role)
    content[name] = change(content[name])
    write(path, manifest, content)
    return path


def five_heads(data):
    """Reshape attention to five heads, with weights for four. The error occurs only in a run."""
    model = onnx.load_from_string(data)
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and "embeddings" not in node.name and numpy_helper.to_array(attribute.t).tolist() == [4]:
                attribute.t.raw_data = (5).to_bytes(8, "little")
    return model.SerializeToString()


def exchanged(data):
    """Exchange two tensors of different shapes."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    first = "text_decoder.bert.encoder.layer.1.crossattention.output.LayerNorm.bias"
    second = "vision_model.encoder.layers.0.self_attn.qkv.weight.scales"
    header[first], header[second] = header[second], header[first]
    text = json.dumps(header, separators=(",", ":")).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def test_a_graph_that_loads_and_cannot_run(tiny_artifacts, drawn_images, tmp_path):
    path = forged(tiny_artifacts["onnx-fp32"], "encoder", five_heads, tmp_path / "forged")
    captioner = runtimes.load(path, threads=1)
    for use in (
        lambda: captioner.caption([drawn_images[0].path]),
        lambda: captioner.score([drawn_images[0].path], captions=["a dog"]),
    ):
        with pytest.raises(EngineError, match=r"^tiny-onnx-fp32: "):
            use()


def test_exchanged_tensors(tiny_artifacts, tmp_path):
    path = forged(tiny_artifacts["pytorch-int8"], "weights", exchanged, tmp_path / "forged")
    with pytest.raises(ArtifactCorruptError, match=r"weights-.*: "):
        runtimes.load(path)
