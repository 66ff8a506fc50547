"""`toolkit caption`: which images it takes, how it decodes them, and which rows it repeats."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from click.testing import CliRunner
from PIL import Image

from tests.cli.test_caption import errors_of, lines_of, names_in, run
from toolkit.cli import main

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
            assert (result.exit_code, result.stdout) == (0, "")
            assert result.stderr.startswith("1 of 3 names are repeated")
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
    assert json.loads(refused.stdout)["code"] == "IMAGE_TOO_LARGE"
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


def test_repeated_names_are_counted(artifact, images, tmp_path):
    """A file has one row for each image, so that it can be resumed."""
    names = [str(images / name) for name in ("1.png", "2.PNG")]
    (tmp_path / "list").write_text("\n".join([names[0], names[0], names[1], names[0]]))
    result = run(artifact, "--from-file", tmp_path / "list", "--output", tmp_path / "captions.txt", "--processes", "1")
    assert (result.exit_code, len((tmp_path / "captions.txt").read_text().splitlines())) == (0, 2)
    assert "2 of 4 names are repeated" in result.stderr
