"""Sampling: distributions equal transformers' at every step, samples follow them, and a seed determines captions."""

import numpy as np
import pytest
import torch

from exporters.families.blip_reference import HfCaptioner
from runtimes.artifact.generation import GenerationConfig
from runtimes.decoding.processors import process, processors_of
from runtimes.decoding.search import generate
from runtimes.errors import RequestError
from runtimes.loading import load
from tests.parity.settings import SAMPLING_SETTINGS
from tests.runtimes.decoding.test_search import BOS, EOS, SPEC, A, B, C, ScriptedSession, table

SCRIPT = {(): {A: 0.5, B: 0.3, C: 0.2}, (A,): {EOS: 0.6, C: 0.4}, (B,): {C: 0.9, EOS: 0.1}, (C,): {A: 0.7, B: 0.3}}

CRITICAL = 20.515
"""Chi-square of 5 degrees of freedom (6 captions) at p = 0.001."""


def softmax(scores):
    exponentials = np.exp(scores.astype(np.float64) - scores.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("prompt", [None, "a picture of"])
@pytest.mark.parametrize("settings", SAMPLING_SETTINGS, ids=str)
def test_distributions_equal_transformers(tiny_checkpoint, tiny_artifacts, drawn_images, settings, prompt):
    reference, captioner = HfCaptioner(tiny_checkpoint, threads=1), load(tiny_artifacts["onnx-fp32"], device="cpu")
    session = captioner.stepwise_session
    for number, image in enumerate(drawn_images[:6]):
        text = {} if prompt is None else reference._tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
        torch.manual_seed(number)
        with torch.inference_mode():
            output = reference.model.generate(
                pixel_values=reference._pixels(image.path),
                **text,
                **{"max_length": 16, "do_sample": True, **settings},
                return_dict_in_generate=True,
                output_scores=True,
            )
        ids, start = output.sequences[0].tolist(), output.sequences.shape[1] - len(output.scores)
        state = session.encode({"pixels": captioner._pixels(image.path)[None]})
        logits, _ = session.step(np.array([ids[:-1]]), state, np.arange(start - 1, len(ids) - 1))
        processors = processors_of(GenerationConfig(do_sample=True, **settings), 3, start)
        for step, expected in enumerate(output.scores):
            scores = logits[:, step].copy()
            process(processors, [ids[: start + step]], scores)
            np.testing.assert_allclose(softmax(scores), softmax(expected.numpy()), rtol=0, atol=1e-5)


def test_samples_follow_the_distribution():
    """Of 10,000 captions, the counts fit the product of the tokens' probabilities."""
    session = ScriptedSession(table(SCRIPT), max_rows=10_000)
    config = GenerationConfig(do_sample=True, top_k=0, seed=1, num_return_sequences=10_000, max_length=3)
    (first,) = generate(session, session.start(1), np.array([[BOS]]), SPEC, config, lambda phase, seconds: None, [7])
    samples = [hypothesis.token_ids for hypothesis in (first, *first.alternatives)]
    expected = {(BOS, a, b): p * q for a, p in SCRIPT[()].items() for b, q in SCRIPT[a,].items()}
    assert set(samples) == set(expected)
    counts = [samples.count(ids) for ids in expected]
    chi_square = sum((count - 10_000 * p) ** 2 / (10_000 * p) for count, p in zip(counts, expected.values(), strict=True))
    assert chi_square < CRITICAL
    by_ids = {hypothesis.token_ids: hypothesis.score for hypothesis in (first, *first.alternatives)}
    assert by_ids == pytest.approx({ids: np.log(probability) / 2 for ids, probability in expected.items()}, abs=1e-5)


@pytest.mark.parametrize("recipe", ["onnx-fp32", "pytorch-fp32"])
def test_a_seed_determines_captions_in_any_batch(tiny_artifacts, drawn_images, recipe):
    captioner, paths = load(tiny_artifacts[recipe], device="cpu"), [image.path for image in drawn_images[:7]]
    options = {"do_sample": True, "seed": 5, "num_return_sequences": 3}
    captions = captioner.caption(paths, **options)
    assert [len({result.text for result in (caption, *caption.alternatives)}) > 1 for caption in captions].count(True) >= 5
    for batch_size in (1, 3, 7):
        assert [result.token_ids for result in captioner.caption(paths, **options, batch_size=batch_size)] == [
            c.token_ids for c in captions
        ]
    assert [result.token_ids for result in captioner.caption(paths[::-1], **options)] == [c.token_ids for c in captions[::-1]]
    alone = captioner.caption(paths, do_sample=True, seed=5)
    assert [result.token_ids for result in alone] == [caption.token_ids for caption in captions]
    other = captioner.caption(paths, do_sample=True, seed=6)
    assert [result.token_ids for result in other] != [result.token_ids for result in alone]
    assert captioner.caption(paths, do_sample=True) != captioner.caption(paths, do_sample=True)


def test_a_seed_gives_the_same_captions_with_every_engine(tiny_artifacts, drawn_images):
    """Probabilities differ by rounding, about 1e-6: a draw falls between two of them once in a million."""
    paths, options = [image.path for image in drawn_images[:7]], {"do_sample": True, "seed": 5, "num_return_sequences": 3}
    onnx, torch_ = (load(tiny_artifacts[recipe], device="cpu").caption(paths, **options) for recipe in ("onnx-fp32", "pytorch-fp32"))
    ids = [[result.token_ids for caption in captions for result in (caption, *caption.alternatives)] for captions in (onnx, torch_)]
    assert ids[0] == ids[1]
    assert len(set(ids[0])) > 15


@pytest.mark.parametrize("settings", [{"num_beams": 4}, {"num_beams": 3, "no_repeat_ngram_size": 2, "length_penalty": 2.0}])
def test_the_best_beams_equal_transformers(tiny_checkpoint, tiny_artifacts, drawn_images, settings):
    reference, captioner = HfCaptioner(tiny_checkpoint, threads=1), load(tiny_artifacts["onnx-fp32"], device="cpu")
    for image in drawn_images[:6]:
        with torch.inference_mode():
            output = reference.model.generate(
                pixel_values=reference._pixels(image.path),
                **{"max_length": 20, "num_return_sequences": 3, "do_sample": False, **settings},
                return_dict_in_generate=True,
                output_scores=True,
            )
        (best,) = captioner.caption(image.path, num_return_sequences=3, **settings)
        captions = [best, *best.alternatives]
        assert [list(caption.token_ids) for caption in captions] == [reference._trim(ids) for ids in output.sequences.tolist()]
        assert [caption.score for caption in captions] == pytest.approx(output.sequences_scores.tolist(), abs=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": True, "num_beams": 2},
        {"num_return_sequences": 2},
        {"num_return_sequences": 4, "num_beams": 3},
        {"do_sample": True, "temperature": 0.0},
        {"do_sample": True, "top_p": 0.0},
        {"do_sample": True, "top_k": -1},
        {"do_sample": True, "seed": -1},
    ],
    ids=str,
)
def test_invalid_settings_are_invalid_requests(tiny_artifacts, drawn_images, options):
    with pytest.raises(RequestError):
        load(tiny_artifacts["onnx-fp32"], device="cpu").caption(drawn_images[0].path, **options)


@pytest.mark.parametrize("options", [{"do_sample": True}, {"repetition_penalty": 1.2}, {"suppress_tokens": [7]}], ids=str)
def test_a_single_graph_names_what_it_cannot_apply(tiny_artifacts, drawn_images, options):
    with load(tiny_artifacts["onnx-int8-single"], device="cpu") as captioner, pytest.raises(RequestError, match=next(iter(options))):
        captioner.caption(drawn_images[0].path, **options)
