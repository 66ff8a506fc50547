"""`toolkit info`: the metadata of artifacts, packages and checkpoints, and one-line errors for other paths."""

import hashlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from click.testing import CliRunner

from exporters.checkpoint.weight_headers import HEAD, TABLE
from tests.paths import ROOT
from toolkit.cli import main


def info(path, *options):
    return CliRunner().invoke(main, ["info", str(path), *options])


def as_json(path):
    result = info(path, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def artifact(tiny_artifacts):
    return tiny_artifacts["onnx-int8"]


@pytest.fixture(scope="module")
def package(artifact, tmp_path_factory):
    file = tmp_path_factory.mktemp("package") / "tiny.tar.gz"
    result = CliRunner().invoke(main, ["package", str(artifact), "--output", str(file), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"path": str(file), "digest": as_json(file)["digest"], "bytes": file.stat().st_size}
    return file


@pytest.fixture
def checkpoint(tiny_checkpoint, tmp_path):
    return shutil.copytree(tiny_checkpoint, tmp_path / "copy")


def test_an_artifact(artifact):
    facts = as_json(artifact)
    manifest = (artifact / "manifest.json").read_bytes()
    digest = hashlib.sha256(manifest).hexdigest()
    assert (facts["kind"], facts["digest"]) == ("artifact", digest)
    assert {key: value for key, value in facts.items() if key in json.loads(manifest)} == json.loads(manifest)
    assert facts["components"] == {entry["role"]: (artifact / name).stat().st_size for name, entry in facts["files"].items()}
    assert facts["bytes"] == sum(file.stat().st_size for file in artifact.iterdir())
    text = info(artifact).stdout
    for part in (
        digest,
        "onnx-int8",
        "caption (blip)",
        "ort split/1",
        "max_length 20",
        "onnxruntime",
        "drift",
        "token_ids",
        "smoothed layers",
        f"{facts['bytes'] / 1e6:.2f} MB",
    ):
        assert part in text


def test_a_package_is_read_only_up_to_its_manifest(package, tmp_path):
    """The output is the same for a truncated file."""
    facts = as_json(package)
    cut = tmp_path / package.name
    cut.write_bytes(package.read_bytes()[:40_000])
    assert cut.stat().st_size < package.stat().st_size
    assert {**as_json(cut), "path": str(package), "archive_bytes": package.stat().st_size} == facts
    unpacked = tmp_path / "unpacked"
    result = CliRunner().invoke(main, ["unpack", str(package), "--output", str(unpacked), "--json"])
    assert json.loads(result.stdout) == {"path": str(unpacked), "digest": facts["digest"]}
    assert (facts["kind"], facts["digest"]) == ("package", as_json(unpacked)["digest"])
    assert facts["digest"] in info(package).stdout


def test_a_checkpoint(tiny_checkpoint):
    facts = as_json(tiny_checkpoint)
    tensors = safetensors.numpy.load_file(tiny_checkpoint / "model.safetensors")
    assert (facts["kind"], facts["architectures"]) == ("checkpoint", ["BlipForConditionalGeneration"])
    assert facts["parameters"] == sum(tensor.size for tensor in tensors.values())
    assert facts["dtypes"] == {"F32": facts["parameters"]}
    assert facts["bytes"] == (tiny_checkpoint / "model.safetensors").stat().st_size
    assert (facts["model"]["vision_image_size"], facts["model"]["text_vocab_size"]) == (32, 64)
    assert (facts["image"]["size"], facts["image"]["resample"]) == ({"height": 32, "width": 32}, 3)
    assert {key: facts["defaults"][key] for key in ("bos_token_id", "sep_token_id", "pad_token_id")} == {
        "bos_token_id": 62,
        "sep_token_id": 3,
        "pad_token_id": 0,
    }
    text = info(tiny_checkpoint).stdout
    for part in ("BlipForConditionalGeneration", f"{facts['parameters']:,}", "F32", "tied to", "bos_token_id 62", "height 32 width 32"):
        assert part in text


@pytest.mark.parametrize(("change", "tied"), [(0.0, True), (1.0, False)], ids=["stored twice", "untied"])
def test_a_head_of_its_own(checkpoint, change, tied):
    tensors = safetensors.numpy.load_file(checkpoint / "model.safetensors")
    safetensors.numpy.save_file(tensors | {HEAD: tensors[TABLE] + tensors[TABLE].dtype.type(change)}, checkpoint / "model.safetensors")
    assert as_json(checkpoint)["tied"] is tied
    assert ("not tied" in info(checkpoint).stdout) is not tied


def test_what_an_export_would_ignore_is_named(checkpoint):
    tensors = safetensors.numpy.load_file(checkpoint / "model.safetensors")
    tensors["text_decoder.bert.embeddings.position_ids"] = np.arange(32)[None]
    safetensors.numpy.save_file({f"module.{name}": tensor for name, tensor in tensors.items()}, checkpoint / "model.safetensors")
    (checkpoint / "pytorch_model.bin").touch()
    (checkpoint / "generation_config.json").write_text(
        json.dumps({"num_beams": 3, "penalty_alpha": 0.6, "eos_token_id": 3, "bos_token_id": 1})
    )
    processor = json.loads((checkpoint / "preprocessor_config.json").read_text())
    (checkpoint / "preprocessor_config.json").unlink()
    (checkpoint / "processor_config.json").write_text(json.dumps({"image_processor": processor | {"crop_size": 32}}))
    summary = as_json(checkpoint)
    parts = [
        "prefix module.",
        "text_decoder.bert.embeddings.position_ids",
        "pytorch_model.bin",
        "processor_config.json: crop_size",
        "penalty_alpha 0.6",
        "bos_token_id 1",
    ]
    assert [part for reason in summary["ignored"] for part in parts if part in reason] == parts
    assert (summary["tied"], summary["refused"], summary["family"]) == (True, [], "blip caption")
    assert summary["image"]["size"] == {"height": 32, "width": 32}
    text = info(checkpoint).stdout
    assert all(part in text for part in parts)


def test_what_an_export_would_refuse_is_named(checkpoint):
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"architectures": ["BlipModel"]}))
    (checkpoint / "preprocessor_config.json").write_text(json.dumps({"size": {"shortest_edge": 32}}))
    summary = as_json(checkpoint)
    assert summary["family"] is None
    assert ["BlipModel" in summary["refused"][0], "shortest_edge" in summary["refused"][1]] == [True, True]
    assert "shortest_edge" in info(checkpoint).stdout


