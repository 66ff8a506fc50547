"""Checkpoints named by a hub id, downloaded from a hub on loopback through `HF_ENDPOINT`."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import safetensors.torch
import torch

from tests.exporters.checkpoint.hub_server import commit_of, running_hub
from tests.paths import ROOT

pytestmark = pytest.mark.full  # each test imports torch in processes of its own: huggingface_hub reads its settings when it is imported

SCRIPT = """
import json, logging, sys
logging.basicConfig(level=logging.WARNING, format="%(message)s")
from exporters.checkpoint.files import find_folder, find_weight_files, read_tensors
from runtimes.errors import CheckpointError
source, (revision, safetensors_only) = sys.argv[1], json.loads(sys.argv[2])
try:
    folder = find_folder(source, revision, safetensors_only=safetensors_only)
    files = find_weight_files(folder, source, safetensors_only=safetensors_only)
    tensors = sum(len(read_tensors(file)) for file in files)
    print(json.dumps({"files": [file.name for file in files], "commit": folder.name, "tensors": tensors}))
except CheckpointError as error:
    print(json.dumps({"error": str(error)}))
"""


@pytest.fixture
def repository(tiny_checkpoint, tmp_path):
    return shutil.copytree(tiny_checkpoint, tmp_path / "repository")


@pytest.fixture
def opened(tmp_path):
    """Open a hub id in a new process whose cache belongs to this test."""

    def run(hub, source="people/captioner", offline=False, revision=None, safetensors_only=False):
        settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": str(int(offline)), "HF_HUB_DISABLE_XET": "1"}
        settings |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_PROXY": "127.0.0.1", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", SCRIPT, source, json.dumps([revision, safetensors_only])]
        done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, check=True, cwd=tmp_path)
        return json.loads(done.stdout), done.stderr

    return run


def with_pickle(folder):
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")


def with_shards(folder):
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in parts.items():
        safetensors.torch.save_file({name: tensors[name] for name in part}, folder / file)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {name: file for file, part in parts.items() for name in part}})
    )
    return list(parts)


def test_safetensors_and_the_commit(repository, opened):
    (repository / "pytorch_model.bin").write_bytes(b"never downloaded")
    with running_hub(main=repository) as hub:
        result, _ = opened(hub)
    assert (result["files"], result["commit"]) == (["model.safetensors"], commit_of(repository))
    assert "pytorch_model.bin" not in {name for name, _ in hub.served}


def test_only_a_pickle(repository, opened):
    with_pickle(repository)
    with running_hub(main=repository) as hub:
        result, log = opened(hub)
        assert result["files"] == ["pytorch_model.bin"]
        assert "weights-only loader" in log
        refused, _ = opened(hub, safetensors_only=True)
    assert "--safetensors-only" in refused["error"]


def test_shards_and_a_revision(repository, opened, tmp_path):
    other = shutil.copytree(repository, tmp_path / "other")
    shards = with_shards(other)
    with running_hub(main=repository, **{"refs/pr/1": other, "v2": other}) as hub:
        result, _ = opened(hub, revision="v2")
    assert (result["files"], result["commit"]) == (shards, commit_of(other))


def test_a_download_that_breaks_off_is_resumed(repository, opened):
    """The file is larger than the 10 MB blocks in which huggingface_hub writes."""
    large = torch.zeros(6 << 20)
    safetensors.torch.save_file({"large": large}, repository / "model.safetensors")
    with running_hub(main=repository) as hub:
        hub.cut.add("model.safetensors")
        result, log = opened(hub)
    assert (result["files"], result["tensors"]) == (["model.safetensors"], 1)
    assert "resuming the download" in log
    first, second = [requested for name, requested in hub.served if name == "model.safetensors"]
    assert first is None
    assert second is not None
    assert second != "bytes=0-"


@pytest.mark.parametrize(
    ("source", "options", "cures"),
    [
        ("people/missing", {}, ("correct the name", "HF_TOKEN")),
        ("people/captioner", {"revision": "v9"}, ("no such revision", "--revision")),
        ("people/gated", {}, ("ask for it", "HF_TOKEN")),
        ("people/captioner", {"offline": True}, ("not in the cache", "give a folder")),
    ],
)
def test_a_download_that_is_refused_names_the_cure(repository, opened, source, options, cures):
    with running_hub(main=repository) as hub:
        result, _ = opened(hub, source, **options)
    assert result["error"].startswith(f"{source}: no such directory, and the download from the hub failed: ")
    assert "\n" not in result["error"]
    assert all(cure in result["error"] for cure in cures), result["error"]


def test_offline_with_a_full_a_partial_and_no_cache(repository, opened, tmp_path):
    with running_hub(main=repository) as hub:
        none, _ = opened(hub, offline=True)
        online, _ = opened(hub)
        full, _ = opened(hub, offline=True)
        for weights in (tmp_path / "hf").rglob("model.safetensors"):
            weights.unlink()
        partial, _ = opened(hub, offline=True)
    assert "error" in none
    assert full == online
    assert "not in the cache" in partial["error"]
