"""Our captions against transformers' `generate`: the same token ids, scores and words, for both runtimes' FP32 artifacts.

Token ids must be equal: a tie, which `exporters.gate.gate.compare` would forgive, is none of these images.
"""

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from exporters.checkpoint.checkpoint import open_checkpoint
from exporters.export import export
from exporters.families.blip_reference import HfCaptioner, greedy_with_margins
from exporters.gate.gate import Agreement, compare
from exporters.gate.labelled_image import LabelledImage
from exporters.recipes import find_recipe
from runtimes.host.facts import usable_cores
from runtimes.images.reading import read_image
from runtimes.loading import load
from runtimes.tasks.captioner import Captioner
from tests.checkpoints import write_random_checkpoint

RUNTIMES = ("pytorch-fp32", "onnx-fp32")
PROMPTS = (None, "a picture of")
SEARCHES = [
    {"num_beams": 1},
    {"num_beams": 1, "min_length": 12},
    {"num_beams": 2},
    {"num_beams": 3},
    {"num_beams": 5},
    {"num_beams": 3, "length_penalty": 0.5},
    {"num_beams": 3, "length_penalty": 2.0},
    {"num_beams": 3, "min_length": 12},
    {"num_beams": 3, "max_length": 8},
    {"num_beams": 4, "min_length": 9, "max_length": 16, "length_penalty": 0.0},
]


class Oracle:
    """transformers' FP32 model of a checkpoint. Captions are cached, because several tests need the same ones."""

    def __init__(self, checkpoint: Path) -> None:
        self.hf = HfCaptioner(checkpoint, threads=usable_cores())
        self._captions: dict[tuple, tuple[list[int], float | None]] = {}
        self.greedy = cache(lambda path, prompt: greedy_with_margins(self.hf, path, prompt))

    def caption(self, image: LabelledImage, prompt: str | None, **search: float) -> tuple[list[int], float | None]:
        """Return token ids to the end token and, of beam search, its score."""
        if search == {"num_beams": 1}:
            return self.greedy(image.path, prompt)[0], None
        key = (image.path, prompt, *sorted(search.items()))
        if key not in self._captions:
            text = {} if prompt is None else self.hf._tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
            pixels = self.hf._images(read_image(image.path), return_tensors="pt").pixel_values
            options = {"max_length": 20, **search}
            with torch.inference_mode():
                output = self.hf.model.generate(
                    pixel_values=pixels, **text, do_sample=False, return_dict_in_generate=True, output_scores=True, **options
                )
            ids, end = output.sequences[0].tolist(), self.hf.model.config.text_config.sep_token_id
            ids = ids[: ids.index(end) + 1] if end in ids else ids
            self._captions[key] = ids, float(output.sequences_scores[0]) if search["num_beams"] > 1 else None
        return self._captions[key]


@pytest.fixture(scope="module")
def captioner_of(tiny_artifacts, mini_artifacts) -> Callable[[str, str], Captioner]:
    artifacts = {"tiny": tiny_artifacts, "mini": mini_artifacts}
    return cache(lambda model, recipe: load(artifacts[model][recipe], device="cpu"))


@pytest.fixture(scope="module")
def oracle_of(tiny_checkpoint, mini_checkpoint) -> Callable[[str], Oracle]:
    checkpoints = {"tiny": tiny_checkpoint, "mini": mini_checkpoint}
    return cache(lambda model: Oracle(checkpoints[model]))


@pytest.fixture(scope="module")
def images_of(drawn_images, sample_images) -> dict[str, list[LabelledImage]]:
    return {"tiny": drawn_images, "mini": sample_images}


def caption(captioner: Captioner, images: list[LabelledImage], prompt: str | None = None, batch_size: int = 1, **search: float):
    actual = {"max_length": 20, **search}
    return captioner.caption([image.path for image in images], prompt=prompt, batch_size=batch_size, **actual)


def assert_same(captioner: Captioner, oracle: Oracle, images: list[LabelledImage], prompt: str | None, **search: float) -> None:
    """Ids equal on every image; scores of beam search equal to 1e-4; words equal transformers' decode."""
    expected = [oracle.caption(image, prompt, **search) for image in images]
    captions = caption(captioner, images, prompt, **search)
    assert [list(result.token_ids) for result in captions] == [ids for ids, _ in expected]
    if search["num_beams"] > 1:
        assert [result.score for result in captions] == pytest.approx([score for _, score in expected], abs=1e-4)
    decoded = [oracle.hf._tokenizer.decode(ids, skip_special_tokens=True) for ids, _ in expected]
    assert [result.text for result in captions] == decoded