@pytest.mark.parametrize(
    ("file", "content"),
    [("config.json", {"text_config": [1], "architectures": "x"}), ("preprocessor_config.json", {"image_processor": None})],
)
def test_odd_values_are_no_traceback(checkpoint, file, content):
    original = json.loads((checkpoint / file).read_text())
    (checkpoint / file).write_text(json.dumps(original | content))
    assert len(as_json(checkpoint)["refused"]) == 1


def test_the_tiny_checkpoint_has_nothing_that_is_ignored(tiny_checkpoint):
    summary = as_json(tiny_checkpoint)
    assert (summary["ignored"], summary["refused"]) == ([], [])


def pickled(checkpoint, name, **changes):
    """Write the weights of a checkpoint as a pickle in place of safetensors."""
    tensors = safetensors.torch.load_file(checkpoint / "model.safetensors")
    torch.save(tensors | {key: tensors[TABLE] + value for key, value in changes.items()}, checkpoint / name)
    (checkpoint / "model.safetensors").unlink()
    return checkpoint / name


@pytest.mark.parametrize(("changes", "tied"), [({}, True), ({HEAD: 0.0}, True), ({HEAD: 1.0}, False)], ids=["once", "twice", "untied"])
def test_a_pickle(checkpoint, changes, tied):
    before = as_json(checkpoint)
    pickled(checkpoint, "pytorch_model.bin", **changes)
    torch.save([1], checkpoint / "training_args.bin")
    facts = as_json(checkpoint)
    assert (facts["weight_files"], facts["tied"], facts["refused"]) == (["pytorch_model.bin"], tied, [])
    assert facts["parameters"] == before["parameters"] + len(changes) * 64 * 32
    assert list(facts["dtypes"]) == ["F32"]


