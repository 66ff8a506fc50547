"""`toolkit match` and `toolkit embed`."""

import json
import sys

import numpy as np
import pyarrow.parquet
import pytest
from click.testing import CliRunner

import runtimes
from toolkit.cli import main

TEXTS = ("a red dog", "two", "a big black horse")


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def artifact(matcher_artifacts):
    return str(matcher_artifacts["onnx-fp32"])


@pytest.fixture(scope="module")
def paths(drawn_images):
    return [str(image.path) for image in drawn_images[:3]]


@pytest.fixture(scope="module")
def matcher(artifact):
    return runtimes.load(artifact, task="matching", threads=1)


@pytest.fixture
def bad(tmp_path):
    (tmp_path / "bad.jpg").write_text("no image")
    return str(tmp_path / "bad.jpg")


def options(texts):
    return [part for text in texts for part in ("--text", text)]


def test_the_table_ranks_images_for_each_text(artifact, paths, matcher):
    result = run("match", artifact, *paths, *options(TEXTS))
    assert (result.exit_code, result.stderr) == (0, "")
    lines, expected = result.stdout.splitlines(), matcher.match(paths, TEXTS)
    assert len(lines) == len(TEXTS) * (len(paths) + 2)
    for index, text in enumerate(TEXTS):
        title, _, *rows = lines[index * (len(paths) + 2) :][: len(paths) + 2]
        assert title == text
        assert [row.split()[2] for row in rows] == [paths[image] for image in np.argsort(-expected[:, index])]
        assert [float(row.split()[0]) for row in rows] == pytest.approx(sorted(expected[:, index], reverse=True), abs=1e-4)


def test_one_image_ranks_the_texts(artifact, paths, matcher):
    title, _, *rows = run("match", artifact, paths[0], *options(TEXTS)).stdout.splitlines()
    assert title == paths[0]
    assert [row.split(maxsplit=2)[2] for row in rows] == [TEXTS[text] for text in np.argsort(-matcher.match(paths[0], TEXTS)[0])]


def test_json_has_a_line_per_image_and_its_errors(artifact, paths, matcher, bad):
    result = run("match", artifact, paths[0], bad, *options(TEXTS), "--json")
    assert result.exit_code == 1
    row, error = map(json.loads, result.stdout.splitlines())
    assert [match["text"] for match in row["matches"]] == list(TEXTS)
    assert [match["probability"] for match in row["matches"]] == pytest.approx(matcher.match(paths[0], TEXTS)[0].tolist(), abs=1e-6)
    assert [match["similarity"] for match in row["matches"]] == pytest.approx(matcher.similarity(paths[0], TEXTS)[0].tolist(), abs=1e-6)
    assert (error["image"], error["code"]) == (bad, "IMAGE_UNREADABLE")


@pytest.mark.parametrize("text", ["", " ", "dog " * 40])
def test_a_text_that_cannot_be_used_is_one_line(artifact, paths, text):
    result = run("match", artifact, paths[0], "--text", text)
    assert (result.exit_code, result.stdout) == (1, "")
    assert len(result.stderr.splitlines()) == 1


def test_an_artifact_of_another_task_is_refused_with_the_right_command(tiny_artifacts, artifact, paths, tmp_path):
    captioner = tiny_artifacts["onnx-fp32"]
    for arguments in (["match", captioner, paths[0], "--text", "a dog"], ["embed", captioner, paths[0], "--output", tmp_path / "x.npz"]):
        result = run(*arguments)
        assert result.exit_code == 1
        assert "toolkit caption" in result.stderr
    assert "toolkit match" in run("caption", artifact, paths[0]).stderr


def test_embeddings_are_written_with_the_names_of_unreadable_images(artifact, paths, matcher, bad, tmp_path):
    output = tmp_path / "out.npz"
    result = run("embed", artifact, *paths, bad, "--output", output)
    assert (result.exit_code, result.stdout) == (1, f"{output}\n")
    with np.load(output, allow_pickle=False) as file:
        np.testing.assert_allclose(file["embeddings"], matcher.embed_images(paths), atol=1e-6)
        assert file["images"].tolist() == paths
        assert file["failed"].tolist() == [bad]
        assert str(file["digest"]) == matcher.manifest.digest
    again = run("embed", artifact, *paths, "--output", output, "--json")
    assert json.loads(again.stdout)["code"] == "OUTPUT_EXISTS"
    replaced = run("embed", artifact, *paths, "--output", output, "--overwrite", "--json")
    assert json.loads(replaced.stdout) == {"output": str(output), "images": 3, "failed": 0, "width": 16}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bad.jpg", "out.npz"]


def test_parquet_has_a_row_per_image(artifact, paths, matcher, bad, tmp_path):
    run("embed", artifact, *paths, bad, "--output", tmp_path / "out.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert table["image"].to_pylist() == paths
    np.testing.assert_allclose(table["embedding"].to_pylist(), matcher.embed_images(paths), atol=1e-6)
    assert list(json.loads(table.schema.metadata[b"failed"])) == [bad]


def test_output_that_cannot_be_written_is_refused_before_the_model_is_loaded(paths, tmp_path, monkeypatch):
    assert ".parquet" in json.loads(run("embed", "no-artifact", *paths, "--output", tmp_path / "out.csv", "--json").stdout)["error"]
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    error = json.loads(run("embed", "no-artifact", *paths, "--output", tmp_path / "out.parquet", "--json").stdout)
    assert error["code"] == "DEPENDENCY_MISSING"
    assert "blip-toolkit[dataset]" in error["error"]


def test_without_a_readable_image_nothing_is_written(artifact, bad, tmp_path):
    assert run("embed", artifact, bad, "--output", tmp_path / "out.npz").exit_code == 1
    assert not (tmp_path / "out.npz").exists()
