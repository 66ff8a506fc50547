"""A checkpoint's own decoding settings become the artifact's defaults; the gate's reference runs with the same settings."""

import json
import logging
import shutil

import pytest
import torch
import transformers
from transformers import AutoTokenizer, BlipForConditionalGeneration, BlipImageProcessor

from exporters.checkpoint.checkpoint import open_checkpoint
from exporters.checkpoint.generation_settings import SUPPORTED, UNSUPPORTED, WITHOUT_EFFECT
from exporters.checkpoint.reference import find_reference
from exporters.export import export
from exporters.recipes import find_recipe
from runtimes.artifact.generation import GenerationConfig
from runtimes.errors import CheckpointError
from runtimes.images.reading import read_image
from runtimes.loading import load
from toolkit.info.describe import describe
from toolkit.packaging.goldens import record

NO_LENGTH = {"max_new_tokens": 20}
"""What transformers does if no length is set: 20 tokens after the prompt."""
OWN = {"num_beams": 3, "no_repeat_ngram_size": 2, "max_length": 12}


@pytest.fixture
def copy(tiny_checkpoint, tmp_path, monkeypatch):
    """Return a function that copies the tiny checkpoint and adds settings to generation_config.json, text_config or config.json."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def write(place, **settings):
        directory = tmp_path / "own"
        if not directory.exists():
            shutil.copytree(tiny_checkpoint, directory, ignore=shutil.ignore_patterns("generation_config.json"))
        if place == "generation_config":
            (directory / "generation_config.json").write_text(json.dumps(settings))
        else:
            config = json.loads((directory / "config.json").read_text())
            (config["text_config"] if place == "text_config" else config).update(settings)
            (directory / "config.json").write_text(json.dumps(config))
        return directory

    return write


@pytest.mark.parametrize("place", ["generation_config", "text_config", "config"])
def test_settings_become_defaults(copy, place):
    assert open_checkpoint(str(copy(place, **OWN))).defaults == GenerationConfig(**OWN)


def test_generation_config_precedes_config(copy):
    copy("text_config", num_beams=5, repetition_penalty=1.5)
    directory = copy("generation_config", num_beams=2, suppress_tokens=[4, 5], length_penalty=None)
    assert open_checkpoint(str(directory)).defaults == GenerationConfig(
        num_beams=2, repetition_penalty=1.5, suppress_tokens=(4, 5), **NO_LENGTH
    )


def test_unsupported_settings_are_named_in_one_line(copy, caplog):
    directory = copy("text_config", forced_eos_token_id=3, diversity_penalty=0.5, min_p=None, typical_p=1.0, num_beam_groups=1)
    with caplog.at_level(logging.WARNING):
        defaults = open_checkpoint(str(directory)).defaults
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.endswith("decoding settings of the checkpoint: diversity_penalty 0.5, forced_eos_token_id 3")
    assert defaults == GenerationConfig(**NO_LENGTH)


def test_a_setting_that_nobody_knows_is_named(copy, caplog):
    own = {"token_healing": True, "temperature": 0.0, "new_in_transformers_9": 1, "use_cache": True, "output_scores": True}
    with caplog.at_level(logging.WARNING):
        directory = copy("generation_config", **own)
        assert open_checkpoint(str(directory)).defaults == GenerationConfig(**NO_LENGTH)
    (message,) = [record.getMessage() for record in caplog.records]
    named = ["token_healing True", "new_in_transformers_9 1", "temperature 0.0 without do_sample"]
    assert message.endswith(f"decoding settings of the checkpoint: {', '.join(named)}")
    assert [line for line in describe(directory)["ignored"] if "does not implement" in line] == [
        f"{name}: the toolkit does not implement it" for name in named
    ]


def test_every_setting_of_transformers_is_known():
    names = transformers.GenerationConfig().to_dict().keys()
    assert [name for name in names if name not in {*SUPPORTED, *UNSUPPORTED} and not WITHOUT_EFFECT.fullmatch(name)] == []


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"num_beams": 0}, "num_beams must be at least 1"),
        ({"num_beams": "three"}, "num_beams: expected int, got str"),
        ({"num_beams": 32}, "32 beams are too many for a vocabulary of 64"),
        ({"suppress_tokens": [64]}, "token id 64 in bad_words_ids or suppress_tokens"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be between"),
        ({"bad_words_ids": [[]]}, "empty sequence"),
        ({"min_length": 22}, "min_length 22 is more than the greatest length, 21"),
    ],
)
def test_invalid_settings_are_refused(copy, settings, problem):
    with pytest.raises(CheckpointError, match=problem):
        open_checkpoint(str(copy("generation_config", **settings)))


@pytest.mark.parametrize("length", [{"max_length": 512}, {"max_new_tokens": 512}])
def test_a_least_length_above_the_positions_is_refused(copy, length):
    with pytest.raises(CheckpointError, match="min_length 40 is more than the greatest length, 32"):
        open_checkpoint(str(copy("generation_config", min_length=40, **length)))


def test_lengths_are_cut_to_the_positions(copy):
    assert open_checkpoint(str(copy("generation_config", max_length=512))).defaults.max_length == 32
    assert open_checkpoint(str(copy("generation_config", max_new_tokens=512))).defaults.max_new_tokens == 31


def test_the_gate_passes_and_captions_equal_transformers(copy, drawn_images):
    directory = copy("text_config", forced_eos_token_id=9, min_new_tokens=3)  # ignored on both sides
    copy("generation_config", **OWN)
    checkpoint, images = open_checkpoint(str(directory)), drawn_images[:6]
    recipes = [find_recipe(name) for name in ("onnx-fp32", "pytorch-fp32", "onnx-int8-single")]
    onnx, pytorch, single = export(checkpoint, recipes, directory.parent / "out", images)
    config = json.loads((directory / "config.json").read_text())
    del config["text_config"]["forced_eos_token_id"], config["text_config"]["min_new_tokens"]
    (directory / "config.json").write_text(json.dumps(config))
    model = BlipForConditionalGeneration.from_pretrained(directory).eval()
    processor, tokenizer = BlipImageProcessor.from_pretrained(directory), AutoTokenizer.from_pretrained(directory)
    for image in images:
        with torch.inference_mode():
            ids = model.generate(**processor(read_image(image.path), return_tensors="pt"), **OWN)[0]
        expected = tokenizer.decode(ids, skip_special_tokens=True)
        for path in (onnx, pytorch):
            assert load(path).caption(image.path)[0].text == expected
    manifest = load(onnx).manifest
    assert (manifest.gate["passed"], manifest.gate["exact_captions"], manifest.defaults) == (True, 6, GenerationConfig(**OWN))
    with load(single) as captioner:
        assert captioner.manifest.defaults == GenerationConfig(max_length=12)
        assert (
            captioner.caption(images[0].path)[0].token_ids
            == load(onnx).caption(images[0].path, num_beams=1, no_repeat_ngram_size=0)[0].token_ids
        )
    with load(onnx) as captioner:
        assert {caption.num_beams for image in record(captioner, onnx).golden.images for caption in image.captions} == {1, 3}


@pytest.mark.parametrize("prompt", [None, "a picture of a red"])
@pytest.mark.parametrize("place", ["nowhere", "text_config"])
def test_without_a_length_captions_are_as_long_as_those_of_transformers(copy, drawn_images, prompt, place):
    """Old checkpoints repeat the default, 20, in config.json."""
    directory = copy("text_config", **({} if place == "nowhere" else {"max_length": 20}))
    (path,) = export(open_checkpoint(str(directory)), [find_recipe("onnx-fp32")], directory.parent / "out", drawn_images[:2])
    model = BlipForConditionalGeneration.from_pretrained(directory).eval()
    processor, tokenizer = BlipImageProcessor.from_pretrained(directory), AutoTokenizer.from_pretrained(directory)
    inputs = processor(read_image(drawn_images[0].path), return_tensors="pt")
    inputs |= {} if prompt is None else tokenizer(prompt, return_tensors="pt")
    longest = 20 + (1 if prompt is None else len(tokenizer(prompt).input_ids) - 1)
    with torch.inference_mode():
        ids = model.generate(**inputs, min_length=longest)[0].tolist()
    (caption,) = load(path).caption(drawn_images[0].path, prompt=prompt, min_length=longest)
    assert (list(caption.token_ids), len(ids), caption.finish_reason) == (ids, longest, "length")


def test_the_cached_reference_depends_on_the_settings(copy, drawn_images):
    directory = copy("generation_config", **OWN)
    beams = find_reference(open_checkpoint(str(directory)), drawn_images[:3], threads=1)
    copy("generation_config")
    greedy = find_reference(open_checkpoint(str(directory)), drawn_images[:3], threads=1)
    assert beams.margins_nat == ((), (), ())
    assert all(greedy.margins_nat)
    assert max(map(len, beams.token_ids)) <= 12 < max(map(len, greedy.token_ids))


def test_sampling_of_the_checkpoint_is_a_default_and_the_gate_compares_without_it(copy, drawn_images):
    directory = copy("generation_config", do_sample=True, top_p=0.9, temperature=0.7)
    checkpoint = open_checkpoint(str(directory))
    assert checkpoint.defaults == GenerationConfig(do_sample=True, top_p=0.9, temperature=0.7, **NO_LENGTH)
    (path,) = export(checkpoint, [find_recipe("onnx-fp32")], directory.parent / "out", drawn_images[:4])
    assert load(path).manifest.gate["exact_captions"] == 4


def test_beams_that_sample_are_named_and_left_out(copy, caplog):
    with caplog.at_level(logging.WARNING):
        defaults = open_checkpoint(str(copy("generation_config", do_sample=True, num_beams=3))).defaults
    assert defaults == GenerationConfig(num_beams=3, **NO_LENGTH)
    assert "do_sample True with num_beams 3" in caplog.text