@pytest.mark.parametrize("name", ["weights.pth", "weights.bin", "weights.safetensors"])
def test_one_file_of_weights(checkpoint, name):
    before = as_json(checkpoint)
    if name.endswith(".safetensors"):
        file = (checkpoint / "model.safetensors").rename(checkpoint / name)
    else:
        file = pickled(checkpoint, name, **{HEAD: 1.0})
    facts = as_json(file)
    assert (facts["weight_files"], facts["family"], facts["tied"]) == ([name], "blip caption", name.endswith(".safetensors"))
    assert facts["parameters"] >= before["parameters"]
    assert "--like" in info(file).stdout
    assert "--like" in as_json(checkpoint)["refused"][0]  # the folder's weights have no usual name


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1", b"PK"])
@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_one_file_that_is_damaged(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    result = info(tmp_path / name)
    assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (1, "", 1)


def test_one_file_of_another_model(tmp_path):
    torch.save({"model": {"itm_head.weight": torch.ones(2), "visual_encoder.norm.bias": torch.ones(2)}}, tmp_path / "itm.pth")
    torch.save({"state_dict": {"layer.weight": torch.ones(2)}}, tmp_path / "other.pt")
    assert "itm_head" in as_json(tmp_path / "itm.pth")["refused"][0]
    assert TABLE in as_json(tmp_path / "other.pt")["refused"][0]


def test_an_adapter(tiny_checkpoint, tmp_path, artifact):
    (tmp_path / "adapter_model.safetensors").touch()
    config = {"peft_type": "LORA", "base_model_name_or_path": "owner/base", "r": 8, "target_modules": ["query", "value"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    result = info(tiny_checkpoint, "--adapter", str(tmp_path))
    assert result.exit_code == 0
    assert "LORA, rank 8, of owner/base; changes query, value" in result.stdout
    assert (
        json.loads(info(tiny_checkpoint, "--adapter", str(tmp_path), "--json").stdout)["adapter"]["weight_file"]
        == "adapter_model.safetensors"
    )
    for path, options, problem in (
        (tmp_path, [], "toolkit export owner/base --adapter"),
        (tiny_checkpoint, ["--adapter", str(tiny_checkpoint)], "adapter_config.json"),
        (artifact, ["--adapter", str(tmp_path)], "artifact"),
    ):
        refused = info(path, *options)
        assert (refused.exit_code, len(refused.stderr.splitlines())) == (1, 1)
        assert problem in refused.stderr


def test_no_engine_and_no_torch_is_needed(artifact, package, tiny_checkpoint):
    script = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from toolkit.cli import main
for path in sys.argv[1:]:
    main(["info", path], standalone_mode=False)
print([name for name in ("torch", "transformers", "onnxruntime", "onnx", "safetensors", "tokenizers") if name in sys.modules])
"""
    command = [sys.executable, "-c", script, *map(str, (artifact, package, tiny_checkpoint))]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.endswith("\n[]\n")


def damaged(kind, folder, artifact, package, checkpoint):
    """Make a path without artifact, package or checkpoint, or with a damaged one."""
    path = folder / kind
    if kind == "empty folder":
        path.mkdir()
    elif kind == "text file":
        path.write_text("x")
    elif kind == "several artifacts":
        shutil.copytree(artifact, path / "one")
    elif kind == "manifest":
        path.mkdir()
        (path / "manifest.json").write_text("{")
    elif kind == "archive.tar.gz":
        path.write_bytes(package.read_bytes()[:200])
    elif kind in ("config.json", "model.safetensors"):
        path = checkpoint
        (checkpoint / kind).write_bytes(b"\xff" * 100)
    return path


@pytest.mark.parametrize(
    ("kind", "code", "fact"),
    [
        ("nothing", "REQUEST_INVALID", "no such file or folder"),
        ("empty folder", "REQUEST_INVALID", "config.json"),
        ("text file", "REQUEST_INVALID", ".tar.gz"),
        ("several artifacts", "REQUEST_INVALID", "one"),
        ("manifest", "MANIFEST_INVALID", "manifest.json"),
        ("archive.tar.gz", "ARCHIVE_INVALID", "archive.tar.gz"),
        ("config.json", "CHECKPOINT_UNUSABLE", "config.json"),
        ("model.safetensors", "CHECKPOINT_UNUSABLE", "model.safetensors"),
    ],
)
def test_another_path_is_a_one_line_error(artifact, package, checkpoint, tmp_path, kind, code, fact):
    path = damaged(kind, tmp_path, artifact, package, checkpoint)
    result = info(path, "--json")
    error = json.loads(result.stdout)
    assert (result.exit_code, error["code"], result.stderr) == (1, code, f"Error: {error['error']}\n")
    assert error["error"].startswith(str(path))
    assert fact in error["error"]


def test_a_hub_id_names_the_cure():
    result = info("people/captioner")
    assert (result.exit_code, "toolkit export" in result.stderr) == (1, True)
