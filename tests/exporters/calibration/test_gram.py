"""Test Gram matrices: of an encoder layer against its inputs computed directly, of decoder layers against runs of single captions."""

import pytest
import torch

from exporters.calibration import gram
from exporters.checkpoint.checkpoint import open_checkpoint
from runtimes.engines.pytorch.session import TorchSession
from runtimes.images.reading import preprocess, read_image

ENCODER = "vision_model.encoder.layers.0.self_attn.qkv"
MODULES = {
    "text_decoder.bert.encoder.layer.1.attention.self.qkv": "text_decoder.bert.encoder.layer.1.attention.self.key",
    "text_decoder.bert.encoder.layer.1.output.dense": "text_decoder.bert.encoder.layer.1.output.dense",
    "text_decoder.cls.predictions.decoder": "text_decoder.cls.predictions.decoder",
}
"""Layer → a module with its inputs."""


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint):
    return open_checkpoint(str(tiny_checkpoint))


@pytest.fixture(scope="module")
def images(checkpoint):
    return [preprocess(read_image(path), checkpoint.image)[None] for path in gram.SHIPPED[:3]]


def test_matrices_are_those_of_the_inputs(checkpoint, images):
    matrices = gram.gram_matrices(checkpoint, {ENCODER, *MODULES}, 1, gram.SHIPPED[:3])
    assert set(matrices) == {ENCODER, *MODULES}
    model = checkpoint.load_model()
    session = TorchSession(model, device="cpu", threads=1, precision="fp32")
    captions = [gram._captions(session, session.encode({"pixels": pixels}), number, checkpoint) for number, pixels in enumerate(images)]
    assert {len(group) for group in captions} == {1 + gram.SAMPLES}
    assert len({len(caption) for group in captions for caption in group}) > 1  # so that some rows are padded
    inputs: dict[str, list[torch.Tensor]] = {layer: [] for layer in MODULES}
    for layer, module in MODULES.items():
        model.get_submodule(module).register_forward_pre_hook(lambda _, given, layer=layer: inputs[layer].append(given[0].flatten(0, 1)))
    layer = model.vision_model.encoder.layers[0]
    patches = []
    with torch.inference_mode():
        for pixels, group in zip(map(torch.from_numpy, images), captions, strict=True):
            patches.append(layer.layer_norm1(model.vision_model.embeddings(pixels))[0])
            states = checkpoint.family.forced.image_states(model, pixels)
            for caption in group:
                checkpoint.family.forced.forced_logits(model, states, torch.tensor([caption[:-1]]))
    for name, rows in ((ENCODER, patches), *inputs.items()):
        expected = torch.cat(rows).T @ torch.cat(rows)
        torch.testing.assert_close(matrices[name], expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_the_captions_begin_with_the_greedy_one_and_are_the_same_each_time(checkpoint, images):
    session = TorchSession(checkpoint.load_model(), device="cpu", threads=1, precision="fp32")
    first, second = (gram._captions(session, session.encode({"pixels": images[0]}), 0, checkpoint) for _ in range(2))
    assert first == second
    assert len(set(first)) > 4
