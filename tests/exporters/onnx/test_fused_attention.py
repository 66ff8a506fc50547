"""Test fused self-attention against the same attention in standard ONNX operators: one FP32 module, exported both ways."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from exporters.checkpoint.checkpoint import open_checkpoint
from exporters.families.blip_graphs import layer_names
from exporters.onnx.fused_attention import fuse_self_attention
from exporters.onnx.graphs import export_graph

WAYS = {"plain": (), "fused": ("encoder", "decoder")}

PROMPTS = [
    # images, rows per image, past tokens, new tokens, positions whose logits are returned
    (1, 1, 0, 1, [0]),
    (1, 1, 0, 4, [3]),
    (1, 1, 5, 1, [0]),
    (2, 3, 0, 4, [0, 1, 2, 3]),
    (2, 3, 5, 1, [0]),
    (2, 3, 7, 4, [1, 3]),
    (3, 1, 1, 2, [0, 1]),
]


class Exported:
    """Sessions of ONNX Runtime for the graphs of a checkpoint, exported both ways."""

    def __init__(self, checkpoint: Path, folder: Path) -> None:
        source = open_checkpoint(str(checkpoint))
        self.files, self.sessions = {}, {}
        for way, fused in WAYS.items():
            (folder / way).mkdir()
            model = source.load_model()
            self.shape = model.shape
            for graph in source.family.graphs(model):
                if graph.role in fused:
                    fuse_self_attention(graph.attention)
                role, file = graph.role, folder / way / f"{graph.role}.onnx"
                export_graph(graph, file)
                self.files[way, role] = file
                self.sessions[way, role] = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def run(self, way: str, role: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        session = self.sessions[way, role]
        return dict(zip([output.name for output in session.get_outputs()], session.run(None, inputs), strict=True))


@pytest.fixture(scope="module", params=["tiny_checkpoint", pytest.param("mini_checkpoint", marks=pytest.mark.full)])
def exported(request, tmp_path_factory) -> Exported:
    return Exported(request.getfixturevalue(request.param), tmp_path_factory.mktemp("graphs"))


def assert_same(fused: dict[str, np.ndarray], plain: dict[str, np.ndarray]) -> None:
    assert fused.keys() == plain.keys()
    for name, values in plain.items():
        assert fused[name].shape == values.shape
        np.testing.assert_allclose(fused[name], values, rtol=1e-5, atol=2e-5, err_msg=name)


def decoder_inputs(shape, images, rows, past, new, positions, seed=0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    inputs = {
        "token_ids": random.integers(0, shape.vocabulary, (images * rows, new)),
        "positions": np.array(positions),
    }
    heads, width = shape.text_heads, shape.head_width
    for name in layer_names("past", shape.text_layers):
        inputs[name] = random.normal(size=(images * rows, heads, past, width)).astype(np.float32)
    for name in layer_names("cross", shape.text_layers):
        inputs[name] = random.normal(size=(images, heads, shape.vision_tokens, width)).astype(np.float32)
    return inputs


def test_only_the_fused_graphs_have_the_operator(exported):
    shape = exported.shape
    for role, self_attentions, cross in (("encoder", shape.vision_layers, 0), ("decoder", shape.text_layers, shape.text_layers)):
        plain, fused = (Counter(node.op_type for node in onnx.load(exported.files[way, role]).graph.node) for way in ("plain", "fused"))
        assert (plain["MultiHeadAttention"], plain["Softmax"]) == (0, self_attentions + cross)
        assert (fused["MultiHeadAttention"], fused["Softmax"]) == (self_attentions, cross)


@pytest.mark.parametrize("images", [1, 3])
def test_encoders_agree(exported, images):
    side = exported.shape.image_px
    pixels = np.random.default_rng(images).normal(size=(images, 3, side, side)).astype(np.float32)
    assert_same(*(exported.run(way, "encoder", {"pixels": pixels}) for way in ("fused", "plain")))


@pytest.mark.parametrize("prompt", PROMPTS, ids=str)
def test_decoders_agree(exported, prompt):
    inputs = decoder_inputs(exported.shape, *prompt)
    fused, plain = (exported.run(way, "decoder", inputs) for way in ("fused", "plain"))
    assert_same(fused, plain)
    images, rows, past, new, positions = prompt
    assert fused["logits"].shape == (images * rows, len(positions), exported.shape.vocabulary)
    for name in layer_names("present", exported.shape.text_layers):
        assert fused[name].shape[2] == past + new
        np.testing.assert_array_equal(fused[name][:, :, :past], inputs[name.replace("present", "past")])


def test_later_tokens_do_not_change_earlier_logits(exported):
    """The fused operator has its own causal mask."""
    inputs = decoder_inputs(exported.shape, 2, 2, 3, 4, [0, 1, 2, 3])
    changed = {**inputs, "token_ids": inputs["token_ids"].copy()}
    changed["token_ids"][:, 3] = (changed["token_ids"][:, 3] + 1) % exported.shape.vocabulary
    before, after = (exported.run("fused", "decoder", feeds)["logits"] for feeds in (inputs, changed))
    np.testing.assert_allclose(after[:, :3], before[:, :3], rtol=1e-5, atol=2e-5)
    assert np.abs(after[:, 3] - before[:, 3]).max() > 1e-2


def test_tokens_one_by_one_give_the_same_as_all_at_once(exported):
    layers = exported.shape.text_layers
    together = decoder_inputs(exported.shape, 2, 3, 0, 4, [0, 1, 2, 3])
    expected = exported.run("plain", "decoder", together)
    state = dict(together)
    for number in range(4):
        state |= {"token_ids": together["token_ids"][:, number : number + 1], "positions": np.array([0])}
        outputs = exported.run("fused", "decoder", state)
        np.testing.assert_allclose(outputs["logits"][:, 0], expected["logits"][:, number], rtol=1e-5, atol=2e-5)
        state |= {past: outputs[present] for past, present in zip(layer_names("past", layers), layer_names("present", layers), strict=True)}
    assert_same(
        {name: outputs[name] for name in layer_names("present", layers)}, {name: expected[name] for name in layer_names("present", layers)}
    )
