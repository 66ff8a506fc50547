"""`toolkit caption`: stdout, stderr and output files, and errors of images and requests."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import runtimes
from toolkit.cli import main

PROMPT = "a picture of"


def run(*arguments):
    return CliRunner().invoke(main, ["caption", *map(str, arguments)], prog_name="toolkit")


def names_in(folder):
    return sorted(file.name for file in folder.iterdir())


def lines_of(captioner, paths, **options):
    captions = captioner.caption([str(path) for path in paths], **options)
    return [f"{path}\t{caption.text}" for path, caption in zip(paths, captions, strict=True)]


def errors_of(result):
    """Return the lines of stderr without "Error: "; every line must be an error."""
    assert "Traceback" not in result.stderr
    lines = result.stderr.splitlines()
    assert [line for line in lines if not line.startswith("Error: ")] == []
    return [line.removeprefix("Error: ") for line in lines]


def test_text_lines(artifact, captioner, drawn_images):
    paths = [image.path for image in drawn_images]
    result = run(artifact, *paths)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == lines_of(captioner, paths)
    assert len({line.split("\t")[1] for line in result.stdout.splitlines()}) > 8, "captions differ between images"


@pytest.mark.parametrize(
    "options",
    [
        {"prompt": PROMPT},
        {"num_beams": 3},
        {"min_length": 9, "max_length": 9},
        {"max_length": 5, "batch_size": 3},
        {"max_new_tokens": 5, "num_beams": 3},
        {"repetition_penalty": 1.5},
        {"no_repeat_ngram_size": 1, "length_penalty": 2.0},
        {"prompt": PROMPT, "num_beams": 2, "min_length": 8, "max_length": 12, "batch_size": 16},
    ],
    ids=str,
)
def test_options_reach_the_search(artifact, captioner, drawn_images, options):
    paths = [image.path for image in drawn_images[:5]]
    arguments = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
    result = run(artifact, *paths, *arguments, "--threads", 1)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == lines_of(captioner, paths, **options)
    assert result.stdout.splitlines() != lines_of(captioner, paths), "these options change something"


def test_json_lines(artifact, captioner, drawn_images):
    paths = [str(image.path) for image in drawn_images[:3]]
    result = run(artifact, *paths, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    captions = captioner.caption(paths)
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        {
            "image": path,
            "caption": caption.text,
            "token_ids": list(caption.token_ids),
            "score": caption.score,
            "finish_reason": caption.finish_reason,
        }
        for path, caption in zip(paths, captions, strict=True)
    ]


def test_every_line_of_stdout_is_json_with_all_log_messages_on(artifact, captioner, images):
    command = [sys.executable, "-m", "toolkit.cli", "-vv", "caption", artifact, str(images), "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    first, second, bad, third = [json.loads(line) for line in ended.stdout.splitlines()]
    assert list(bad) == ["image", "error", "code"]
    assert bad["image"] == str(images / "bad.jpg")
    assert (bad["error"].startswith(f"{images / 'bad.jpg'}: "), bad["code"]) == (True, "IMAGE_UNREADABLE")
    for row, name in ((first, "1.png"), (second, "2.PNG"), (third, "deep/3.png")):
        assert list(row) == ["image", "caption", "token_ids", "score", "finish_reason"]
        assert (row["image"], row["caption"]) == (str(images / name), captioner.caption([images / name])[0].text)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert [line for line in ended.stderr.splitlines() if line.startswith("Error: ")] == [
        f"Error: {bad['error']}",
        "Error: 1 of 4 images could not be captioned",
    ]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["{}"], ["1.png", "2.PNG", "bad.jpg", "deep/3.png"]),
        (["{}/deep"], ["deep/3.png"]),
        (["{}/?.png"], ["1.png"]),
        (["{}/**/*.png"], ["1.png", "deep/3.png"]),
        (["{}/deep", "{}/[12].*", "{}/1.png"], ["deep/3.png", "1.png", "2.PNG"]),
    ],
    ids=str,
)
def test_folders_and_globs(artifact, captioner, images, names, expected):
    result = run(artifact, *(name.format(images) for name in names))
    readable = [images / name for name in expected if name != "bad.jpg"]
    assert result.stdout.splitlines() == lines_of(captioner, readable)
    assert result.exit_code == (1 if "bad.jpg" in expected else 0)


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_unreadable_images_are_errors_and_the_others_are_captioned(artifact, captioner, images, tmp_path, batch_size):
    good, bad, missing, empty = images / "1.png", images / "bad.jpg", tmp_path / "none.png", tmp_path / "empty.png"
    empty.touch()
    last = images / "2.PNG"
    result = run(artifact, good, bad, missing, images / "notes.txt", empty, last, "--batch-size", batch_size)
    assert result.exit_code == 1
    assert result.stdout.splitlines() == lines_of(captioner, [good, last])
    *errors, summary = errors_of(result)
    facts = ("", "no such file", "JPEG, PNG, ", "empty")
    for error, path, fact in zip(errors, (bad, missing, images / "notes.txt", empty), facts, strict=True):
        assert error.startswith(f"{path}: ")
        assert fact in error
    assert "4 of 6" in summary


def test_json_lines_of_unreadable_images_are_in_the_order_of_the_images(artifact, images, tmp_path):
    output = tmp_path / "lines.jsonl"
    result = run(artifact, images / "1.png", images / "bad.jpg", images / "2.PNG", "--json", "--output", output)
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [Path(row["image"]).name for row in rows] == ["1.png", "bad.jpg", "2.PNG"]
    assert [list(row) for row in rows] == [
        ["image", "caption", "token_ids", "score", "finish_reason"],
        ["image", "error", "code"],
        ["image", "caption", "token_ids", "score", "finish_reason"],
    ]
    assert (result.exit_code, result.stdout) == (1, "")
    assert errors_of(result) == [rows[1]["error"], "1 of 3 images could not be captioned"]


def test_strip_prompt(artifact, captioner, drawn_images):
    paths = [str(image.path) for image in drawn_images[:4]]
    whole, stripped = run(artifact, *paths, "--prompt", PROMPT), run(artifact, *paths, "--prompt", PROMPT, "--strip-prompt")
    captions = [line.split("\t")[1] for line in whole.stdout.splitlines()]
    assert all(caption.startswith(PROMPT) for caption in captions)
    assert [line.split("\t")[1] for line in stripped.stdout.splitlines()] == [caption.removeprefix(PROMPT).strip() for caption in captions]
    as_json = run(artifact, paths[0], "--prompt", PROMPT, "--strip-prompt", "--json")
    row = json.loads(as_json.stdout)
    assert row["caption"] == captions[0].removeprefix(PROMPT).strip()
    assert row["token_ids"] == list(captioner.caption(paths[:1], prompt=PROMPT)[0].token_ids), "the ids stay whole"


def test_output_file(artifact, captioner, drawn_images, tmp_path):
    paths, output = [image.path for image in drawn_images[:2]], tmp_path / "captions.txt"
    result = run(artifact, *paths, "--output", output)
    assert (result.exit_code, result.output) == (0, "")
    assert output.read_text().splitlines() == lines_of(captioner, paths)
    kept = output.read_bytes()

    refused = run(artifact, paths[0], "--output", output)
    assert (refused.exit_code, refused.stdout) == (1, "")
    (error,) = errors_of(refused)
    assert error.startswith(f"{output}: ")
    assert "--overwrite" in error
    assert output.read_bytes() == kept

    assert run(artifact, paths[0], "--output", output, "--overwrite").exit_code == 0
    assert output.read_text().splitlines() == lines_of(captioner, paths[:1])
    assert names_in(tmp_path) == ["captions.txt", "captions.txt.meta"]


@pytest.mark.parametrize(
    ("arguments", "code", "facts"),
    [
        (["{tmp}/none", "{image}"], "ARTIFACT_MISSING", ["{tmp}/none: ", "toolkit export CHECKPOINT"]),
        (["{artifact}", "{tmp}"], "REQUEST_INVALID", ["{tmp}: ", "no images"]),
        (["{artifact}", "{tmp}/*.jpg"], "REQUEST_INVALID", ["{tmp}/*.jpg: ", "no images"]),
        (["{artifact}", "{image}", "--output", "{tmp}/none/c.txt"], "OUTPUT_UNWRITABLE", ["{tmp}/none/c.txt: ", "no folder {tmp}/none"]),
        (["{artifact}", "{image}", "--max-length", "33"], "REQUEST_INVALID", ["max_length", "33", "32"]),
        (["{artifact}", "{image}", "--min-length", "21"], "REQUEST_INVALID", ["min_length", "max_length"]),
        (["{artifact}", "{image}", "--prompt", PROMPT, "--max-length", "4"], "REQUEST_INVALID", ["prompt", "4 tokens", "max_length"]),
        (["{artifact}", "{image}", "--num-beams", "32"], "REQUEST_INVALID", ["32 beams", "64"]),
    ],
    ids=lambda value: " ".join(value[2:]) if isinstance(value, list) else "",
)
def test_an_invalid_request_is_a_one_line_error(artifact, drawn_images, tmp_path, arguments, code, facts):
    names = {"artifact": artifact, "image": str(drawn_images[0].path), "tmp": str(tmp_path)}
    result = run(*(argument.format(**names) for argument in arguments), "--json")
    error = json.loads(result.stdout)
    assert (result.exit_code, error["code"], errors_of(result)) == (1, code, [error["error"]])
    assert [fact for fact in facts if fact.format(**names) not in error["error"]] == []
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("recipe", "fact"),
    [
        ("onnx-fp32", "CUDAExecutionProvider"),
        ("onnx-fp16", "CUDAExecutionProvider"),
        ("pytorch-fp32", "--device cpu"),
    ],
)
def test_a_required_gpu_that_is_missing_is_a_one_line_error(tiny_artifacts, drawn_images, recipe, fact):
    result = run(tiny_artifacts[recipe], drawn_images[0].path, "--device", "cuda")
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = errors_of(result)
    assert fact in line


def test_a_folder_of_artifacts(tiny_artifacts, drawn_images, tmp_path):
    folder = tmp_path / "artifacts"
    for recipe in ("onnx-fp32", "onnx-int8"):
        shutil.copytree(tiny_artifacts[recipe], folder / tiny_artifacts[recipe].name)
    result = CliRunner().invoke(main, ["-v", "caption", str(folder), str(drawn_images[0].path), "--json"])
    assert json.loads(result.stdout)["score"] == runtimes.load(tiny_artifacts["onnx-int8"]).caption([drawn_images[0].path])[0].score
    (line,) = result.stderr.splitlines()
    assert line.startswith("INFO using tiny-onnx-int8: ")
    refused = run(folder, drawn_images[0].path, "--device", "cuda")
    (error,) = errors_of(refused)
    assert error.startswith(f"{folder}: ")
    assert "tiny-onnx-fp32, tiny-onnx-int8" in error
    assert "'cuda'" in error


def test_a_damaged_artifact_is_a_one_line_error(tiny_artifacts, drawn_images, tmp_path):
    damaged = shutil.copytree(tiny_artifacts["onnx-fp32"], tmp_path / "damaged")
    (encoder,) = damaged.glob("encoder-*.onnx")
    content = bytearray(encoder.read_bytes())
    content[len(content) // 2] ^= 1
    encoder.write_bytes(content)
    result = run(damaged, drawn_images[0].path)
    assert (result.exit_code, result.stdout) == (1, "")
    (error,) = errors_of(result)
    assert error.startswith(f"{encoder}: ")
    assert "sha256" in error


@pytest.mark.parametrize("batch_size", [1, 2])
def test_any_number_of_workers_writes_the_same_bytes(artifact, images, tmp_path, batch_size):
    """One of the images is unreadable."""
    written = {}
    for workers in (0, 1, 4):
        output = tmp_path / f"{workers}.jsonl"
        result = run(artifact, images, "--json", "--batch-size", batch_size, "--workers", workers, "--output", output)
        assert (result.exit_code, len(errors_of(result))) == (1, 2)
        written[workers] = output.read_bytes()
    assert written[0] == written[1] == written[4]
    assert [list(json.loads(line))[1] for line in written[0].splitlines()] == ["caption", "caption", "error", "caption"]
