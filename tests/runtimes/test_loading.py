"""`load`: choice from a folder, log messages, options and errors of one line."""

import json
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import runtimes
import runtimes.loading
import runtimes.selection.candidates
from exporters.writing.artifact_writer import write_artifact
from runtimes.artifact.folder import open_artifact
from runtimes.artifact.manifest import SCHEMA
from runtimes.engines.ort.int8_selftest import run_int8_selftest
from runtimes.errors import (
    ArtifactCorruptError,
    ArtifactMissingError,
    GraphRefusedError,
    ManifestVersionError,
    RequestError,
    UnavailableError,
    UnknownNameError,
)
from runtimes.families.registry import FAMILIES
from runtimes.host.facts import read_host
from runtimes.tasks.registry import TASKS, TaskSpec
from tests.paths import ROOT


@pytest.fixture
def image(sample_images):
    return sample_images[0].path


@pytest.fixture
def host(monkeypatch):
    """A function that replaces facts about this machine."""

    def change(**facts):
        changed = replace(read_host(), **facts)
        for module in (runtimes.loading, runtimes.selection.candidates):
            monkeypatch.setattr(module, "read_host", lambda: changed)

    return change


def spoiled(artifact, into, role=None, content=None, **changes):
    """Write a copy of an artifact with another content of a file, or other fields of the manifest."""
    opened = open_artifact(artifact)
    (into.parent / "parts").mkdir(parents=True, exist_ok=True)
    payload = {}
    for name, entry in opened.manifest.files.items():
        payload[entry.role] = into.parent / "parts" / f"{entry.role}{Path(name).suffix}"
        payload[entry.role].write_bytes(content if entry.role == role else (artifact / name).read_bytes())
    return write_artifact(into, replace(opened.manifest, **changes), payload, overwrite=False).path


def messages(caplog):
    return [(record.levelname, record.getMessage()) for record in caplog.records if record.name.startswith("runtimes")]


def python(script, *arguments, **environment):
    """Run a script in a subprocess and return its lines on stdout, log messages included."""
    head = "import json, logging, sys\n" + f"sys.path.insert(0, {str(ROOT)!r})\n"
    head += "logging.basicConfig(stream=sys.stdout, level=logging.INFO, format='%(levelname)s %(message)s')\n"
    head += "import runtimes\nfrom runtimes.errors import ToolkitError\n"
    tail = "\ndef show(path, **options):\n    try:\n        print('loaded', runtimes.load(path, **options).manifest.recipe['name'])\n"
    tail += "    except ToolkitError as error:\n        print(type(error).__name__, error)\n"
    ran = subprocess.run(
        [sys.executable, "-c", head + tail + script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_the_best_artifact_of_a_folder_is_loaded_and_the_reason_is_logged(folder, caplog):
    caplog.set_level(logging.INFO, "runtimes")
    captioner = runtimes.load(folder("pytorch-int8", "onnx-fp32", "onnx-int8", "pytorch-fp32"))
    assert captioner.manifest.recipe["name"] == "onnx-int8"
    assert messages(caplog) == [("INFO", "using onnx-int8: INT8 that is correct on every CPU")]


def test_unfinished_artifacts_are_not_chosen(folder, caplog):
    path = folder("onnx-fp32", "onnx-int8")
    (path / "onnx-int8").rename(path / ".onnx-int8.partial")
    (path / "notes.txt").touch()
    (path / "empty").mkdir()
    assert runtimes.load(path).manifest.recipe["name"] == "onnx-fp32"


def test_an_artifact_made_for_another_cpu(folder, tiny_artifacts, host, caplog):
    path = folder("onnx-int8-full", "pytorch-fp32")
    caplog.clear()  # messages of the exports
    host(cpu_features=frozenset({"avx2"}))
    assert runtimes.load(path).manifest.recipe["name"] == "pytorch-fp32"
    assert messages(caplog) == []
    assert runtimes.load(tiny_artifacts["onnx-int8-full"]).manifest.recipe["name"] == "onnx-int8-full"
    ((level, text),) = messages(caplog)
    right = "its products are right here, but may be slow" if run_int8_selftest().right else "integer products saturate here"
    assert (
        level,
        text.startswith(f"{tiny_artifacts['onnx-int8-full'].name} is tuned for CPUs with vnni or dotprod, which this one lacks; {right}"),
    ) == (
        "WARNING",
        True,
    )


def test_artifacts_of_different_checkpoints(tiny_artifacts, tmp_path):
    source = open_artifact(tiny_artifacts["onnx-int8"]).manifest.source
    spoiled(tiny_artifacts["onnx-fp32"], tmp_path / "all" / "one")
    spoiled(tiny_artifacts["onnx-int8"], tmp_path / "all" / "two", source=replace(source, sha256="0" * 64))
    shutil.rmtree(tmp_path / "all" / "parts")
    with pytest.raises(RequestError) as caught:
        runtimes.load(tmp_path / "all")
    assert str(caught.value) == f"{tmp_path / 'all'}: contains artifacts of different checkpoints; name one of one, two"


def test_no_artifact(tmp_path):
    (tmp_path / "file").touch()
    here = "no artifact here (no manifest.json)"
    for path, problem in ((tmp_path, here), (tmp_path / "none", "no such file or folder"), (tmp_path / "file", here)):
        with pytest.raises(ArtifactMissingError) as caught:
            runtimes.load(path)
        assert str(caught.value).startswith(f"{path}: {problem}. ")


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"device": "gpu"}, UnknownNameError, "unknown device 'gpu'; known: auto, "),
        ({"device": ""}, UnknownNameError, "unknown device ''; known: auto, "),
        ({"threads": 0}, RequestError, "threads must be at least 1"),
        ({"threads": 10_000}, RequestError, "threads must be at most"),
        ({"threads": -2}, RequestError, "threads must be at least 1"),
    ],
)
def test_invalid_options(tiny_artifacts, options, error, text):
    with pytest.raises(error) as caught:
        runtimes.load(tiny_artifacts["onnx-int8"], **options)
    assert str(caught.value).startswith(text)


