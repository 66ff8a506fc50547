"""Activations: their summaries equal those of the tensors that a plain run of the module gives its layers."""

from dataclasses import replace

import pytest
import torch

from exporters.calibration.activations import MAX_IMAGES, ROWS, SHIPPED, Calibration
from exporters.checkpoint.checkpoint import open_checkpoint
from runtimes.errors import DatasetError
from runtimes.images.reading import preprocess, read_image
from runtimes.loading import load

NORM, QKV = "vision_model.encoder.layers.1.layer_norm1", "vision_model.encoder.layers.1.self_attn.qkv"
TOKENS = "text_decoder.bert.encoder.layer.0.attention.self.value"


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint):
    return open_checkpoint(str(tiny_checkpoint))


@pytest.fixture(scope="module")
def images(drawn_images):
    return [image.path for image in drawn_images]


def test_summaries_of_an_encoder_layer(checkpoint, images):
    activations = Calibration(images).activations(checkpoint, {"encoder"})[NORM]
    model = checkpoint.load_model()
    inputs = []
    model.get_submodule(QKV).register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    with torch.inference_mode():
        for image in images:
            model.encode(torch.from_numpy(preprocess(read_image(image), checkpoint.image))[None])
    expected = torch.cat(inputs)  # f32[images,N,C]
    torch.testing.assert_close(activations.lowest, expected.amin(1))
    torch.testing.assert_close(activations.highest, expected.amax(1))
    torch.testing.assert_close(activations.maxima, expected.abs().amax((0, 1)))
    assert activations.rows.shape == (len(images), min(ROWS, expected.shape[1]), expected.shape[2])
    distances = torch.cdist(activations.rows, expected).amin(2)
    assert distances.max() < 1e-4, "each kept row is one of its image"


def test_a_run_of_the_decoder_is_one_token_of_the_module_s_own_caption(checkpoint, images, tiny_artifacts):
    activations = Calibration(images).activations(checkpoint, {"decoder"})
    captions = load(tiny_artifacts["pytorch-fp32"], device="cpu", threads=1).caption(images)
    assert len(activations[TOKENS].rows) == sum(len(caption.token_ids) - 1 for caption in captions)
    assert activations[TOKENS].rows.shape[1] == 1
    assert NORM not in activations


def test_the_module_s_own_captions_are_those_of_the_artifact(checkpoint, images, tiny_artifacts):
    pixels = torch.stack([torch.from_numpy(preprocess(read_image(image), checkpoint.image)) for image in images])
    with torch.inference_mode():
        captions = checkpoint.family.run(checkpoint.load_model(), pixels, checkpoint.tokenizer, checkpoint.family.components)
    expected = load(tiny_artifacts["pytorch-fp32"], device="cpu", threads=1).caption(images)
    end = checkpoint.tokenizer.eos_id
    assert captions == [list(caption.token_ids[1:-1] if caption.token_ids[-1] == end else caption.token_ids[1:]) for caption in expected]


def test_of_many_images_evenly_spaced_ones_are_used(images):
    many = [images[0].with_name(f"{number:03}.png") for number in range(MAX_IMAGES * 3)]
    assert Calibration(many).images == tuple(many[::3])
    assert Calibration(images).images == tuple(images)
    assert len(Calibration().images) == len(SHIPPED) <= MAX_IMAGES


def test_recorded_activations_are_kept_for_a_component_and_an_image_size(checkpoint, images):
    calibration = Calibration(images[:2])
    encoder = calibration.activations(checkpoint, {"encoder"})[NORM]
    both = calibration.activations(checkpoint, {"encoder", "decoder"})
    assert both[NORM] is encoder
    assert TOKENS in both
    smaller = checkpoint.with_image_scale(0.5)
    assert calibration.activations(smaller, {"encoder"})[NORM].rows.shape[1] == smaller.model.vision_tokens


def test_no_images_are_refused():
    with pytest.raises(DatasetError, match="has no images"):
        Calibration([])


def test_an_unreadable_image_is_named(checkpoint, images, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"broken\.jpg") as caught:
        Calibration([images[0], broken]).activations(checkpoint, {"encoder"})
    assert "\n" not in str(caught.value)


def test_activations_that_are_not_finite_are_recorded(checkpoint, images):
    huge = replace(checkpoint, image=replace(checkpoint.image, std=(1e-6,) * 3, rescale=1e5))
    assert Calibration(images[:1]).activations(huge, {"encoder"})[NORM].maxima.shape == (checkpoint.model.vision_width,)
