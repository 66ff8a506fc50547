"""The stress copies of a checkpoint: which have the same FP32 function, and where their activations have outliers."""

import pytest
import safetensors.torch
import torch

from exporters.calibration.activations import SHIPPED
from exporters.checkpoint.checkpoint import open_checkpoint
from runtimes.images.reading import preprocess, read_image
from tests.stress import KINDS, LAYERS, write_stressed

SCALE = 30
FC1, FC2 = f"{LAYERS}1.mlp.fc1", f"{LAYERS}1.mlp.fc2"


@pytest.fixture(scope="module")
def copies(tiny_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stress")
    return {"plain": tiny_checkpoint, **{kind: write_stressed(kind, tiny_checkpoint, folder / kind, SCALE) for kind in KINDS}}


@pytest.fixture(scope="module")
def runs(copies):
    """Kind → cross-attention keys and values of calibration images, and inputs f32[tokens,C] of the two layers of an MLP."""
    results = {}
    for kind, source in copies.items():
        checkpoint = open_checkpoint(str(source))
        model, inputs = checkpoint.load_model(), {}
        for name in (FC1, FC2):
            model.get_submodule(name).register_forward_pre_hook(
                lambda _, arguments, name=name, inputs=inputs: inputs.update({name: arguments[0].flatten(0, 1)})
            )
        pixels = torch.stack([torch.from_numpy(preprocess(read_image(image), checkpoint.image)) for image in SHIPPED[:8]])
        with torch.inference_mode():
            results[kind] = model.encode(pixels), inputs
    return results


def largest(values):
    """Return the largest magnitude of each channel, relative to the median of channels."""
    maxima = values.abs().amax(0)
    return maxima / maxima.median()


def test_channel_outliers_leave_the_function_unchanged(runs):
    for actual, expected in zip(runs["channel"][0], runs["plain"][0], strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["gelu", "token"])
def test_other_outliers_change_it_a_little(runs, kind):
    for actual, expected in zip(runs[kind][0], runs["plain"][0], strict=True):
        assert 0 < float((actual - expected).norm() / expected.norm()) < 0.1


def test_channels_behind_the_norm_are_large_for_all_tokens(runs):
    plain, stressed = runs["plain"][1][FC1], runs["channel"][1][FC1]
    ratios = stressed.abs().amax(0) / plain.abs().amax(0)
    assert sorted(ratios.tolist())[-4:] == pytest.approx([SCALE] * 4, rel=1e-3)
    assert (largest(runs["channel"][1][FC2]) > SCALE / 3).sum() == (largest(runs["plain"][1][FC2]) > SCALE / 3).sum()


def test_neurons_behind_gelu_are_large(runs):
    ratios = runs["gelu"][1][FC2].abs().amax(0) / runs["plain"][1][FC2].abs().amax(0)
    assert (ratios > SCALE / 3).sum() >= 4


def test_a_token_local_neuron_is_zero_for_most_tokens(runs):
    values = runs["token"][1][FC2]
    neuron = int(largest(values).argmax())
    assert largest(values)[neuron] > SCALE / 2
    large = (values[:, neuron] > values[:, neuron].max() / 10).float().mean()
    assert 0 < float(large) < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_bytes(copies, tiny_checkpoint, tmp_path, kind):
    again = write_stressed(kind, tiny_checkpoint, tmp_path / "again", SCALE)
    assert (again / "model.safetensors").read_bytes() == (copies[kind] / "model.safetensors").read_bytes()


def test_another_seed_and_number_of_channels(tiny_checkpoint, tmp_path):
    plain = safetensors.torch.load_file(tiny_checkpoint / "model.safetensors")
    changed = []
    for seed in (2, 3):
        path = write_stressed("channel", tiny_checkpoint, tmp_path / str(seed), SCALE, count=6, seed=seed)
        norm = safetensors.torch.load_file(path / "model.safetensors")[f"{LAYERS}0.layer_norm1.weight"]
        changed.append((norm / plain[f"{LAYERS}0.layer_norm1.weight"] > SCALE / 2).nonzero()[:, 0].tolist())
    assert [len(channels) for channels in changed] == [6, 6]
    assert changed[0] != changed[1]
