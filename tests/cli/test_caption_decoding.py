"""`toolkit caption` and `toolkit bench`: each setting of `GenerationConfig` has an option, with the result of the Python API."""

import json
import shutil
from dataclasses import fields

import pytest
from click.testing import CliRunner

import runtimes
from runtimes.artifact.generation import SAMPLING_SETTINGS, GenerationConfig
from tests.cli.test_caption import errors_of, run
from toolkit.cli import main
from toolkit.commands import bench, caption
from toolkit.records.record_file import read_records
from toolkit.report.reproduction import commands

OPTIONS = [
    (["--num-beams", 3, "--early-stopping", "true"], {"num_beams": 3, "early_stopping": True}),
    (["--num-beams", 3, "--early-stopping", "never"], {"num_beams": 3, "early_stopping": "never"}),
    (["--bad-words", "a dog", "--bad-words", "two"], {"bad_words_ids": ["a dog", "two"]}),
    (["--bad-words", "two", "--bad-words-ids", "7,12", "--bad-words-ids", "9"], {"bad_words_ids": [[7, 12], [9], "two"]}),
    (["--bad-words-ids", ""], {"bad_words_ids": []}),
    (["--suppress-tokens", ""], {"suppress_tokens": []}),
]


@pytest.fixture(scope="module")
def sampling(tiny_artifacts, tmp_path_factory):
    """An artifact of a checkpoint that samples, with bad words and suppressed tokens."""
    folder = tmp_path_factory.mktemp("sampling") / "artifact"
    shutil.copytree(tiny_artifacts["onnx-fp32"], folder)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    manifest["defaults"] |= {"do_sample": True, "temperature": 3.0, "bad_words_ids": [[5], [6]], "suppress_tokens": [7, 8]}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


@pytest.mark.parametrize(("options", "settings"), OPTIONS, ids=str)
def test_options_have_the_result_of_the_settings(sampling, drawn_images, options, settings):
    path = drawn_images[0].path
    row = json.loads(run(sampling, path, *options, "--no-do-sample", "--json").stdout)
    with runtimes.load(sampling) as captioner:
        words = settings.pop("bad_words_ids", None)
        if words is not None:
            settings["bad_words_ids"] = [captioner.tokenizer.prompt_ids(word)[1:] if isinstance(word, str) else word for word in words]
        (expected,) = captioner.caption(path, do_sample=False, **settings)
    assert row["token_ids"] == list(expected.token_ids)


def test_a_checkpoint_that_samples_can_be_run_without(sampling, drawn_images):
    lines = {run(sampling, drawn_images[0].path, "--no-do-sample").stdout for _ in range(3)}
    assert len(lines) == 1
    assert len({run(sampling, drawn_images[0].path).stdout for _ in range(4)}) > 1


def test_beams_that_sample_are_refused_with_the_cure(sampling, drawn_images):
    (error,) = errors_of(run(sampling, drawn_images[0].path, "--num-beams", 2))
    assert "--no-do-sample" in error


@pytest.mark.parametrize("word", ["", " "])
def test_a_bad_word_without_tokens_is_refused(sampling, drawn_images, word):
    (error,) = errors_of(run(sampling, drawn_images[0].path, "--bad-words", word))
    assert repr(word) in error


def test_every_setting_has_an_option():
    settings = {field.name for field in fields(GenerationConfig)}
    for command, missing in ((caption.command, set()), (bench.command, set(SAMPLING_SETTINGS))):
        assert settings - {parameter.name for parameter in command.params} == missing


@pytest.mark.full
def test_a_benchmark_has_the_options_and_repeats_them(sampling, tiny_checkpoint, drawn_images, tmp_path):
    output = tmp_path / "records.jsonl"
    shutil.copy(drawn_images[0].path, tmp_path)
    options = ["--bad-words-ids", "9,4", "--bad-words", "two", "--early-stopping", "never", "--num-beams", "2", "--max-length", "9"]
    arguments = [sampling, "--checkpoint", tiny_checkpoint, "--images", tmp_path, "--repeat", 1, "--threads", 1, "--warmup", 1, *options]
    result = CliRunner().invoke(main, ["bench", *map(str, arguments), "--output", str(output)], prog_name="toolkit")
    assert result.exit_code == 0, result.output
    artifact, baseline = sorted(read_records(output), key=lambda record: record.case, reverse=True)
    work, two = artifact.workload, runtimes.load(sampling).tokenizer.prompt_ids("two")[1:]
    assert (work.max_length, work.num_beams, work.generation["bad_words_ids"]) == (9, 2, [[9, 4], two])
    assert (work.generation["do_sample"], work.generation["early_stopping"]) == (False, "never")
    assert [image.caption for image in artifact.quality] == [image.caption for image in baseline.quality]
    bench_line = commands([artifact])[-2]
    assert f"--max-length 9 --bad-words-ids 9,4 --bad-words-ids {two[0]} --suppress-tokens 7,8" in bench_line.replace(
        "--early-stopping never ", ""
    )
    assert "sample" not in bench_line


def test_forced_tokens_exclude_lengths(sampling, drawn_images):
    arguments = ["bench", str(sampling), "--images", str(drawn_images[0].path.parent), "--tokens", "5", "--max-length", "9"]
    result = CliRunner().invoke(main, arguments, prog_name="toolkit")
    assert result.exit_code == 1
    assert "--max-length" in result.stderr
