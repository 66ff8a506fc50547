"""The baselines of questions and matching return what transformers' own calls return."""

import numpy as np
import pytest
import torch
import transformers

from exporters.families.blip_matching.reference import HfMatcher
from exporters.families.blip_reference import HfAnswerer
from runtimes.loading import load


@pytest.mark.parametrize("num_beams", [1, 3])
def test_answers_are_those_of_transformers(tiny_vqa_checkpoint, asked_images, tmp_path, num_beams):
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    answerer, images = HfAnswerer(tiny_vqa_checkpoint, threads=1), asked_images[:4]
    phases = []
    asked = [*((image.path, image.question) for image in images), (tmp_path / "bad.jpg", "what is it?")]
    answers = answerer.generate(
        [path for path, _ in asked],
        [question for _, question in asked],
        num_beams=num_beams,
        timer=lambda phase, seconds: phases.append(phase),
    )
    model = transformers.BlipForQuestionAnswering.from_pretrained(tiny_vqa_checkpoint).eval()
    for answer, image in zip(answers, images, strict=False):
        ids = answerer._tokenizer(image.question, return_tensors="pt").input_ids
        (expected,) = model.generate(input_ids=ids, pixel_values=answerer._pixels(image.path), num_beams=num_beams, max_length=20).tolist()
        assert list(answer.token_ids) == answerer._trim(expected)
    assert answers[-1].error.startswith(f"{tmp_path / 'bad.jpg'}: is not an image")
    assert phases[:4] == ["read", "encode", "question", "first_token"]


def test_questions_of_different_length_are_padded(tiny_vqa_checkpoint, asked_images):
    images = asked_images[:4]
    answers = HfAnswerer(tiny_vqa_checkpoint, threads=1).generate(
        [image.path for image in images], [image.question for image in images], batch_size=4
    )
    assert len({len(image.question.split()) for image in images}) > 1
    assert all(answer.error is None and answer.text for answer in answers)


def test_a_stream_of_matches_has_the_scores_of_single_calls(tiny_matcher, drawn_images, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    matcher, paths = HfMatcher(tiny_matcher, threads=1), [image.path for image in drawn_images[:3]]
    texts = [text for image in drawn_images[:3] for text in image.texts]
    phases = []
    first, bad, *others = matcher.stream(
        [paths[0], tmp_path / "bad.jpg", *paths[1:]], texts, batch_size=2, timer=lambda phase, seconds: phases.append(phase)
    )
    assert phases == ["read", "encode", "match"] * 2
    assert bad.error.startswith(f"{tmp_path / 'bad.jpg'}: is not an image")
    np.testing.assert_allclose([each.probabilities for each in (first, *others)], matcher.match(paths, texts), atol=1e-6)
    np.testing.assert_allclose([each.similarities for each in (first, *others)], matcher.similarity(paths, texts), atol=1e-6)


@torch.inference_mode()
def test_scores_are_those_of_one_call_of_transformers_per_pair(tiny_matcher, drawn_images, matcher_artifacts):
    matcher, texts = HfMatcher(tiny_matcher, threads=1), [image.texts[0] for image in drawn_images[:3]]
    model = transformers.BlipForImageTextRetrieval.from_pretrained(tiny_matcher).eval()
    paths = [image.path for image in drawn_images[:2]]
    expected = [
        [
            float(
                model(
                    pixel_values=matcher._pixels(path), **matcher._tokenizer(text, return_tensors="pt", return_token_type_ids=False)
                ).itm_score.softmax(-1)[0, 1]
            )
            for text in texts
        ]
        for path in paths
    ]
    np.testing.assert_allclose(matcher.match(paths, texts), expected, atol=1e-5)
    with load(matcher_artifacts["onnx-fp32"], task="matching", device="cpu") as artifact:
        np.testing.assert_allclose(artifact.match(paths, texts), expected, atol=1e-4)
