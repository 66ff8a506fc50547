"""Test the size of artifacts: every tensor is stored once, in the number format of its recipe."""

from collections import Counter
from collections.abc import Mapping
from math import prod

import pytest
import safetensors.torch
import torch
from onnx import TensorProto, numpy_helper

from runtimes.artifact.folder import open_artifact
from tests.exporters.onnx.onnx_files import stored

BLOCKED = (("onnx-int8", 8), ("onnx-int4", 4), ("onnx-int8-full", 8))
CROSS = ("crossattention.self.key.", "crossattention.self.value.")
"""Parameters of the text decoder that belong to the component "encoder"."""


@pytest.fixture(scope="module")
def parameters(mini_checkpoint) -> Mapping[str, torch.Tensor]:
    """Return the tensors of the shipped model's file, which contains every parameter once."""
    return safetensors.torch.load_file(mini_checkpoint / "model.safetensors")


@pytest.fixture(scope="module")
def matrices(parameters) -> dict[str, torch.Tensor]:
    """Return the matrices of the decoder that are factors of a product."""
    return {
        name: tensor
        for name, tensor in parameters.items()
        if name.startswith("text_decoder.") and tensor.ndim == 2 and "position" not in name and not any(part in name for part in CROSS)
    }


@pytest.mark.full
class TestStoredOnce:
    @pytest.mark.parametrize(("recipe", "bits"), BLOCKED)
    def test_quantized_weights_of_the_decoder_are_as_many_as_those_of_its_matrices(self, mini_artifacts, matrices, recipe, bits):
        """Embedding and head share one table. If it were stored twice, the total would be a fifth larger."""
        codes = [tensor for tensor in stored(mini_artifacts[recipe], "decoder") if tensor.data_type == TensorProto.UINT8]
        assert sum(prod(tensor.dims) for tensor in codes) * 8 // bits == sum(tensor.numel() for tensor in matrices.values())
        layers = open_artifact(mini_artifacts[recipe]).manifest.model.text_layers
        assert len(codes) == 6 * layers + 2  # query, key and value are one matrix

    @pytest.mark.parametrize(("recipe", "bits"), BLOCKED)
    def test_the_word_table_is_there_once_and_not_in_float(self, mini_artifacts, recipe, bits):
        artifact = open_artifact(mini_artifacts[recipe])
        shape = artifact.manifest.model
        elements = shape.vocabulary * shape.text_width
        tables = [
            (tensor.data_type, prod(tensor.dims))
            for role in ("encoder", "decoder")
            for tensor in stored(artifact.path, role)
            if prod(tensor.dims) in (elements, elements // 2)
        ]
        assert tables == [(TensorProto.UINT8, elements * bits // 8)]

    @pytest.mark.parametrize("recipe", [recipe for recipe, _ in BLOCKED])
    def test_no_large_tensor_of_a_quantized_graph_is_in_fp32(self, mini_artifacts, recipe):
        large = {
            (role, tensor.name, tensor.data_type)
            for role in ("encoder", "decoder")
            for tensor in stored(mini_artifacts[recipe], role)
            if prod(tensor.dims) >= 1 << 14 and not tensor.name.endswith(("_scale", "_scale_half", "_quantized"))
        }
        assert large == {
            ("encoder", "model.vision_model.embeddings.position_embedding_half", TensorProto.FLOAT16),
            ("decoder", "model.text_decoder.bert.embeddings.position_embeddings.weight_half", TensorProto.FLOAT16),
        }

    def test_fp32_graphs_store_every_tensor_once(self, mini_artifacts):
        counts = Counter(
            (tuple(tensor.dims), numpy_helper.to_array(tensor).tobytes())
            for role in ("encoder", "decoder")
            for tensor in stored(mini_artifacts["onnx-fp32"], role)
            if prod(tensor.dims) > 1000
        )
        assert [dims for (dims, _), count in counts.items() if count > 1] == []


class TestSize:
    @pytest.mark.full
    def test_fp32_artifacts_are_as_large_as_their_unique_parameters(self, mini_artifacts, parameters):
        total = sum(tensor.numel() for tensor in parameters.values())
        for recipe in ("pytorch-fp32", "onnx-fp32"):
            assert 1.0 <= open_artifact(mini_artifacts[recipe]).total_bytes / (4 * total) < 1.01

    @pytest.mark.full
    @pytest.mark.parametrize("recipe", ["pytorch-int8", "onnx-int8"])
    def test_int8_artifacts_of_the_shipped_model_are_near_a_quarter(self, mini_artifacts, parameters, recipe):
        total = sum(tensor.numel() for tensor in parameters.values())
        assert 0.25 < open_artifact(mini_artifacts[recipe]).total_bytes / (4 * total) < 0.28

    @pytest.mark.full
    @pytest.mark.parametrize(("recipe", "bits"), BLOCKED)
    def test_a_decoder_in_blocks_is_as_large_as_its_codes_scales_and_floats(self, mini_artifacts, parameters, matrices, recipe, bits):
        artifact = open_artifact(mini_artifacts[recipe])
        size = sum(artifact.component_bytes[role] for role in ("decoder", "decoder-weights"))
        expected = 0
        for name, tensor in parameters.items():
            if name in matrices:
                expected += tensor.numel() * bits // 8 + tensor.numel() // (64 if bits == 8 else 32) * 2
            elif name.startswith("text_decoder.") and not any(part in name for part in CROSS):
                expected += tensor.numel() * (2 if "position" in name else 4)
        assert expected < size < expected + 60_000  # names and nodes of the graph

    def test_manifest_states_the_size_of_every_file(self, tiny_artifacts):
        for path in tiny_artifacts.values():
            in_manifest = {name: entry.bytes for name, entry in open_artifact(path).manifest.files.items()}
            on_disk = {file.name: file.stat().st_size for file in path.iterdir() if file.name != "manifest.json"}
            assert in_manifest == on_disk