def greedy_agreement(captioner: Captioner, oracle: Oracle, images: list[LabelledImage], prompt: str | None) -> Agreement:
    reference = [oracle.greedy(image.path, prompt) for image in images]
    actual = [result.token_ids for result in caption(captioner, images, prompt)]
    return compare(actual, [ids for ids, _ in reference], [margins for _, margins in reference])


def test_captions_of_the_tiny_checkpoint_vary_and_some_end_early(oracle_of, drawn_images):
    for num_beams in (1, 3):
        captions = [oracle_of("tiny").caption(image, None, num_beams=num_beams)[0] for image in drawn_images]
        assert len(set(map(tuple, captions))) >= 12
        assert sum(len(ids) < 20 for ids in captions) >= 4
        assert len(set(map(len, captions))) >= 3


@pytest.mark.parametrize("recipe", RUNTIMES)
@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("model", ["tiny", pytest.param("mini", marks=pytest.mark.full)])
def test_greedy_ids_equal_without_a_tie(captioner_of, oracle_of, images_of, model, prompt, recipe):
    images = images_of[model] if prompt is None else images_of[model][:8]
    agreement = greedy_agreement(captioner_of(model, recipe), oracle_of(model), images, prompt)
    assert agreement == Agreement(equal=len(images), ties=0, different=())


@pytest.mark.parametrize("recipe", RUNTIMES)
@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("search", SEARCHES, ids=str)
def test_every_search_of_the_tiny_model_equals_transformers(captioner_of, oracle_of, drawn_images, search, prompt, recipe):
    assert_same(captioner_of("tiny", recipe), oracle_of("tiny"), drawn_images[:8], prompt, **search)


@pytest.mark.full
@pytest.mark.parametrize("recipe", RUNTIMES)
@pytest.mark.parametrize("prompt", PROMPTS)
def test_beam_search_of_the_shipped_model_equals_transformers(captioner_of, oracle_of, sample_images, prompt, recipe):
    assert_same(captioner_of("mini", recipe), oracle_of("mini"), sample_images[:8], prompt, num_beams=3)


@pytest.mark.full
@pytest.mark.parametrize("recipe", RUNTIMES)
@pytest.mark.parametrize("search", SEARCHES[4:8], ids=str)
def test_wide_penalized_and_long_searches_of_the_shipped_model_equal_transformers(captioner_of, oracle_of, sample_images, search, recipe):
    assert_same(captioner_of("mini", recipe), oracle_of("mini"), sample_images[:2], "a picture of", **search)


@pytest.mark.parametrize("recipe", RUNTIMES)
@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("tokens", [1, 7, 20])
def test_forced_length_gives_exactly_that_many_tokens(captioner_of, oracle_of, drawn_images, tokens, num_beams, recipe):
    length = {"min_length": tokens + 1, "max_length": tokens + 1}
    captions = caption(captioner_of("tiny", recipe), drawn_images, num_beams=num_beams, **length)
    assert {len(result.token_ids) - 1 for result in captions} == {tokens}
    assert not any(3 in result.token_ids for result in captions)
    expected = [oracle_of("tiny").caption(image, None, num_beams=num_beams, **length)[0] for image in drawn_images]
    assert [list(result.token_ids) for result in captions] == expected


@pytest.mark.parametrize("recipe", RUNTIMES)
def test_greedy_score_is_the_mean_log_probability_of_its_tokens(captioner_of, oracle_of, drawn_images, recipe):
    hf = oracle_of("tiny").hf
    for image, result in zip(drawn_images, caption(captioner_of("tiny", recipe), drawn_images), strict=True):
        ids = torch.tensor([result.token_ids])
        with torch.inference_mode():
            seen = hf.model.vision_model(hf._pixels(image.path)).last_hidden_state
            logits = hf.model.text_decoder(input_ids=ids[:, :-1], encoder_hidden_states=seen).logits
            expected = torch.log_softmax(logits[0], dim=-1).gather(1, ids[0, 1:, None]).mean()
        assert result.score == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.parametrize("recipe", RUNTIMES)
