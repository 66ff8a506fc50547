"""The runner: the plan of cases, the record of a real run, and records of failures."""

import dataclasses
import json
import math
import os
import platform
import shutil
import signal

import psutil
import pytest
from safetensors.numpy import load_file, save_file

import runtimes
from exporters.gate.labelled_image import LabelledImage
from runtimes.artifact.folder import open_artifact
from runtimes.artifact.manifest import MANIFEST_NAME
from runtimes.errors import ArtifactMissingError, RequestError
from runtimes.host.facts import read_host
from toolkit.bench import runner
from toolkit.bench.cases import TransformersCase
from toolkit.bench.job import CaseJob
from toolkit.bench.runner import NO_GPU, OTHER_DEVICE, artifacts_in, host_facts, plan
from toolkit.bench.tasks.metrics import caption_metrics
from toolkit.datasets import Dataset
from toolkit.metrics.ngrams import NgramCounter, own_counter
from toolkit.metrics.ptb_words import words
from toolkit.records.record import Workload
from toolkit.records.record_file import read_records, write_records
from toolkit.stats.rows import make_rows

OWN = caption_metrics(NgramCounter("own", own_counter()))


def workload(images, **changes):
    usual = {
        "prompt": None,
        "num_beams": 1,
        "min_length": 0,
        "max_length": 20,
        "threads": 1,
        "warmup": 1,
        "repeats": 1,
        "metric_counter": "own",
    }
    return Workload(dataset="drawn", dataset_sha256="0" * 64, images=images, **usual | changes)


def run(artifacts, images, metrics=OWN, on_captions=lambda case, count: None, **changes):
    dataset = Dataset("drawn", tuple(images))
    return list(runner.run(plan(artifacts, None), dataset, [workload(len(dataset.images), **changes)], metrics, on_captions))


def changed(artifact, to, **fields):
    """Return a copy of an artifact with a changed manifest."""
    copy = shutil.copytree(artifact, to)
    manifest = dataclasses.replace(open_artifact(copy).manifest, **fields)
    (copy / MANIFEST_NAME).write_bytes(manifest.content)
    return copy


@pytest.fixture
def folder(tiny_artifacts, tmp_path):
    """A folder with two artifacts, a partial one of a killed writer, and a folder without an artifact."""
    for recipe in ("onnx-int8", "onnx-fp32"):
        shutil.copytree(tiny_artifacts[recipe], tmp_path / "all" / recipe)
    shutil.copytree(tiny_artifacts["onnx-fp16"], tmp_path / "all" / ".onnx-fp16.partial")
    (tmp_path / "all" / "notes").mkdir()
    return tmp_path / "all"


def test_paths_are_artifacts_or_folders_of_artifacts(folder):
    assert artifacts_in([folder]) == [folder / "onnx-fp32", folder / "onnx-int8"]
    assert artifacts_in([folder / "onnx-int8", folder / "onnx-fp32"]) == [folder / "onnx-int8", folder / "onnx-fp32"]


@pytest.mark.parametrize("name", ["notes", "none"])
def test_a_path_without_artifacts_is_an_error(folder, name):
    with pytest.raises(ArtifactMissingError, match=f"/{name}: "):
        artifacts_in([folder / "onnx-fp32", folder / name])


def test_cases_have_the_names_of_recipes_and_the_baseline_is_first(tiny_artifacts):
    paths = [tiny_artifacts[recipe] for recipe in ("onnx-int8", "pytorch-int8")]
    checkpoint = open_artifact(paths[0]).manifest.source.sha256
    baseline = TransformersCase(checkpoint=paths[0], checkpoint_sha256=checkpoint)
    assert [case.name for case in plan(paths, baseline)] == ["hf-fp32", "onnx-int8", "pytorch-int8"]
    assert [case.artifact.path for case in plan(paths, None)] == paths


