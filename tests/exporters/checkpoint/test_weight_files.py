"""Files of weights: pickles, shards and pointers of Git LFS."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch

from exporters.checkpoint.checkpoint import open_checkpoint
from tests.exporters.checkpoint.checkpoint_files import (
    assert_same_weights,
    edit_json,
    problem_of,
    read_tensors,
    write_tensors,
)


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_a_pointer_of_git_lfs_is_named_with_the_cure(checkpoint, file):
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / file).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 990\n")
    assert "git lfs pull" in problem_of(checkpoint)


class TestBin:
    @pytest.fixture
    def with_bin(self, checkpoint) -> Path:
        torch.save(read_tensors(checkpoint), checkpoint / "pytorch_model.bin")
        (checkpoint / "model.safetensors").unlink()
        return checkpoint

    def test_it_is_read_and_the_loader_is_named(self, with_bin, tiny_checkpoint, caplog):
        assert_same_weights(open_checkpoint(str(with_bin)).load_weights(), tiny_checkpoint)
        assert "weights-only loader" in caplog.text

    def test_shards_are_read(self, with_bin, tiny_checkpoint):
        tensors = torch.load(with_bin / "pytorch_model.bin", weights_only=True)
        (with_bin / "pytorch_model.bin").unlink()
        names = sorted(tensors)
        parts = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
        for file, part in parts.items():
            torch.save({name: tensors[name] for name in part}, with_bin / file)
        index = {"metadata": {}, "weight_map": {name: file for file, part in parts.items() for name in part}}
        (with_bin / "pytorch_model.bin.index.json").write_text(json.dumps(index))
        assert_same_weights(open_checkpoint(str(with_bin)).load_weights(), tiny_checkpoint)

    def test_it_is_refused_if_only_safetensors_may_be_read(self, with_bin):
        assert "--safetensors-only" in problem_of(with_bin, safetensors_only=True)

    def test_it_is_ignored_beside_safetensors(self, checkpoint, tiny_checkpoint):
        (checkpoint / "pytorch_model.bin").write_bytes(b"nonsense")
        assert_same_weights(open_checkpoint(str(checkpoint)).load_weights(), tiny_checkpoint)

    def test_code_in_it_does_not_run(self, with_bin, tmp_path):
        class Touch:
            def __reduce__(self):
                return os.system, (f"touch {tmp_path / 'ran'}",)

        (with_bin / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Touch()}, protocol=2))
        assert "pytorch_model.bin: damaged or unreadable: " in f"{with_bin}{problem_of(with_bin)}"
        assert not (tmp_path / "ran").exists()

    def test_a_file_without_tensors_is_refused(self, with_bin):
        for content in ({"epoch": 3}, [torch.zeros(2)], {1: torch.zeros(2)}, {"model": {"layer": {"weight": torch.zeros(2)}}}):
            torch.save(content, with_bin / "pytorch_model.bin")
            assert problem_of(with_bin) == "/pytorch_model.bin: contains something other than named tensors"


class TestShards:
    @pytest.fixture
    def sharded(self, checkpoint) -> Path:
        tensors = read_tensors(checkpoint)
        (checkpoint / "model.safetensors").unlink()
        names = sorted(tensors)
        parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
        for file, part in parts.items():
            write_tensors(checkpoint, {name: tensors[name] for name in part}, file)
        index = {"metadata": {}, "weight_map": {name: file for file, part in parts.items() for name in part}}
        (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
        return checkpoint

    def test_they_give_the_same_weights(self, sharded, tiny_checkpoint):
        assert_same_weights(open_checkpoint(str(sharded)).load_weights(), tiny_checkpoint)

    def test_all_must_exist(self, sharded):
        (sharded / "model-00002-of-00002.safetensors").unlink()
        assert problem_of(sharded) == "model.safetensors.index.json lists files that are missing; copy or download all shards"

    def test_they_must_be_in_the_same_folder(self, sharded):
        edit_json(sharded / "model.safetensors.index.json", weight_map={"a": "../tiny/model-00001-of-00002.safetensors"})
        assert problem_of(sharded) == "model.safetensors.index.json lists files that are missing; copy or download all shards"

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": ["a"]}'])
    def test_the_index_must_be_readable(self, sharded, content):
        (sharded / "model.safetensors.index.json").write_text(content)
        assert problem_of(sharded).startswith("cannot read model.safetensors.index.json: ")