def test_the_number_of_threads(tiny_artifacts):
    for recipe in ("onnx-int8", "pytorch-int8"):
        assert runtimes.load(tiny_artifacts[recipe], threads=1).session.info().threads == 1
        assert runtimes.load(tiny_artifacts[recipe]).session.info().threads == read_host().cores


def test_an_unknown_contract_and_a_newer_schema(tiny_artifacts, tmp_path):
    path = spoiled(tiny_artifacts["onnx-int8"], tmp_path / "new", contract="split/2")
    with pytest.raises(UnknownNameError) as caught:
        runtimes.load(path)
    assert (
        str(caught.value)
        == "unknown runtime 'ort split/2'; known: ort matching/1, ort question/1, ort single/1, ort split/1, torch matching/1, "
        "torch question/1, torch split/1"
    )
    path = spoiled(tiny_artifacts["onnx-int8"], tmp_path / "newer", schema=SCHEMA + 1)
    with pytest.raises(ManifestVersionError, match=f"{SCHEMA + 1} .*{SCHEMA}"):
        runtimes.load(path)


def test_an_artifact_of_another_task_is_an_error_that_names_the_command(tiny_artifacts, tmp_path, monkeypatch, image, caplog):
    """A task of a later version has one entry for its family and one for its command."""
    monkeypatch.setitem(FAMILIES, ("blip", "matching"), FAMILIES["blip", "caption"])
    monkeypatch.setitem(TASKS, "matching", TaskSpec(name="matching", model="runtimes.tasks.captioner:Captioner", command="match", text=""))
    path = spoiled(tiny_artifacts["onnx-int8"], tmp_path / "all" / "other", task="matching")
    shutil.rmtree(tmp_path / "all" / "parts")
    for given in (path, tmp_path / "all"):
        with pytest.raises(RequestError) as caught:
            runtimes.load(given)
        assert str(path) in str(caught.value)
        assert all(part in str(caught.value) for part in ("'matching'", "task='matching'", "toolkit match"))
    assert messages(caplog) == []
    shutil.copytree(tiny_artifacts["onnx-fp32"], tmp_path / "all" / "captions")
    assert runtimes.load(tmp_path / "all").caption(image)[0].error is None
    with pytest.raises(UnknownNameError) as unknown:
        runtimes.load(path, task="unknown")
    assert "'unknown'" in str(unknown.value)
    assert "caption" in str(unknown.value)


def test_cuda_without_a_gpu(tiny_artifacts):
    named = [tiny_artifacts[recipe] for recipe in ("onnx-fp32", "onnx-fp16", "pytorch-fp32", "pytorch-int8")]
    lines = python("for path in sys.argv[1:]: show(path, device='cuda')", *named, CUDA_VISIBLE_DEVICES="-1")
    assert [line.partition(" CUDAExecutionProvider")[0] for line in lines[:2]] in (
        ["UnavailableError onnxruntime has no"] * 2,
        ["UnavailableError onnxruntime could not start"] * 2,  # the GPU build without a GPU
    )
    assert lines[2:] == ["UnavailableError torch finds no CUDA device here; use --device cpu"] * 2


