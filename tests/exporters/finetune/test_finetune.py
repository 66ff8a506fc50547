"""Fine-tuning the tiny checkpoint: the divergence falls, the result is a checkpoint whose export has the trained weights, runs resume."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch

from exporters.checkpoint.checkpoint import open_checkpoint
from exporters.finetune.distill import TrainingSettings, rate, sum_of_kl
from exporters.finetune.examples import MIN_IMAGES, TrainingExample, batches, rows_of, split
from exporters.finetune.finetune import finetune
from exporters.finetune.models import Models, trained_components
from exporters.gate.labelled_image import LabelledImage
from exporters.recipe import Component, Recipe
from exporters.recipes import find_recipe
from runtimes.errors import DatasetError, OutputExistsError, RecipeError, RequestError

CPU = torch.device("cpu")
SETTINGS = TrainingSettings(epochs=4, learning_rate=3e-4, batch_images=4, patience=100)
HARD = Recipe(
    name="int4-everywhere",
    runtime="ort",
    why="Weights of 4 bits in both components.",
    components={"*": Component(weights="qint4", block_size=16)},
    drift_limit_nat=1.0,
)


class StoppedError(Exception):
    """Raised in the middle of a run, in place of a signal."""


def tune(checkpoint, images, output, recipe=HARD, settings=SETTINGS, **options):
    return finetune(open_checkpoint(str(checkpoint)), recipe, images, output, settings, device=CPU, **options)


def stop_at(step):
    def on_step(progress):
        if progress.step == step:
            raise StoppedError

    return on_step


def weights_of(folder):
    return safetensors.torch.load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def tuned(tiny_checkpoint, drawn_images, tmp_path_factory):
    """The tiny checkpoint, fine-tuned for 4-bit weights in both components, and the result of the run."""
    output = tmp_path_factory.mktemp("tuned") / "tiny-int4"
    return tune(tiny_checkpoint, drawn_images, output)


def test_the_divergence_falls(tuned):
    assert tuned.after < 0.9 * tuned.before


def test_the_result_is_a_checkpoint_with_the_files_of_the_original(tuned, tiny_checkpoint):
    names = {file.name for file in tuned.path.iterdir()}
    assert names == {file.name for file in tiny_checkpoint.iterdir()} | {"finetune.json"}
    for name in names - {"model.safetensors", "finetune.json", "config.json"}:
        assert (tuned.path / name).read_bytes() == (tiny_checkpoint / name).read_bytes()
    assert open_checkpoint(str(tuned.path)).model == open_checkpoint(str(tiny_checkpoint)).model
    record = json.loads((tuned.path / "finetune.json").read_bytes())
    assert record["recipe"]["name"] == HARD.name
    assert record["held_out_kl"][0]["nat_per_token"] == pytest.approx(tuned.before, abs=1e-6)


def test_rounding_does_not_change_the_weights_again(tuned):
    """So the exporter writes the codes that training computed with."""
    checkpoint = open_checkpoint(str(tuned.path))
    models = Models(checkpoint, checkpoint, HARD, CPU)
    assert models.fakes
    for fake in models.fakes.values():
        assert torch.equal(fake.values, fake.parameter.detach())


@pytest.mark.full
def test_the_same_seed_gives_the_same_weights(tuned, tiny_checkpoint, drawn_images, tmp_path):
    again = tune(tiny_checkpoint, drawn_images, tmp_path / "again")
    assert (again.path / "model.safetensors").read_bytes() == (tuned.path / "model.safetensors").read_bytes()


def test_a_run_that_was_stopped_continues_with_equal_results(tuned, tiny_checkpoint, drawn_images, tmp_path):
    output = tmp_path / "tiny-int4"
    with pytest.raises(StoppedError):
        tune(tiny_checkpoint, drawn_images, output, on_step=stop_at(7))
    assert not output.exists()
    with pytest.raises(OutputExistsError, match="--resume"):
        tune(tiny_checkpoint, drawn_images, output)
    with pytest.raises(RequestError, match="settings"):
        tune(tiny_checkpoint, drawn_images, output, settings=TrainingSettings(epochs=4), resume=True)
    result = tune(tiny_checkpoint, drawn_images, output, resume=True)
    assert (result.before, result.after, result.steps) == (tuned.before, tuned.after, tuned.steps)
    assert (output / "model.safetensors").read_bytes() == (tuned.path / "model.safetensors").read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["tiny-int4"]


@pytest.mark.full
def test_a_damaged_state_is_refused(tiny_checkpoint, drawn_images, tmp_path):
    output = tmp_path / "tiny-int4"
    with pytest.raises(StoppedError):
        tune(tiny_checkpoint, drawn_images, output, on_step=stop_at(5))
    (state,) = tmp_path.glob(".*/state.pt")
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(RequestError, match="damaged"):
        tune(tiny_checkpoint, drawn_images, output, resume=True)


def test_only_components_with_4_bits_are_trained(tiny_checkpoint):
    checkpoint, recipe = open_checkpoint(str(tiny_checkpoint)), find_recipe("onnx-int4")
    assert trained_components(checkpoint, recipe) == {"decoder"}
    assert trained_components(checkpoint, find_recipe("onnx-int8")) == {"decoder"}
    assert trained_components(checkpoint, HARD) == {"encoder", "decoder"}
    smoothed = Recipe(
        name="both", runtime="ort", why="Test.", components={"*": replace(HARD.component("encoder"), smooth="auto")}, drift_limit_nat=1
    )
    with pytest.raises(RecipeError, match="smooth"):
        trained_components(checkpoint, smoothed)
    models = Models(checkpoint, checkpoint, recipe, CPU)
    assert not models.trains_encoder
    assert not any("vision_model" in name or "crossattention.self.key" in name for name in models.trained)
    assert "text_decoder.bert.embeddings.word_embeddings.weight" in models.trained


@pytest.mark.full
def test_the_frozen_encoder_stays_as_it_is(tiny_checkpoint, drawn_images, tmp_path):
    result = tune(tiny_checkpoint, drawn_images, tmp_path / "tuned", find_recipe("onnx-int4"), TrainingSettings(epochs=1, batch_images=8))
    before, after = weights_of(tiny_checkpoint), weights_of(result.path)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert not any(name.startswith("vision_model.") for name in changed)


def test_unreadable_images_are_left_out(tiny_checkpoint, drawn_images, tmp_path, caplog):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    images = [LabelledImage(broken, ("a dog",)), *drawn_images[:MIN_IMAGES]]
    with caplog.at_level(logging.WARNING):
        tune(tiny_checkpoint, images, tmp_path / "tuned", settings=TrainingSettings(epochs=1, batch_images=8))
    assert next(record.message for record in caplog.records if "broken.png" in record.message).startswith("1 images cannot be read")


@pytest.mark.parametrize("kept", ["few", "unreadable", "bare"])
def test_datasets_that_cannot_be_used(kept, tiny_checkpoint, drawn_images, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    images = {
        "few": drawn_images[: MIN_IMAGES - 1],
        "unreadable": [*drawn_images[: MIN_IMAGES - 1], *[LabelledImage(broken, ("a dog",))] * 5],
        "bare": [*drawn_images, LabelledImage(drawn_images[0].path, ())],
    }[kept]
    with pytest.raises(DatasetError):
        tune(tiny_checkpoint, images, tmp_path / "tuned")
    assert [file.name for file in tmp_path.iterdir()] == ["broken.png"]


def test_an_output_that_exists_is_not_replaced(tiny_checkpoint, drawn_images, tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(OutputExistsError):
        tune(tiny_checkpoint, drawn_images, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["note.txt"]


def test_kl_is_the_sum_over_counted_tokens():
    generator = np.random.default_rng(0)
    p, q = (generator.dirichlet(np.ones(5), size=(2, 3)) for _ in range(2))
    counted = np.array([[True, True, False], [True, False, False]])
    total, tokens = sum_of_kl(torch.from_numpy(np.log(p)), torch.from_numpy(np.log(q)), torch.from_numpy(counted))
    assert tokens == 3
    assert float(total) == pytest.approx(float((p * np.log(p / q)).sum(-1)[counted].sum()))


def test_rows_of_a_batch():
    examples = [TrainingExample(None, ((9, 1, 2, 3), (9, 4, 3))), TrainingExample(None, ((9, 5, 3),))]
    rows = rows_of(examples, pad_id=0)
    assert rows.token_ids.tolist() == [[9, 1, 2], [9, 4, 0], [9, 5, 0], [0, 0, 0]]
    assert rows.counted.tolist() == [[True, True, True], [True, True, False], [True, True, False], [False, False, False]]


def test_the_parts_are_disjoint_and_batches_contain_every_image_once():
    training, held_out = split(50, seed=3)
    assert sorted(training + held_out) == list(range(50))
    assert len(held_out) == 5
    assert split(50, seed=3) == (training, held_out) != split(50, seed=4)
    examples = [TrainingExample(None, ((1, 2),) * (1 + index % 3)) for index in range(50)]
    order = batches(examples, training, 8, seed=0, epoch=1)
    assert sorted(index for batch in order for index in batch) == training
    assert order == batches(examples, training, 8, seed=0, epoch=1) != batches(examples, training, 8, seed=0, epoch=2)


def test_the_learning_rate_rises_and_falls():
    rates = [rate(step, 100) for step in range(100)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert 0.01 <= rates[-1] < 0.012
