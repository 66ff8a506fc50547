"""`toolkit tune` and `toolkit sensitivity`: results on stdout, files, and one-line errors."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from exporters.gate.labelled_image import LabelledImage
from exporters.recipes import find_recipe
from toolkit.cli import main


def run(*arguments):
    return CliRunner().invoke(main, [*map(str, arguments)], prog_name="toolkit")


def dataset(folder: Path, images: list[LabelledImage]) -> Path:
    """Write a captions.json of images elsewhere."""
    folder.mkdir()
    entries = [{"file": str(image.path), "captions": list(image.texts)} for image in images]
    (folder / "captions.json").write_text(json.dumps({"images": entries}))
    return folder


@pytest.mark.full
def test_a_recipe_file_is_written_with_its_candidates(tiny_checkpoint, drawn_images, tmp_path):
    search, confirm, output = (
        dataset(tmp_path / "search", drawn_images[:3]),
        dataset(tmp_path / "confirm", drawn_images[3:]),
        tmp_path / "my.json",
    )
    options = ("--dataset", search, "--confirm", confirm, "--output", output, "--threads", 1)
    result = run("tune", tiny_checkpoint, "--budget", "drift<=0.05", "--json", *options)
    assert result.exit_code == 0, result.stderr
    printed = json.loads(result.stdout)
    assert printed["verdict"] in ("met", "met on average")
    assert printed["recipe"] == str(output)
    assert printed["evaluations"] <= 20
    assert find_recipe(str(output)).name == "onnx-int8-tuned"
    assert (tmp_path / "my.candidates.jsonl").read_text().count("\n") > 3
    before = output.read_bytes()
    refused = run("tune", tiny_checkpoint, "--budget", "drift<=0.05", *options)
    assert (refused.exit_code, output.read_bytes()) == (1, before)
    impossible = run("tune", tiny_checkpoint, "--budget", "drift<=0.05", "--budget", "size<=1kB", *options, "--overwrite")
    assert (impossible.exit_code, impossible.stdout) == (1, "")
    assert "the smallest artifact has" in impossible.stderr.splitlines()[-1]
    assert output.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--budget", "drift<0.1"), "is no budget"),
        (("--budget", "size<=1MB"), "a budget for drift is needed"),
        (("--budget", "drift<=0.1", "--dataset", "sample"), "the sets must have different images"),
        (("--budget", "drift<=0.1", "--confirm", "missing.json"), "cannot be read"),
        (("--budget", "drift<=0.1", "--recipe", "onnx-int3"), "unknown recipe"),
    ],
)
def test_bad_input_is_one_line(tiny_checkpoint, tmp_path, arguments, problem):
    result = run("tune", tiny_checkpoint, "--output", tmp_path / "my.json", *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert problem in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.full
def test_layers_are_printed_and_a_page_is_written(tiny_checkpoint, drawn_images, tmp_path):
    images = dataset(tmp_path / "images", drawn_images[:2])
    options = ("--recipe", "onnx-int8", "--dataset", images, "--output", tmp_path / "layers.jsonl", "--threads", 1)
    result = run("sensitivity", tiny_checkpoint, *options, "--report", tmp_path / "layers.html")
    assert result.exit_code == 0, result.stderr
    head, titles, *rows = result.stdout.splitlines()
    assert head.startswith("onnx-int8 on 2 images")
    assert "all except it" in titles
    assert len(rows) == 27
    assert "<svg" in (tmp_path / "layers.html").read_text()
    again = json.loads(run("sensitivity", tiny_checkpoint, *options, "--json").stdout)
    assert {row["layer"] for row in again["layers"]} == {row.rsplit(", ", 1)[1] for row in rows}