def test_two_artifacts_of_one_recipe_have_their_own_names(tiny_artifacts, tmp_path):
    first = tiny_artifacts["onnx-fp32"]
    other = changed(first, tmp_path / "other", name="other")
    assert [case.name for case in plan([first, other], None)] == ["tiny-onnx-fp32", "other"]
    with pytest.raises(RequestError, match="tiny-onnx-fp32"):
        plan([first, shutil.copytree(first, tmp_path / "copy")], None)


def test_artifacts_of_different_checkpoints_are_an_error(tiny_artifacts, tmp_path):
    first = tiny_artifacts["onnx-fp32"]
    source = dataclasses.replace(open_artifact(first).manifest.source, sha256="0" * 64)
    stranger = changed(first, tmp_path / "stranger", name="stranger", source=source)
    with pytest.raises(RequestError, match="checkpoint"):
        plan([first, stranger], None)
    with pytest.raises(RequestError, match="checkpoint"):
        plan([first], TransformersCase(checkpoint=first, checkpoint_sha256="0" * 64))


def test_artifacts_of_different_tasks_are_an_error(tiny_artifacts, tiny_vqa_artifacts):
    with pytest.raises(RequestError, match=r"different tasks \(caption, vqa\)"):
        plan([tiny_artifacts["onnx-fp32"], tiny_vqa_artifacts["onnx-fp32"]], None)


def test_a_record_has_the_captions_scores_and_times_of_the_run(tiny_artifacts, drawn_images):
    images, artifact = drawn_images[:4], tiny_artifacts["onnx-int8"]
    progress = []
    first, second = run([artifact], images, on_captions=lambda case, count: progress.extend([case] * count), repeats=2, warmup=3)
    assert progress == ["onnx-int8"] * 8
    assert [(record.case, record.repeat, record.error) for record in (first, second)] == [("onnx-int8", 0, None), ("onnx-int8", 1, None)]

    captioner = runtimes.load(artifact, threads=1)
    captions = captioner.caption([image.path for image in images])
    assert [image.file for image in first.quality] == [image.path.name for image in images]
    assert [image.caption for image in first.quality] == [caption.text for caption in captions]
    assert [image.tokens for image in first.quality] == [len(caption.token_ids) - 1 for caption in captions], "all tokens but [DEC]"
    assert [image.hypothesis_length for image in first.quality] == [len(words(caption.text)) for caption in captions]
    scores = captioner.score([image.path for image in images], captions=[image.texts for image in images])
    assert [image.log_probability for image in first.quality] == pytest.approx([float(score.sum()) for score in scores], rel=1e-5)
    ids = [[captioner.text_ids(caption) for caption in image.texts] for image in images]
    assert [image.scored_tokens for image in first.quality] == [sum(len(caption_ids) - 1 for caption_ids in image_ids) for image_ids in ids]
    assert second.quality == (), "later repeats do not store captions"

    for record in (first, second):
        assert (len(record.times), len(record.warmup_s), record.first_caption_s) == (4, 3, record.warmup_s[0])
        assert [len(times.token_s) for times in record.times] == [len(caption.token_ids) - 2 for caption in captions]
        for times in record.times:
            parts = times.read_s + times.encode_s + times.first_token_s + sum(times.token_s)
            assert min(times.read_s, times.encode_s, times.first_token_s, *times.token_s) > 0
            assert parts <= times.total_s + 1e-6 * (4 + len(times.token_s)), "apart from rounding"
        assert record.peak_rss_bytes >= record.loaded_rss_bytes > 10_000_000
        assert record.versions["onnxruntime"]
        assert record.providers == ("CPUExecutionProvider",)
    manifest = open_artifact(artifact).manifest
    assert (first.subject.runtime, first.subject.recipe, first.subject.recipe_sha256) == ("ort", "onnx-int8", manifest.recipe["sha256"])
    assert (first.subject.manifest_digest, first.subject.checkpoint_sha256) == (manifest.digest, manifest.source.sha256)
    assert first.subject.artifact_bytes == first.subject.disk_bytes == sum(file.stat().st_size for file in artifact.iterdir())


