"""Answers against transformers' `BlipForQuestionAnswering`: both engines, tied and untied heads, questions of 1 to 30 words.

The reference answers one question at a time: in a batch, transformers lets the decoder attend to the padding of shorter questions.
"""

import pytest
import safetensors.torch
import torch
import transformers

from exporters.checkpoint.checkpoint import open_checkpoint
from exporters.export import export
from exporters.families.blip_reference import HfAnswerer
from exporters.recipes import find_recipe
from runtimes.artifact.folder import open_artifact
from runtimes.artifact.generation import GenerationConfig
from runtimes.families.signature import QUESTION
from runtimes.loading import load
from tests.checkpoints import untie, write_random_checkpoint
from tests.drawn import ask_about

HEAD = "text_decoder.cls.predictions.decoder.weight"
ENGINES = ("onnx-fp32", "pytorch-fp32")
EOS = 3


@pytest.fixture(scope="module")
def untied(tiny_vqa_checkpoint, tmp_path_factory):
    return untie(tiny_vqa_checkpoint, tmp_path_factory.mktemp("untied") / "tiny-vqa-untied", seed=5)


@pytest.fixture(scope="module")
def untied_artifacts(untied, asked_images, tmp_path_factory):
    recipes = [find_recipe(name) for name in (*ENGINES, "onnx-int8", "onnx-int4", "pytorch-int8")]
    paths = export(open_checkpoint(str(untied)), recipes, tmp_path_factory.mktemp("out"), asked_images[:4], on_gate_failure="write")
    return dict(zip([recipe.name for recipe in recipes], paths, strict=True))


def reference_ids(model, answerer, images, **search):
    """Return transformers' token ids, one question at a time."""
    ids = []
    for image in images:
        question = torch.tensor([answerer.tokenizer.encoder_ids(image.question)])
        pixels = torch.from_numpy(answerer._pixels(image.path)[None])
        row = model.generate(input_ids=question, pixel_values=pixels, do_sample=False, **{"max_length": 20, **search})[0].tolist()
        ids.append(tuple(row[: row.index(EOS, 1) + 1] if EOS in row[1:] else row))
    return ids


def model_of(folder, *, tied=True):
    config = transformers.BlipConfig.from_pretrained(folder)
    config.text_config.tie_word_embeddings = tied
    return transformers.BlipForQuestionAnswering.from_pretrained(folder, config=config, dtype=torch.float32).eval()


@pytest.mark.parametrize("search", [{"num_beams": 1}, {"num_beams": 3}, {"num_beams": 3, "min_length": 9}], ids=str)
@pytest.mark.parametrize("recipe", ENGINES)
def test_answers_are_those_of_transformers(tiny_vqa_checkpoint, tiny_vqa_artifacts, asked_images, recipe, search):
    answerer = load(tiny_vqa_artifacts[recipe], task="vqa", device="cpu", threads=1)
    expected = reference_ids(model_of(tiny_vqa_checkpoint), answerer, asked_images, **search)
    assert len({len(answerer.tokenizer.encoder_ids(image.question)) for image in asked_images}) > 8
    assert len(set(expected)) > len(expected) / 2
    for batch_size in (1, 7):
        answers = answerer.answer(
            [image.path for image in asked_images], [image.question for image in asked_images], batch_size=batch_size, **search
        )
        assert [answer.token_ids for answer in answers] == expected


@pytest.mark.full
@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("recipe", ENGINES)
def test_answers_with_an_untied_head(untied, untied_artifacts, asked_images, recipe, num_beams):
    model = model_of(untied, tied=False)
    assert torch.equal(model.state_dict()[HEAD], safetensors.torch.load_file(untied / "model.safetensors")[HEAD])
    answerer = load(untied_artifacts[recipe], task="vqa", device="cpu", threads=1)
    assert not answerer.manifest.model.tied
    answers = answerer.answer([image.path for image in asked_images], [image.question for image in asked_images], num_beams=num_beams)
    assert [answer.token_ids for answer in answers] == reference_ids(model, answerer, asked_images, num_beams=num_beams)


@torch.no_grad()
@pytest.mark.parametrize("recipe", ENGINES)
def test_scores_are_those_of_transformers(tiny_vqa_checkpoint, tiny_vqa_artifacts, asked_images, recipe):
    """By the logits of transformers' text decoder on the states of its question encoder."""
    answerer, model = load(tiny_vqa_artifacts[recipe], task="vqa", device="cpu", threads=1), model_of(tiny_vqa_checkpoint)
    for image in asked_images[:4]:
        (scores,) = answerer.score(image.path, image.question, answers=image.texts)
        vision = model.vision_model(torch.from_numpy(answerer._pixels(image.path)[None])).last_hidden_state
        question = torch.tensor([answerer.tokenizer.encoder_ids(image.question)])
        states = model.text_encoder(input_ids=question, encoder_hidden_states=vision).last_hidden_state
        for answer, score in zip(image.texts, scores, strict=True):
            ids = torch.tensor([answerer.text_ids(answer)])
            logits = model.text_decoder(input_ids=ids[:, :-1], encoder_hidden_states=states).logits
            total = torch.log_softmax(logits[0], -1).gather(1, ids[0, 1:, None]).sum()
            assert score == pytest.approx(float(total), abs=1e-3)


@pytest.mark.full
@pytest.mark.parametrize("recipe", [*ENGINES, "onnx-int8", "onnx-int4", "pytorch-int8"])
def test_the_gate_passes_with_an_untied_head(untied_artifacts, recipe):
    manifest = open_artifact(untied_artifacts[recipe]).manifest
    assert (manifest.task, manifest.contract, manifest.gate["passed"]) == ("vqa", QUESTION, True)


@pytest.mark.full
def test_answers_of_random_blip_base(tmp_path, sample_images):
    """At BLIP-base's shapes, the gate compares greedy answers with transformers'; beams have transformers' scores."""
    checkpoint = write_random_checkpoint(tmp_path / "base-vqa", "base", 0, "vqa")
    samples = ask_about(sample_images[:2])
    reference, beams = HfAnswerer(checkpoint, threads=1), GenerationConfig(num_beams=3)
    output = [reference.output(reference._pixels(image.path), [image.question], beams, scores=True) for image in samples]
    expected = [float(each.sequences_scores[0]) for each in output]
    del reference, output  # 1.5 GB
    recipes = [find_recipe(name) for name in ENGINES]
    for path in export(open_checkpoint(str(checkpoint)), recipes, tmp_path / "out", samples, on_gate_failure="fail"):
        answerer = load(path, task="vqa", device="cpu")
        answers = answerer.answer(
            [image.path for image in samples], [image.question for image in samples], batch_size=2, generation_config=beams
        )
        assert [answer.score for answer in answers] == pytest.approx(expected, abs=1e-3)
