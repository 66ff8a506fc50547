"""`toolkit ask`: one line per question, errors of one line, files that a second run continues, and the command for the other task."""

import json

import pytest
from click.testing import CliRunner

from runtimes.loading import load
from toolkit.cli import main

QUESTIONS = ("is the dog red", "two")
ASK = [part for question in QUESTIONS for part in ("--question", question)]


@pytest.fixture(scope="module")
def artifact(tiny_vqa_artifacts):
    return tiny_vqa_artifacts["onnx-fp32"]


@pytest.fixture(scope="module")
def paths(drawn_images):
    return [str(image.path) for image in drawn_images[:3]]


def ask(*arguments):
    return CliRunner().invoke(main, ["ask", *map(str, arguments)])


def test_a_row_for_each_image_and_question(artifact, paths):
    result = ask(artifact, *paths, *ASK, "--json")
    assert result.exit_code == 0
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(row["image"], row["question"]) for row in rows] == [(path, question) for path in paths for question in QUESTIONS]
    expected = load(artifact, task="vqa").answer(paths, [list(QUESTIONS)] * len(paths))
    assert [(row["answer"], tuple(row["token_ids"])) for row in rows] == [(answer.text, answer.token_ids) for answer in expected]


@pytest.mark.parametrize("layout", [["--json"], []])
def test_a_second_run_asks_only_about_changed_images(artifact, paths, tmp_path, layout):
    copies = [tmp_path / f"{number}.png" for number in range(3)]
    for copy, path in zip(copies, paths, strict=True):
        copy.write_bytes(open(path, "rb").read())  # noqa: PTH123, SIM115
    copies.insert(1, tmp_path / "none.png")
    output = tmp_path / "answers"
    assert ask(artifact, *copies, *ASK, *layout, "-o", output).exit_code == 1
    first = output.read_text().splitlines()
    assert len(first) == 6 + (layout != [])
    copies[2].write_bytes(copies[3].read_bytes())
    assert ask(artifact, *copies, *ASK, *layout, "-o", output, "--resume").exit_code == 1
    second = output.read_text().splitlines()
    changed = [number for number, (before, after) in enumerate(zip(first, second, strict=True)) if before != after]
    assert changed
    assert {str(copies[2]) in second[number] for number in changed} == {True}
    assert ask(artifact, *copies, "--question", "another", *layout, "-o", output, "--resume").exit_code == 1
    assert output.read_text().splitlines() == second


@pytest.mark.parametrize(
    ("question", "fact"), [(" ", "empty"), ("a " * 40, "at most 32"), ("", "empty")], ids=["blank", "too long", "nothing"]
)
def test_a_question_that_cannot_be_asked(artifact, paths, question, fact):
    result = ask(artifact, paths[0], "--question", question, "--json")
    assert result.exit_code == 1
    answer = json.loads(result.stdout)
    assert answer["code"] == "REQUEST_INVALID"
    assert fact in answer["error"]


def test_each_command_names_the_other_one(artifact, tiny_artifacts, paths):
    for command, path, other in (("ask", tiny_artifacts["onnx-fp32"], "toolkit caption"), ("caption", artifact, "toolkit ask")):
        result = CliRunner().invoke(main, [command, str(path), paths[0], *(ASK if command == "ask" else [])])
        assert result.exit_code == 1
        assert len(result.stderr.splitlines()) == 1
        assert other in result.stderr
