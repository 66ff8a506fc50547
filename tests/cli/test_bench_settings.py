"""`toolkit bench` over settings: forced tokens, a prompt, and sweeps of threads, batches, lengths and beams."""

import json
import shutil

import pytest

import runtimes
from tests.cli.run_bench import PROMPT, run
from toolkit.records.record_file import read_records
from toolkit.tables.render import RENDERERS


@pytest.mark.full
def test_forced_tokens_and_a_folder_of_images(tiny_artifacts, tiny_checkpoint, drawn_images, tmp_path):
    for image in drawn_images[:2]:
        shutil.copy(image.path, tmp_path)
    output = tmp_path / "r.jsonl"
    arguments = ("--images", tmp_path, "--tokens", 5, "--repeat", 1, "--warmup", 1, "--threads", 1, "--output", output, "--format", "json")
    result = run(tiny_artifacts["onnx-fp32"], tiny_artifacts["onnx-int8"], "--checkpoint", tiny_checkpoint, *arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    rows = json.loads(result.stdout)["rows"]
    assert [row["tokens_per_image"] for row in rows] == [5.0] * 3
    assert {image.tokens for record in read_records(output) for image in record.quality} == {5}
    assert [row["exact_match"] for row in rows[:2]] == [1.0, 1.0]
    unscored = ("bleu1", "bleu4", "cider", "rouge_l", "drift", "bleu4_change", "cider_change", "verdict")
    assert [(row["case"], key) for row in rows for key in unscored if row[key] is not None] == []
    work = json.loads(result.stdout)["workload"]
    assert (work["forced_tokens"], work["max_length"], work["metric_counter"]) == (5, None, None)


@pytest.mark.full
@pytest.mark.parametrize(("prompt", "given"), [((), 1), (("--prompt", PROMPT), 4)])
def test_forced_tokens_are_generated_tokens(tiny_artifacts, tiny_checkpoint, drawn_images, tmp_path, prompt, given):
    """With and without a prompt, --tokens is the number of tokens after [DEC] and the prompt."""
    shutil.copy(drawn_images[0].path, tmp_path)
    output = tmp_path / "r.jsonl"
    arguments = ("--images", tmp_path, "--tokens", "3,6", *prompt, "--repeat", 1, "--warmup", 1, "--threads", 1, "--output", output)
    result = run(tiny_artifacts["onnx-int8"], "--checkpoint", tiny_checkpoint, *arguments, "--format", "json")
    assert (result.exit_code, result.stderr) == (0, "")
    records, report = read_records(output), json.loads(result.stdout)
    assert [(record.workload.forced_tokens, record.quality[0].tokens) for record in records] == [(3, 3), (3, 3), (6, 6), (6, 6)]
    assert [(row["setting"], row["forced_tokens"], row["tokens_per_image"]) for row in report["rows"]][::2] == [
        ("3tok", 3, 3),
        ("6tok", 6, 6),
    ]
    assert [row["value"] for row in report["growth"] if row["case"] == "onnx-int8"] == [3, 6]
    captioner = runtimes.load(tiny_artifacts["onnx-int8"])
    length = given + 3
    (caption,) = captioner.caption(
        [tmp_path / drawn_images[0].path.name], prompt=prompt[1] if prompt else None, min_length=length, max_length=length
    )
    assert records[1].quality[0].caption == caption.text


@pytest.fixture(scope="module")
def sweep(tiny_artifacts, tiny_checkpoint, drawn_images, tmp_path_factory):
    """One run with two batch sizes, and forced and natural lengths, on five images of which the second is unreadable."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "images").mkdir()
    for image in drawn_images[:4]:
        shutil.copy(image.path, folder / "images")
    (folder / "images" / "drawn-00b.png").write_bytes(b"no image")
    arguments = ("--images", folder / "images", "--repeat", 2, "--warmup", 1, "--threads", 1, "--output", folder / "r.jsonl")
    result = run(tiny_artifacts["onnx-fp32"], "--checkpoint", tiny_checkpoint, "--batch-size", "1,3", "--tokens", "4,natural", *arguments)
    return result, read_records(folder / "r.jsonl")


@pytest.mark.full
def test_a_sweep_runs_every_combination_with_its_baseline(sweep):
    result, records = sweep
    assert (result.exit_code, result.stderr) == (0, "")
    ran = [(record.repeat, record.workload.batch_size, record.workload.forced_tokens, record.case) for record in records]
    assert ran == [
        (repeat, size, forced, case) for repeat in (0, 1) for size in (1, 3) for forced in (4, None) for case in ("hf-fp32", "onnx-fp32")
    ]
    assert [len(record.times) for record in records if record.repeat == 1] == [5] * 4 + [2] * 4
    assert result.stdout == RENDERERS["md"](records)
    names = [line.split("|")[1].strip(" !") for line in result.stdout.splitlines()[2:10]]
    assert names == [f"{case} {label}" for label in ("b1 4tok", "b1 natural", "b3 4tok", "b3 natural") for case in ("hf-fp32", "onnx-fp32")]


@pytest.mark.full
def test_captions_equal_the_baselines_for_each_batch_size(sweep):
    """With FP32, batches do not change captions, of the artifact nor of transformers; the unreadable image is an error in each."""
    _, records = sweep
    captions_of = {
        (r.workload.forced_tokens, r.workload.batch_size, r.case): [p.caption for p in r.quality] for r in records if r.repeat == 0
    }
    for forced in (4, None):
        assert len({tuple(captions) for (length, *_), captions in captions_of.items() if length == forced}) == 1
    assert {tuple(image.error is None for image in record.quality) for record in records if record.repeat == 0} == {
        (True, False, True, True, True)
    }


@pytest.mark.full
def test_a_sweep_has_growth_and_components(sweep, tiny_artifacts):
    _, records = sweep
    report = json.loads(RENDERERS["json"](records))
    lines = [(case, at, value) for at in ("t1 4tok", "t1 natural") for case in ("hf-fp32", "onnx-fp32") for value in (1, 3)]
    assert [(row["case"], row["fixed"], row["value"]) for row in report["growth"]] == lines
    (components,) = report["components"]
    sizes = {file.stem.rpartition("-")[0] or file.stem: file.stat().st_size for file in tiny_artifacts["onnx-fp32"].iterdir()}
    assert components == {"case": "onnx-fp32", **sizes, "total": sum(sizes.values())}


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ("--batch-size=1,x", "'x' is not a positive integer."),
        ("--batch-size=0", "'0' is not a positive integer."),
        ("--threads=1,,2", "'' is not a positive integer."),
        ("--tokens=5,-1", "'-1' is not a positive integer."),
        ("--tokens=five", "'five' is not a positive integer."),
    ],
)
def test_invalid_lists_are_refused(tiny_artifacts, option, problem):
    result = run(tiny_artifacts["onnx-fp32"], option)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.rstrip().endswith(problem)
