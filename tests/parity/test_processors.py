"""Captions with each decoding setting equal those of transformers' `generate`, token by token and, for beam search, score by score."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from transformers import GenerationConfig as HfGenerationConfig
from transformers import LogitsProcessorList

from exporters.families.blip_reference import HfCaptioner
from runtimes.artifact.generation import GenerationConfig
from runtimes.decoding.processors import process, processors_of
from runtimes.loading import load
from runtimes.tasks.captioner import Captioner
from tests.parity.settings import search_settings, single_settings

EOS = 3
WORDS = (10, 20, 21, 7, 12, 30, 41, 5, 9)
SETTINGS = single_settings(WORDS, EOS)
CASES = search_settings(WORDS, EOS)


@pytest.fixture(scope="module")
def reference(tiny_checkpoint) -> HfCaptioner:
    return HfCaptioner(tiny_checkpoint, threads=1)


@pytest.fixture(scope="module")
def captioner_of(tiny_artifacts) -> Callable[[str], Captioner]:
    return cache(lambda recipe: load(tiny_artifacts[recipe], device="cpu"))


@torch.inference_mode()
def transformers_captions(reference, images, prompt, settings):
    """Return (token ids to the end token, score of a beam search) of each image."""
    captions = []
    for image in images:
        text = {} if prompt is None else reference._tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
        options = {"max_length": 20, **settings}
        if "max_new_tokens" in options and "max_length" not in settings:
            del options["max_length"]
        output = reference.model.generate(
            pixel_values=reference._pixels(image.path), **text, do_sample=False, return_dict_in_generate=True, output_scores=True, **options
        )
        ids = output.sequences[0].tolist()
        ids = ids[: ids.index(EOS) + 1] if EOS in ids else ids
        captions.append((ids, float(output.sequences_scores[0]) if settings["num_beams"] > 1 else None))
    return captions


@pytest.mark.parametrize("prompt", [None, "a picture of"])
@pytest.mark.parametrize("settings", CASES, ids=str)
def test_each_setting_equals_transformers(captioner_of, reference, drawn_images, settings, prompt):
    images = drawn_images[:8]
    expected = transformers_captions(reference, images, prompt, settings)
    for recipe in ("onnx-fp32", "pytorch-fp32"):
        captions = captioner_of(recipe).caption([image.path for image in images], prompt=prompt, batch_size=3, **settings)
        assert [list(caption.token_ids) for caption in captions] == [ids for ids, _ in expected]
        if settings["num_beams"] > 1:
            assert [caption.score for caption in captions] == pytest.approx([score for _, score in expected], abs=1e-4)


@pytest.mark.parametrize("settings", [case for case in CASES if "max_new_tokens" not in case], ids=str)
def test_settings_change_captions(captioner_of, drawn_images, settings):
    """Without this, the test above could compare captions that the settings leave as they are."""
    captioner, paths = captioner_of("onnx-fp32"), [image.path for image in drawn_images[:8]]
    neutral = captioner.caption(paths, num_beams=settings["num_beams"])
    changed = captioner.caption(paths, **settings)
    if set(settings) != {"num_beams", "early_stopping"}:
        assert [caption.token_ids for caption in changed] != [caption.token_ids for caption in neutral]


@pytest.mark.parametrize("settings", SETTINGS[:7] + SETTINGS[9:], ids=str)
def test_processed_scores_equal_those_of_transformers(reference, settings):
    generator = np.random.default_rng(0)
    config = GenerationConfig(**settings)
    hf_config = HfGenerationConfig(**{"max_length": 20, **settings})
    hf_config._eos_token_tensor = torch.tensor([EOS])
    for length in range(1, 16):
        ids = generator.integers(4, 12, (5, length))
        scores = generator.normal(size=(5, 64)).astype(np.float32)
        processors = reference.model.text_decoder._get_logits_processor(
            hf_config, input_ids_seq_length=1, logits_processor=LogitsProcessorList(), device="cpu"
        )
        expected = processors(torch.tensor(ids), torch.tensor(scores)).numpy()
        process(processors_of(config, EOS, prompt=1), ids.tolist(), scores)
        np.testing.assert_array_equal(scores, expected)


def test_neutral_settings_need_no_processor():
    assert processors_of(GenerationConfig(min_length=4), EOS, prompt=4) == ()
