"""`toolkit caption`: stdout, stderr and output files, and errors of images and requests."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

import runtimes
from toolkit.cli import main

PROMPT = "a picture of"


@pytest.fixture(scope="module")
def artifact(tiny_artifacts):
    return str(tiny_artifacts["onnx-fp32"])


@pytest.fixture(scope="module")
def captioner(artifact):
    return runtimes.load(artifact)


@pytest.fixture
def images(drawn_images, tmp_path):
    """A folder with 1.png, 2.PNG, deep/3.png, notes.txt, and bad.jpg, a truncated image."""
    folder = tmp_path / "images"
    (folder / "deep").mkdir(parents=True)
    for image, name in zip(drawn_images, ("1.png", "2.PNG", "deep/3.png"), strict=False):
        shutil.copy(image.path, folder / name)
    (folder / "notes.txt").write_text("no image")
    whole = drawn_images[0].path.read_bytes()
    (folder / "bad.jpg").write_bytes(whole[: len(whole) // 2])
    return folder


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
    one, two, bad, three = [json.loads(line) for line in ended.stdout.splitlines()]
    assert list(bad) == ["image", "error", "code"]
    assert bad["image"] == str(images / "bad.jpg")
    assert (bad["error"].startswith(f"{images / 'bad.jpg'}: "), bad["code"]) == (True, "IMAGE_UNREADABLE")
    for row, name in ((one, "1.png"), (two, "2.PNG"), (three, "deep/3.png")):
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


ODD_NAMES = [
    ("line\nbreak\t.png", "'{}/line\\nbreak\\t.png'"),
    (os.fsdecode(b"caf\xe9.png"), "'{}/caf\\udce9.png'"),
    ("日本.png", "{}/日本.png"),
]
"""(file name, its text in a line of output)."""


@pytest.mark.parametrize(("name", "shown"), ODD_NAMES, ids=ascii)
def test_odd_file_names(artifact, captioner, drawn_images, tmp_path, name, shown):
    folder, output = tmp_path / "odd", tmp_path / "lines"
    folder.mkdir()
    shutil.copy(drawn_images[0].path, folder / name)
    caption = captioner.caption([folder / name])[0]
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    command = [sys.executable, "-m", "toolkit.cli", "caption", artifact, str(folder)]
    text = subprocess.run(command, capture_output=True, check=False, env=strict)
    assert (text.returncode, text.stdout.decode(), text.stderr) == (0, f"{shown.format(folder)}\t{caption.text}\n", b"")
    result = run(artifact, folder, "--json", "--output", output)
    assert (result.exit_code, result.output) == (0, "")
    row = json.loads(output.read_text(encoding="utf-8"))
    assert (row["image"], row["caption"], row["score"]) == (str(folder / name), caption.text, caption.score)


def test_a_full_disk_is_a_one_line_error_and_the_old_output_stays(artifact, drawn_images, tmp_path):
    output = tmp_path / "captions.txt"
    output.write_text("old")
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (4, 4)); from toolkit.cli import main; main(sys.argv[1:])"
    arguments = ["caption", artifact, str(drawn_images[0].path), "--output", str(output), "--overwrite"]
    ended = subprocess.run([sys.executable, "-c", limited, *arguments], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"Error: {output}: ")
    assert "File too large" in line
    assert output.read_text() == "old"
    assert names_in(tmp_path) == ["captions.txt"]


def test_a_pipe_is_not_replaced_by_a_file(artifact, drawn_images, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    result = run(artifact, drawn_images[0].path, "--output", pipe, "--overwrite")
    assert result.exit_code == 1
    (error,) = errors_of(result)
    assert error.startswith(f"{pipe}: ")
    assert "not a regular file" in error
    assert pipe.is_fifo()


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


class TestFromFile:
    @pytest.fixture
    def paths(self, images):
        return [str(images / name) for name in ("2.PNG", "bad.jpg", "1.png")]

    def test_paths_of_a_list_come_after_those_of_the_command_line(self, artifact, captioner, images, paths, tmp_path):
        (tmp_path / "list").write_text("\n".join(paths))
        result = run(artifact, images / "deep", "--from-file", tmp_path / "list")
        assert result.stdout.splitlines() == lines_of(captioner, [images / "deep" / "3.png", paths[0], paths[2]])
        assert (result.exit_code, errors_of(result)[-1]) == (1, "1 of 4 images could not be captioned")

    def test_a_list_from_stdin_with_an_output_file_that_is_resumed(self, artifact, captioner, paths, tmp_path):
        output, paths_text = tmp_path / "captions.txt", "\0".join([paths[0], paths[2], paths[0]])
        for more in ([], ["--resume"]):
            arguments = ["caption", artifact, "--from-file", "-", "--output", str(output), *more]
            result = CliRunner().invoke(main, arguments, input=paths_text)
            assert (result.exit_code, result.output) == (0, "")
            assert output.read_text().splitlines() == lines_of(captioner, [paths[0], paths[2]])

    def test_captions_are_printed_while_the_list_is_written(self, artifact, captioner, paths):
        """The writer waits for each caption. A repeated path is captioned again, since its file may have changed."""
        command = [sys.executable, "-m", "toolkit.cli", "caption", artifact, "--from-file", "-", "--workers", "0"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
            for path in (paths[0], paths[2], paths[0]):
                process.stdin.write(f"{path}\n".encode())
                assert process.stdout.readline().decode() == f"{lines_of(captioner, [path])[0]}\n"
            process.stdin.close()
            assert process.stdout.read() == b""
        assert process.returncode == 0

    @pytest.mark.parametrize(
        ("content", "code", "fact"),
        [(None, 1, "No such file"), ("", 1, "no image"), ("\n\n", 1, "no image")],
        ids=["missing", "empty", "blank"],
    )
    def test_a_list_without_images_is_a_one_line_error(self, artifact, tmp_path, content, code, fact):
        if content is not None:
            (tmp_path / "list").write_text(content)
        result = run(artifact, "--from-file", tmp_path / "list", "--json")
        (line,) = errors_of(result)
        assert (result.exit_code, json.loads(result.stdout)) == (code, {"error": line, "code": "REQUEST_INVALID"})
        assert line.startswith(f"{tmp_path / 'list'}: ")
        assert fact in line


def test_names_that_the_system_refuses_are_error_rows(artifact, images):
    names = ["x" * 300 + ".jpg", str(images / "1.png"), "y" * 5000 + ".png"]
    result = run(artifact, *names, "--json")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["image"] for row in rows] == names
    assert [row.get("code") for row in rows] == ["IMAGE_UNREADABLE", None, "IMAGE_UNREADABLE"]
    assert "File name too long" in rows[0]["error"]
    assert result.exit_code == 1
    first = run(names[0], str(images / "1.png"), artifact)  # as the first argument, where an artifact may be
    assert "Traceback" not in first.stderr


def test_image_files_that_are_left_out_are_counted_on_stderr(artifact, images):
    for name in ("a.jxl", "b.jxl", "deep/c.CR2", ".thumbs.jpg"):
        (images / name).touch()
    result = subprocess.run(
        [sys.executable, "-m", "toolkit.cli", "caption", artifact, str(images)], capture_output=True, text=True, check=False
    )
    assert "3 image files are left out, because their formats are not read: 1 .cr2, 2 .jxl" in result.stderr
    assert len(result.stdout.splitlines()) == 3


def test_a_large_jpeg_is_decoded_smaller_on_request(artifact, captioner, tmp_path):
    path = tmp_path / "large.jpg"
    Image.effect_noise((640, 480), 60).convert("RGB").save(path, quality=90)
    refused = run(artifact, path, "--max-pixels", 100_000, "--json")
    assert json.loads(refused.stdout)["code"] == "IMAGE_UNREADABLE"
    reduced = Image.open(path)
    reduced.draft(None, (320, 240))
    assert reduced.size == (320, 240)
    result = run(artifact, path, "--max-pixels", 100_000, "--reduce-large", "--json")
    row = json.loads(result.stdout)
    assert row["token_ids"] == list(captioner.caption(reduced)[0].token_ids)
    assert row["score"] == captioner.caption(reduced)[0].score


def test_error_rows_are_captioned_again_on_request(artifact, images, tmp_path):
    output, bad = tmp_path / "captions.jsonl", images / "bad.jpg"
    assert run(artifact, images, "--json", "--output", output).exit_code == 1
    stamp = bad.stat()
    whole = (images / "1.png").read_bytes()
    content = whole + bytes(max(0, stamp.st_size - len(whole)))
    bad.write_bytes(content)
    os.utime(bad, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    meta = output.with_name(f"{output.name}.meta")
    lines = [json.loads(line) for line in meta.read_text().splitlines()]
    for line in lines[1:]:  # the same size and time as before, as for an image behind a network share that failed
        if line["image"] == str(bad):
            line["stamp"] = [len(content), stamp.st_mtime_ns]
    meta.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert run(artifact, images, "--json", "--output", output, "--resume").exit_code == 1
    result = run(artifact, images, "--json", "--output", output, "--resume", "--retry-errors", "IMAGE_CRASH,IMAGE_UNREADABLE")
    assert result.exit_code == 0, result.stderr
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert not [row for row in rows if "error" in row]


@pytest.mark.parametrize(("options", "problem"), [(["--retry-errors", "IMAGE_CRASH"], "--resume"), (["--retry-errors", "NONE"], "NONE")])
def test_retry_errors_is_checked(artifact, images, options, problem):
    result = run(artifact, images, *options)
    assert result.exit_code in (1, 2)
    assert problem in result.stderr


def test_samples_of_an_image_are_alternatives(artifact, captioner, drawn_images):
    path = drawn_images[0].path
    options = ("--do-sample", "--seed", 3, "--temperature", 1.5, "--top-k", 10, "--top-p", 0.9, "--num-return-sequences", 3)
    row = json.loads(run(artifact, path, *options, "--json").stdout)
    settings = {"do_sample": True, "seed": 3, "temperature": 1.5, "top_k": 10, "top_p": 0.9, "num_return_sequences": 3}
    (best,) = captioner.caption(path, **settings)
    assert row["token_ids"] == list(best.token_ids)
    assert [other["token_ids"] for other in row["alternatives"]] == [list(other.token_ids) for other in best.alternatives]
    assert [list(other) for other in row["alternatives"]] == [["caption", "token_ids", "score", "finish_reason"]] * 2
    assert "needs --json" in errors_of(run(artifact, path, *options))[0]
