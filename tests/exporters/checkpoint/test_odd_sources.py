"""Folders and files that people take for a checkpoint: the message is the cure, in one line."""

import json
import shutil
from collections import OrderedDict
from pathlib import Path

import pytest
import safetensors.torch
import torch

from exporters.checkpoint.checkpoint import open_checkpoint
from runtimes.errors import CheckpointError, ToolkitError
from toolkit.info.describe import describe


@pytest.fixture
def folder(tiny_checkpoint, tmp_path):
    return shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")


def problem_of(source, **options):
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(str(source), **options).load_weights()
    (line,) = str(caught.value).splitlines()
    assert line.isprintable()
    return line


def trainer_output(folder):
    inner = folder / "checkpoint-500"
    inner.mkdir()
    for file in [file for file in folder.iterdir() if file.is_file()]:
        shutil.move(file, inner)
    return str(inner)


def hub_cache(folder):
    trainer_output(folder)
    (folder / "snapshots").mkdir()
    (folder / "checkpoint-500").rename(folder / "snapshots" / "abc")
    return str(folder / "snapshots" / "abc")


def artifact(folder):
    (folder / "config.json").unlink()
    (folder / "manifest.json").touch()
    return "is an artifact of this toolkit"


def without_tokenizer(folder):
    for name in ("tokenizer.json", "vocab.txt"):
        (folder / name).unlink(missing_ok=True)
    return "copy the tokenizer"


def deepspeed(folder):
    (folder / "model.safetensors").unlink()
    (folder / "global_step10").mkdir()
    return "zero_to_fp32.py"


def fsdp(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model_fsdp_0").mkdir()
    (folder / "pytorch_model_fsdp_0" / "__0_0.distcp").touch()
    return "accelerate merge-weights"


def whole_model(folder):
    (folder / "model.safetensors").unlink()
    torch.save(torch.nn.Linear(2, 2), folder / "pytorch_model.bin")
    return "torch.save(model.state_dict(), FILE)"


def damaged_pickle(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    return "copy or download it again"


def truncated(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    return "copy or download it again"


def invalid_json(folder):
    file = folder / "config.json"
    file.write_text(file.read_text(encoding="utf-8").rstrip()[:-1] + ",}", encoding="utf-8")
    return "correct it"


def size_as_text(folder):
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["text_config"]["hidden_size"] = "32"
    file.write_text(json.dumps(config), encoding="utf-8")
    return "text_config.hidden_size"


ODD = [
    *(trainer_output, hub_cache, artifact, without_tokenizer, deepspeed, fsdp, whole_model, damaged_pickle, truncated, invalid_json),
    size_as_text,
]


@pytest.mark.parametrize("change", ODD, ids=lambda change: change.__name__)
def test_the_message_is_the_cure(folder, change):
    cure = change(folder)
    assert cure in problem_of(folder)
    if change not in (artifact, truncated):
        try:
            shown = "; ".join(describe(folder)["refused"])
        except ToolkitError as error:
            shown = str(error)
        assert (cure in shown) or change is invalid_json


def test_an_address_names_the_hub_id():
    assert "hub id: owner/name" in problem_of("https://huggingface.co/owner/name/tree/main")


def test_an_archive_is_to_be_unpacked(folder, tmp_path):
    assert "unpack" in problem_of(shutil.make_archive(str(tmp_path / "packed"), "zip", folder))


def test_objects_beside_the_tensors_are_refused(folder):
    file = folder / "last.ckpt"
    torch.save({"state_dict": OrderedDict(a=torch.ones(1)), "hyper_parameters": {"folder": Path("x")}}, file)
    assert "torch.save(model.state_dict(), FILE)" in problem_of(file, like=str(folder))


def test_the_states_of_training_programs_are_read(folder, tiny_checkpoint):
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    expected = open_checkpoint(str(tiny_checkpoint)).load_weights()
    for key, prefix in (("module", ""), ("state_dict", "model.")):
        torch.save({key: {prefix + name: tensor for name, tensor in tensors.items()}, "epoch": 3}, folder / "w.pt")
        own = open_checkpoint(str(folder / "w.pt"), like=str(folder)).load_weights()
        assert all(torch.equal(tensor, own[name]) for name, tensor in expected.items())