@pytest.mark.parametrize("model", ["tiny", "mini"])
def test_score_of_given_captions_equals_transformers(captioner_of, oracle_of, images_of, model, recipe):
    images = images_of[model][:4]
    paths, captions = [image.path for image in images], [image.texts for image in images]
    actual, reference = captioner_of(model, recipe).score(paths, captions=captions), oracle_of(model).hf.score(paths, captions=captions)
    assert [len(row) for row in actual] == [len(texts) for texts in captions]
    np.testing.assert_allclose(np.concatenate(actual), np.concatenate(reference), rtol=0, atol=1e-3)


@pytest.mark.parametrize("recipe", RUNTIMES)
def test_score_of_one_caption_is_that_of_the_same_caption_among_several(captioner_of, sample_images, recipe):
    captioner, image = captioner_of("mini", recipe), sample_images[0]
    together = captioner.score([image.path], captions=[image.texts])[0]
    alone = [captioner.score([image.path], captions=[texts])[0][0] for texts in image.texts]
    np.testing.assert_allclose(alone, together, rtol=0, atol=1e-3)


@pytest.mark.parametrize("recipe", RUNTIMES)
@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("num_beams", [1, 3])
def test_captions_do_not_depend_on_batch_size(captioner_of, drawn_images, num_beams, prompt, recipe):
    captioner = captioner_of("tiny", recipe)
    alone = caption(captioner, drawn_images, prompt, num_beams=num_beams)
    assert len({len(result.token_ids) for result in alone}) > 1  # some rows are dropped while others go on
    for batch_size in (4, len(drawn_images)):
        together = caption(captioner, drawn_images, prompt, batch_size, num_beams=num_beams)
        assert [result.token_ids for result in together] == [result.token_ids for result in alone]
        assert [result.text for result in together] == [result.text for result in alone]
        assert [result.score for result in together] == pytest.approx([result.score for result in alone], abs=1e-5)


@pytest.mark.full
@pytest.mark.parametrize("recipe", RUNTIMES)
@pytest.mark.parametrize("num_beams", [1, 3])
def test_captions_of_the_shipped_model_do_not_depend_on_batch_size(captioner_of, oracle_of, sample_images, num_beams, recipe):
    together = caption(captioner_of("mini", recipe), sample_images[:6], batch_size=6, num_beams=num_beams)
    alone = [oracle_of("mini").caption(image, None, num_beams=num_beams)[0] for image in sample_images[:6]]
    assert [list(result.token_ids) for result in together] == alone


def test_stripping_the_prompt_leaves_the_words_after_it(captioner_of, drawn_images):
    captioner = captioner_of("tiny", "pytorch-fp32")
    (result,) = caption(captioner, drawn_images[:1], "a picture of")
    assert result.text == f"a picture of {captioner.strip_prompt(result, 'a picture of')}"


@pytest.mark.full
@pytest.mark.parametrize("recipe", RUNTIMES)
@pytest.mark.parametrize("prompt", PROMPTS)
def test_shipped_model_equals_transformers_on_100_images(captioner_of, oracle_of, data_images, prompt, recipe):
    captioner, oracle = captioner_of("mini", recipe), oracle_of("mini")
    assert greedy_agreement(captioner, oracle, data_images, prompt) == Agreement(equal=len(data_images), ties=0, different=())
    assert_same(captioner, oracle, data_images, prompt, num_beams=3)


@pytest.fixture(scope="module")
def base(sample_images):
    """BLIP-base shapes: transformers' captioner and ours by recipe. A gigabyte a copy, so not in pytest's folder, which stays."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = open_checkpoint(str(write_random_checkpoint(Path(folder) / "base", "base", seed=0)))
        recipes = [find_recipe(name) for name in RUNTIMES]
        paths = export(checkpoint, recipes, Path(folder), sample_images[:2])
        yield Oracle(checkpoint.directory), {recipe.name: load(path) for recipe, path in zip(recipes, paths, strict=True)}


@pytest.mark.full
@pytest.mark.parametrize("recipe", RUNTIMES)
@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("num_beams", [1, 3])
def test_blip_base_shapes_equal_transformers(base, sample_images, num_beams, prompt, recipe):
    oracle, captioners = base
    assert_same(captioners[recipe], oracle, sample_images[:2], prompt, num_beams=num_beams)