def test_a_folder_without_an_artifact_for_cuda(folder, host):
    host(cuda=False)
    path = folder("onnx-fp16", "onnx-int8")
    with pytest.raises(UnavailableError) as caught:
        runtimes.load(path, device="cuda")
    assert str(caught.value) == f"{path}: none of onnx-fp16, onnx-int8 can run here with device 'cuda'"


def test_a_gpu_that_no_library_can_use_is_one_warning_per_artifact(folder):
    """The driver is reported as installed, but onnxruntime and torch are builds without CUDA or find no device."""
    pretend = "import runtimes.loading, runtimes.selection.candidates, dataclasses\n"
    pretend += "facts = dataclasses.replace(runtimes.loading.read_host(), cuda=True)\n"
    pretend += "runtimes.loading.read_host = runtimes.selection.candidates.read_host = lambda: facts\nshow(sys.argv[1])"
    first, second, *rest = python(pretend, folder("onnx-fp16", "pytorch-fp16", "onnx-int8"), CUDA_VISIBLE_DEVICES="-1")
    assert first.startswith("WARNING onnx-fp16: onnxruntime ")
    assert first.endswith("; trying the next best")
    assert second == "WARNING pytorch-fp16: torch finds no CUDA device here; use --device cpu; trying the next best"
    assert rest == ["INFO using onnx-int8: INT8 that is correct on every CPU", "loaded onnx-int8"]


@pytest.mark.parametrize("recipe", ["onnx-fp16", "pytorch-fp16"])
def test_fp16_on_a_cpu_warns_and_captions(tiny_artifacts, recipe, host, image, caplog):
    host(cuda=False)
    (caption,) = runtimes.load(tiny_artifacts[recipe]).caption([image])
    assert messages(caplog) == [
        ("WARNING", f"{tiny_artifacts[recipe].name} is made for a GPU and this machine has none; running it on the CPU, which is slow")
    ]
    caplog.clear()
    captioner = runtimes.load(tiny_artifacts[recipe], device="cpu")
    assert captioner.caption([image]) == [caption]
    assert caption.error is None
    assert messages(caplog) == []
    assert (captioner.session.info().device, captioner.session.info().precision) == ("cpu", "fp16")


