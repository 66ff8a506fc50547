"""`toolkit bench` on answerers and matchers: rows against values that are computed here, tables, pages, comparisons and refusals."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

import runtimes
from exporters.families.blip_matching.reference import HfMatcher
from exporters.families.blip_reference import HfAnswerer
from exporters.gate.matching import all_captions
from exporters.gate.retrieval import ranks, recall
from runtimes.decoding.scoring import sequence_log_probability
from toolkit.cli import main
from toolkit.metrics.vqa_accuracy import vqa_accuracy
from toolkit.records.record_file import read_records

TEXTS = 8


def run(*arguments, command="bench"):
    return CliRunner().invoke(main, [command, *map(str, arguments)], prog_name="toolkit")


def error_of(result):
    """Return the only line of stderr, without "Error: "."""
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    return line.removeprefix("Error: ")


@pytest.fixture(scope="module")
def questions(asked_images, tmp_path_factory):
    """Files in the format of VQAv2: two questions about each of four drawn images, ten answers each."""
    folder = tmp_path_factory.mktemp("questions")
    asked, annotations = [], []
    for number, image in enumerate(asked_images[:4]):
        shutil.copyfile(image.path, folder / image.path.name)
        for part in range(2):
            identity = 2 * number + part
            text = asked_images[identity].question
            asked.append({"question_id": identity, "image_id": image.path.name, "question": text})
            answers = [{"answer": answer} for answer in (image.texts * 5)]
            annotations.append({"question_id": identity, "answers": answers})
    (folder / "questions.json").write_text(json.dumps({"questions": asked}), encoding="utf-8")
    (folder / "annotations.json").write_text(json.dumps({"annotations": annotations}), encoding="utf-8")
    return folder / "questions.json"


@pytest.fixture(scope="module")
def captions(drawn_images, tmp_path_factory):
    """captions.json of twelve drawn images, more than a matcher compares each image with."""
    file = tmp_path_factory.mktemp("captions") / "captions.json"
    file.write_text(json.dumps({"images": [{"file": str(each.path), "captions": list(each.texts)} for each in drawn_images[:12]]}))
    return file


class Bench:
    """A benchmark of two artifacts against transformers."""

    def __init__(self, artifacts, checkpoint, dataset, folder):
        self.output, self.page = folder / "r.jsonl", folder / "r.html"
        paths = [artifacts[recipe] for recipe in ("onnx-fp32", "onnx-int8")]
        arguments = ("--checkpoint", checkpoint, "--dataset", dataset, "--repeat", 1, "--warmup", 1, "--threads", 1)
        self.result = run(*paths, *arguments, "--output", self.output, "--report", self.page)
        assert self.result.exit_code == 0, self.result.output
        self.records = read_records(self.output)
        self.rows = {row["case"]: row for row in json.loads(run(self.output, "--format", "json", command="report").stdout)["rows"]}

    def quality(self, case):
        return next(record.quality for record in self.records if record.case == case and record.quality)


@pytest.fixture(scope="module")
def answered(tiny_vqa_artifacts, tiny_vqa_checkpoint, questions, tmp_path_factory):
    return Bench(tiny_vqa_artifacts, tiny_vqa_checkpoint, questions, tmp_path_factory.mktemp("answered"))


@pytest.fixture(scope="module")
def matched(matcher_artifacts, tiny_matcher, captions, tmp_path_factory):
    return Bench(matcher_artifacts, tiny_matcher, captions, tmp_path_factory.mktemp("matched"))


def test_answers_accuracy_and_log_probabilities_are_those_of_the_models(answered, tiny_vqa_artifacts, tiny_vqa_checkpoint, questions):
    asked = json.loads(questions.read_text())["questions"]
    answers = [
        [each["answer"] for each in entry["answers"]]
        for entry in json.loads(questions.with_name("annotations.json").read_text())["annotations"]
    ]
    baseline = HfAnswerer(tiny_vqa_checkpoint, threads=1)
    with runtimes.load(tiny_vqa_artifacts["onnx-int8"], task="vqa", threads=1) as answerer:
        for case, model in (("onnx-int8", answerer), ("hf-fp32", baseline)):
            quality = answered.quality(case)
            assert [image.question for image in quality] == [each["question"] for each in asked]
            for image, each, references in zip(quality, asked, answers, strict=True):
                path = questions.parent / each["image_id"]
                (expected,) = model.generate([path], [each["question"]])
                assert image.caption == expected.text
                assert image.vqa_accuracy == pytest.approx(vqa_accuracy(expected.text, references))
                rows = model.reference_log_probabilities(path, each["question"], references)
                total = sum(sequence_log_probability(row, model.text_ids(text)) for row, text in zip(rows, references, strict=True))
                assert image.log_probability == pytest.approx(total, rel=1e-5)


def test_the_tables_of_answers(answered):
    row = answered.rows["onnx-int8"]
    assert row["drift"] != 0
    assert (row["exact_match"] is not None, row["vqa_accuracy"] is not None, row["bleu4"]) == (True, True, None)
    assert (row["text_seconds"] > 0, row["first_token_seconds"] > 0) == (True, True)
    assert answered.rows["onnx-fp32"]["drift"] == pytest.approx(0, abs=1e-3)
    assert answered.rows["onnx-fp32"]["exact_match"] == 1
    assert answered.rows["hf-fp32"]["text_seconds"] > 0
    for words in ("s/question", "VQA accuracy, change %", "drift nat/token", "texts ms"):
        assert words in answered.result.stdout
    page = answered.page.read_text(encoding="utf-8")
    assert answered.records[0].quality[0].question in page
    assert "<h2>Answers</h2>" in page


def test_recall_and_scores_are_those_of_the_models(matched, matcher_artifacts, tiny_matcher, drawn_images):
    images = drawn_images[:12]
    paths, (texts, own) = [image.path for image in images], all_captions(images)
    shared = [images[12 * index // TEXTS].texts[0] for index in range(TEXTS)]
    with runtimes.load(matcher_artifacts["onnx-int8"], task="matching", threads=1) as matcher:
        models = {"onnx-int8": matcher, "hf-fp32": HfMatcher(tiny_matcher, threads=1)}
        similarities = {case: model.similarity(paths, texts) for case, model in models.items()}
        probabilities = {
            case: [model.match([image.path], [*image.texts, *shared])[0] for image in images] for case, model in models.items()
        }
    for case, matrix in similarities.items():
        row = matched.rows[case]
        assert [row[f"image_recall_{k}"] for k in (1, 5)] == pytest.approx([recall(ranks(matrix, own), k) for k in (1, 5)])
        better = [(line[np.array(own) != index] > line[np.array(own) == index].max()).sum() for index, line in enumerate(matrix)]
        assert [row[f"text_recall_{k}"] for k in (1, 5)] == pytest.approx([np.mean(np.array(better) < k) for k in (1, 5)])
    changed = np.abs(np.array(probabilities["onnx-int8"]) - np.array(probabilities["hf-fp32"])).mean()
    assert matched.rows["onnx-int8"]["probability_change"] == pytest.approx(changed, abs=1e-5)
    best = similarities["hf-fp32"].argmax(axis=0).tolist()
    assert matched.rows["onnx-int8"]["agreement_1"] == pytest.approx(recall(ranks(similarities["onnx-int8"], best), 1))
    assert matched.rows["onnx-fp32"]["probability_change"] < 1e-4


def test_the_tables_of_matchers(matched):
    row = matched.rows["onnx-int8"]
    assert (row["drift"], row["step_seconds"], row["first_token_seconds"], row["tokens_per_image"]) == (None, None, None, 0)
    assert (row["text_seconds"] > 0, row["encode_seconds"] > 0, row["speedup"] > 0, row["score_limit"]) == (True, True, True, 0.02)
    for words in ("image R@1, change %", "change of probability", "FP32's best image first", "compared with 8 texts"):
        assert words in matched.result.stdout


@pytest.mark.parametrize("task", ["answered", "matched"])
def test_runs_are_compared(request, task):
    bench = request.getfixturevalue(task)
    text = run(bench.output, bench.output, command="compare").stdout
    assert {"answered": "VQA accuracy", "matched": "image R@1"}[task] in text
    assert {"answered": "image R@1", "matched": "BLEU-4"}[task] not in text


def test_artifacts_of_one_task_are_found_without_arguments(tiny_vqa_artifacts, tiny_matcher, matcher_artifacts, tmp_path, monkeypatch):
    shutil.copytree(tiny_vqa_artifacts["onnx-int8"], tmp_path / "build" / "artifacts" / "tiny-vqa-onnx-int8")
    monkeypatch.chdir(tmp_path)
    result = run("--limit", 2, "--repeat", 1, "--warmup", 1, "--threads", 1)
    assert result.exit_code == 0, result.output
    assert "2 questions of sample (2 of 63)" in result.stdout
    shutil.copytree(matcher_artifacts["onnx-int8"], tmp_path / "build" / "artifacts" / "tiny-matcher-onnx-int8")
    result = run("--limit", 2)
    assert result.exit_code == 1
    assert "these artifacts have different tasks (matching, vqa)" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--num-beams", 3], "options of the search"),
        (["--tokens", 5], "--tokens"),
        (["--prompt", "a"], "--prompt"),
        (["--profile"], "--profile"),
        (["--no-draft"], "--no-draft"),
    ],
)
def test_options_of_other_tasks_are_refused(matcher_artifacts, options, what):
    message = error_of(run(matcher_artifacts["onnx-int8"], *options))
    assert message == f"these artifacts have the task 'matching', and {what} is not for it; leave it out"


def test_a_data_set_of_another_task_is_refused(matcher_artifacts, tiny_vqa_artifacts, captions, questions, drawn_images):
    assert error_of(run(tiny_vqa_artifacts["onnx-int8"], "--dataset", captions)).endswith(
        "has no questions, and the task is 'vqa'; name a file of questions with --dataset"
    )
    assert "has questions, and the task is 'matching'" in error_of(run(matcher_artifacts["onnx-int8"], "--dataset", questions))
    assert "has images without texts" in error_of(run(matcher_artifacts["onnx-int8"], "--images", drawn_images[0].path.parent))


@pytest.mark.full
@pytest.mark.parametrize("artifacts", ["tiny_vqa_artifacts", "matcher_artifacts"])
def test_throughput_of_each_task(request, artifacts):
    options = ("--throughput", "--processes", 2, "--threads", 1, "--limit", 4, "--repeat", 1, "--warmup", 1, "--json")
    result = run(request.getfixturevalue(artifacts)["onnx-int8"], *options)
    assert result.exit_code == 0, result.output
    assert all(row["images_per_s"] > 0 for row in json.loads(result.stdout)["rows"] if row["case"] == "onnx-int8")
