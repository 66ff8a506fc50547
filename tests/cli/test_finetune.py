"""`toolkit finetune`: what it prints, and one line for each error."""

import json

import pytest
from click.testing import CliRunner

from toolkit.cli import main


@pytest.fixture
def captions(drawn_images, tmp_path):
    """A captions.json of the drawn images."""
    entries = [{"file": str(image.path), "captions": list(image.texts)} for image in drawn_images]
    file = tmp_path / "captions.json"
    file.write_text(json.dumps({"images": entries}))
    return file


def finetune(checkpoint, captions, output, *options):
    arguments = [
        "finetune",
        str(checkpoint),
        "--recipe",
        "onnx-int4",
        "--dataset",
        str(captions),
        "--output",
        str(output),
        "--threads",
        "1",
    ]
    return CliRunner().invoke(main, [*arguments, *options])


def test_the_path_is_the_only_output_on_stdout(tiny_checkpoint, captions, tmp_path):
    result = finetune(tiny_checkpoint, captions, tmp_path / "tuned", "--epochs", "1", "--batch-size", "8")
    assert result.exit_code == 0
    assert result.stdout == f"{tmp_path / 'tuned'}\n"
    assert "held-out images" in result.stderr
    assert (tmp_path / "tuned" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--recipe", "onnx-fp32"], "nothing to fine-tune"),
        (["--recipe", "no-such-recipe"], "unknown recipe"),
        (["--limit", "3"], "at least 8"),
        (["--dataset", "no-such-file.json"], "cannot be read"),
    ],
)
def test_an_error_is_one_line(options, words, tiny_checkpoint, captions, tmp_path):
    result = finetune(tiny_checkpoint, captions, tmp_path / "tuned", *options)
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert len(lines) == 1
    assert words in lines[0]
    assert not (tmp_path / "tuned").exists()


def test_a_dataset_without_captions_is_refused(tiny_checkpoint, drawn_images, tmp_path):
    file = tmp_path / "captions.json"
    file.write_text(json.dumps({"images": [{"file": str(image.path), "captions": []} for image in drawn_images]}))
    result = finetune(tiny_checkpoint, file, tmp_path / "tuned")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "none of its images has captions" in result.stderr
    assert not (tmp_path / "tuned").exists()


def test_an_existing_folder_is_not_replaced(tiny_checkpoint, captions, tmp_path):
    result = finetune(tiny_checkpoint, captions, tmp_path)
    assert result.exit_code == 1
    assert "exists already" in result.stderr