def test_without_metrics_nothing_is_scored(tiny_artifacts, drawn_images):
    (record,) = run([tiny_artifacts["onnx-fp32"]], drawn_images[:2], metrics=None)
    assert [image.caption != "" for image in record.quality] == [True, True]
    assert {(image.matches, image.cider, image.log_probability, image.scored_tokens) for image in record.quality} == {(None,) * 4}


@pytest.mark.full
def test_an_unreadable_image_has_an_error_and_the_others_are_scored(tiny_artifacts, drawn_images, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8no")
    bad = LabelledImage(tmp_path / "bad.jpg", ("a dog", "the dog"))
    (record,) = run([tiny_artifacts["onnx-fp32"]], [drawn_images[0], bad, drawn_images[1]])
    assert record.error is None
    assert [image.error is None for image in record.quality] == [True, False, True]
    assert record.quality[1].error.startswith(f"{tmp_path / 'bad.jpg'}: is not an image")
    assert [image.scored_tokens is None for image in record.quality] == [False, True, False]
    (alone,) = run([tiny_artifacts["onnx-fp32"]], [bad])
    assert alone.error == f"every image failed: {record.quality[1].error}"
    assert (alone.times, alone.quality, alone.subject) == ((), (), None)


@pytest.mark.parametrize(("bias", "score"), [(math.nan, "nan"), (-math.inf, "-inf")])
@pytest.mark.full
def test_a_log_probability_that_is_not_finite_fails_the_case(tiny_checkpoint, drawn_images, tmp_path, bias, score):
    """Records are strict JSON: a file with such a number could not be read again."""
    checkpoint = shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
    weights = load_file(checkpoint / "model.safetensors")
    (word,) = words(drawn_images[1].texts[0])[-1:]
    vocabulary = json.loads((checkpoint / "tokenizer.json").read_text())["model"]["vocab"]
    weights["text_decoder.cls.predictions.bias"][vocabulary[word]] = bias
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    case = TransformersCase(checkpoint=checkpoint, checkpoint_sha256="0" * 64)
    dataset = Dataset("drawn", tuple(drawn_images[1:2]))
    (record,) = runner.run([case], dataset, [workload(1)], OWN, lambda case, count: None)
    assert record.error.startswith(f"the log-probability of the references of {drawn_images[1].path.name} is {score}: ")
    assert (record.subject, record.times, record.quality) == (None, (), ())
    write_records(tmp_path / "records.jsonl", [record])
    assert read_records(tmp_path / "records.jsonl") == [record]


@pytest.mark.full
def test_a_single_graph_artifact_has_no_stages_and_no_log_probabilities(tiny_artifacts, drawn_images):
    """Captions and n-gram scores equal those of the split graphs with the same weights."""
    images = drawn_images[:4]
    single, split = run([tiny_artifacts["onnx-int8-single"], tiny_artifacts["onnx-int8"]], images)
    assert single.error is None
    unscored = [dataclasses.replace(image, log_probability=None, scored_tokens=None) for image in split.quality]
    assert list(single.quality) == unscored
    for times in single.times:
        assert (times.encode_s, times.first_token_s, times.token_s) == (None, None, ())
        assert 0 < times.read_s < times.total_s
    (row,) = make_rows([single])
    assert (row["error"], row["encode_seconds"], row["first_token_seconds"], row["step_seconds"], row["drift"]) == (None,) * 5
    assert (row["seconds_per_image"] > 0, row["bleu4"]) == (True, make_rows([split])[0]["bleu4"])
    (refused,) = run([tiny_artifacts["onnx-int8-single"]], images[:1], num_beams=3)
    assert "capability beams (it has: loop)" in refused.error


def test_a_request_that_an_artifact_does_not_support_is_its_error(tiny_artifacts, drawn_images):
    (record,) = run([tiny_artifacts["onnx-fp32"]], drawn_images[:1], max_length=33)
    assert record.error == "max_length 33 is more than the 32 positions of this model"


def test_an_artifact_for_a_gpu_does_not_run_without_one(tiny_artifacts, drawn_images):
    (record,) = run([tiny_artifacts["onnx-fp16"]], drawn_images[:1])
    expected = OTHER_DEVICE if read_host().cuda else NO_GPU
    assert record.error.startswith(expected)
    assert record.subject is None


def test_a_run_on_a_gpu_needs_one(tiny_artifacts, drawn_images):
    """On a machine with a GPU, ONNX Runtime or the artifact's number format may still be a reason not to run there."""
    (record,) = run([tiny_artifacts["onnx-int8"]], drawn_images[:1], device="cuda")
    assert record.workload.device == "cuda"
    assert record.limits is None
    assert record.error == NO_GPU or read_host().cuda


def workers():
    return [child for child in psutil.Process().children() if "toolkit.bench.case_worker" in child.cmdline()]


@pytest.mark.full
def test_a_killed_process_is_a_failed_record_and_the_other_cases_run(tiny_artifacts, drawn_images):
    """The first worker is killed with SIGKILL, as by the kernel without memory, while it has hundreds of captions left."""
    many = [drawn_images[0]] * 500
    killed = []

    def kill_the_first(case, count):
        if not killed:
            killed.append(case)
            for worker in workers():
                worker.kill()

    paths = [tiny_artifacts[recipe] for recipe in ("onnx-fp32", "onnx-int8")]
    dataset = Dataset("drawn", tuple(many))
    records = runner.run(plan(paths, None), dataset, [workload(len(many))], None, kill_the_first)
    first = next(records)
    assert (first.case, first.error) == ("onnx-fp32", "its process ended: SIGKILL, perhaps out of memory")
    assert (first.subject, first.times, first.quality) == (None, (), ())
    second = next(records)
    assert (second.case, second.error, len(second.times)) == ("onnx-int8", None, 500)
    assert list(records) == []


def job(images=("a.jpg",)):
    return CaseJob(
        opener="toolkit.bench.cases:artifact_opener",
        path="none",
        device="cpu",
        tied=True,
        renamed=False,
        threads=1,
        batch_size=1,
        images=images,
        references=(),
        prompt=None,
        num_beams=1,
        forced_tokens=None,
        min_length=0,
        max_length=20,
        warmup=1,
        score=False,
    )


@pytest.mark.parametrize("images", [("a.jpg",), ("a.jpg",) * 100_000], ids=["small", "more than a pipe holds"])
@pytest.mark.parametrize(
    ("fate", "error"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "its process ended: SIGKILL, perhaps out of memory"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "its process ended: SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGTERM)", "its process ended: SIGTERM"),
        ("os._exit(3)", "its process ended: exit code 3"),
        ("os.write(2, b'some words\\nlibfoo.so is missing\\n'); os._exit(1)", "its process ended: libfoo.so is missing"),
    ],
)
def test_the_error_has_the_reason_why_a_process_ended(tmp_path, monkeypatch, images, fate, error):
    """Python executes sitecustomize.py at start, so this worker ends before it reads its job."""
    (tmp_path / "sitecustomize.py").write_text(f"import os, signal\n{fate}\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert runner._work(job(images), lambda count: None) == (None, error)


def test_an_artifact_that_cannot_be_opened_is_the_error():
    assert runner._work(job(), lambda count: None) == (
        None,
        "none: no such file or folder. Make an artifact with: toolkit export CHECKPOINT",
    )


@pytest.mark.full
def test_an_interrupt_ends_the_worker(tiny_artifacts, drawn_images):
    def interrupt(case, count):
        os.kill(os.getpid(), signal.SIGINT)

    # A shell's background jobs ignore interrupts, and so does whatever they start.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run([tiny_artifacts["onnx-fp32"]], [drawn_images[0]] * 3000, on_captions=interrupt)
    finally:
        signal.signal(signal.SIGINT, before)
    assert workers() == []


def test_facts_of_this_machine():
    facts = host_facts()
    assert (facts.cores, facts.cpu, facts.cpu_features) == (read_host().cores, read_host().cpu, tuple(sorted(read_host().cpu_features)))
    assert facts.memory_bytes == psutil.virtual_memory().total
    assert (facts.system, facts.python) == (f"{platform.system()} {platform.machine()}", platform.python_version())