def bad_contents(content):
    return {
        "empty": b"",
        "cut": content[: len(content) * 2 // 3],
        "nonsense": b"\x93" * 5000,
        "text": b"<html>404 Not Found</html>",
        "zeros": bytes(len(content)),
    }


@pytest.mark.parametrize("damage", list(bad_contents(b"")))
@pytest.mark.parametrize(
    ("recipe", "role"), [("onnx-int8", "encoder"), ("onnx-int8", "decoder"), ("onnx-int8", "tokenizer"), ("pytorch-int8", "weights")]
)
def test_an_invalid_file_with_a_correct_hash_is_an_error_of_one_line(tiny_artifacts, tmp_path, recipe, role, damage, capfd):
    opened = open_artifact(tiny_artifacts[recipe])
    path = spoiled(opened.path, tmp_path / "bad", role, bad_contents(opened.path_of(role).read_bytes())[damage])
    with pytest.raises((ArtifactCorruptError, GraphRefusedError)) as caught:
        runtimes.load(path)
    (file,) = (file for file in path.glob(f"{role}-*") if role == "weights" or "weights" not in file.name)
    assert str(caught.value).startswith(f"{file}: ")
    assert str(caught.value).endswith((". Export or copy the artifact again.", ". Export the artifact again with this toolkit."))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")  # native libraries print nothing


def test_graphs_and_weights_of_another_model(tiny_artifacts, tmp_path):
    onnx, torch = open_artifact(tiny_artifacts["onnx-fp32"]), open_artifact(tiny_artifacts["pytorch-fp32"])
    swapped = {
        "two encoders": spoiled(onnx.path, tmp_path / "1", "decoder", onnx.path_of("encoder").read_bytes()),
        "two decoders": spoiled(onnx.path, tmp_path / "2", "encoder", onnx.path_of("decoder").read_bytes()),
        "other sizes": spoiled(torch.path, tmp_path / "3", model=replace(torch.manifest.model, text_width=64)),
        "more layers": spoiled(torch.path, tmp_path / "4", model=replace(torch.manifest.model, vision_layers=3)),
    }
    for what, path in swapped.items():
        with pytest.raises((ArtifactCorruptError, GraphRefusedError)) as caught:
            runtimes.load(path)
        assert "\n" not in str(caught.value), what


def test_an_artifact_that_has_no_tokenizer(tiny_artifacts, tmp_path):
    path = Path(shutil.copytree(tiny_artifacts["onnx-int8"], tmp_path / "copy"))
    manifest = open_artifact(path).manifest
    files = {name: entry for name, entry in manifest.files.items() if entry.role != "tokenizer"}
    (path / "manifest.json").write_bytes(replace(manifest, files=files).content)
    with pytest.raises(ArtifactCorruptError) as caught:
        runtimes.load(path)
    assert str(caught.value) == f"{path}/manifest.json: declares no file with the role 'tokenizer'. Export or copy the artifact again."


def test_info_of_the_session(tiny_artifacts):
    import onnxruntime
    import torch

    from runtimes.engines.pytorch.int8_layers import ENGINES as QUANTIZED_ENGINES

    onnx = runtimes.load(tiny_artifacts["onnx-int8"], device="cpu", threads=1).session.info()
    assert (onnx.runtime, onnx.device, onnx.providers, onnx.precision) == ("ort", "cpu", ("CPUExecutionProvider",), "int8")
    assert onnx.versions["onnxruntime"] == onnxruntime.__version__
    int8 = runtimes.load(tiny_artifacts["pytorch-int8"], device="cpu", threads=1).session.info()
    assert (int8.runtime, int8.device, int8.precision) == ("torch", "cpu", "int8")
    assert int8.providers == (next(name for name in QUANTIZED_ENGINES if name in torch.backends.quantized.supported_engines),)
    assert int8.versions == {"torch": torch.__version__}
    fp32 = runtimes.load(tiny_artifacts["pytorch-fp32"], device="cpu", threads=1).session.info()
    assert (fp32.providers, fp32.precision) == (("cpu",), "fp32")


def test_damaged_artifacts_of_a_folder_are_skipped(folder, caplog):
    """One manifest is damaged, one has a newer schema, and one graph is truncated."""
    path = folder("onnx-int8", "onnx-int4", "pytorch-int8", "onnx-fp32")
    (path / "onnx-int8" / "manifest.json").write_text(json.dumps({"schema": SCHEMA}))
    (path / "pytorch-int8" / "manifest.json").write_text(json.dumps({"schema": SCHEMA + 1}))
    encoder = open_artifact(path / "onnx-int4").path_of("encoder")
    encoder.write_bytes(encoder.read_bytes()[:-1])
    assert runtimes.load(path).manifest.recipe["name"] == "onnx-fp32"
    assert [
        (level, next(name for name in ("onnx-int8", "pytorch-int8", "onnx-int4") if f"/{name}/" in text))
        for level, text in messages(caplog)
    ] == [
        ("WARNING", "onnx-int8"),
        ("WARNING", "pytorch-int8"),
        ("WARNING", "onnx-int4"),
    ]


def test_a_folder_with_only_damaged_artifacts_raises_the_first_error(folder):
    path = folder("onnx-int8", "onnx-fp32")
    (path / "onnx-fp32" / "manifest.json").write_text(json.dumps({"schema": SCHEMA + 1}))
    encoder = open_artifact(path / "onnx-int8").path_of("encoder")
    encoder.write_bytes(b"")
    with pytest.raises(ManifestVersionError, match="onnx-fp32"):
        runtimes.load(path)
    shutil.rmtree(path / "onnx-fp32")
    with pytest.raises(ArtifactCorruptError, match="onnx-int8"):
        runtimes.load(path)


def test_the_number_of_threads_follows_the_affinity_at_each_load(tiny_artifacts):
    """The CPUs of a running service change: a captioner that is loaded later has the new number of threads."""
    cpus = sorted(os.sched_getaffinity(0))
    script = (
        "import os\nfor cpus in (set(map(int, sys.argv[2:])), {int(sys.argv[2])}):\n    os.sched_setaffinity(0, cpus)\n"
        "    print(runtimes.load(sys.argv[1]).session.info().threads)"
    )
    assert python(script, tiny_artifacts["onnx-int8"], *cpus) == [str(read_host().cores), "1"]


@pytest.mark.parametrize(
    "arguments", [{"max_pixels": "5"}, {"max_pixels": 0}, {"max_pixels": 1.5}, {"draft": "x"}, {"threads": 1.5}], ids=str
)
def test_arguments_of_a_wrong_kind(tiny_artifacts, arguments):
    with pytest.raises(RequestError, match=next(iter(arguments))):
        runtimes.load(tiny_artifacts["onnx-fp32"], **arguments)


@pytest.mark.parametrize("path", [None, 5, b"/tmp"])
def test_a_path_of_a_wrong_kind(path):
    with pytest.raises(RequestError, match="path"):
        runtimes.load(path)
