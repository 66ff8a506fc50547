"""Read and change the files of a checkpoint, and compare what is read from them."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from exporters.checkpoint.checkpoint import open_checkpoint
from exporters.families.blip_caption import HEAD, TABLE
from runtimes.errors import CheckpointError

BIAS = "text_decoder.cls.predictions.bias"
QUERY = "text_decoder.bert.encoder.layer.0.attention.self.query.weight"


def read_tensors(directory: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(directory / "model.safetensors")


def write_tensors(directory: Path, tensors: dict[str, torch.Tensor], name: str = "model.safetensors") -> None:
    safetensors.torch.save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, directory / name)


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_config(directory: Path, part: str, **changes: object) -> None:
    config = json.loads((directory / "config.json").read_text())
    edit_json(directory / "config.json", **{part: {**config[part], **changes}})


def assert_same_weights(weights: dict[str, torch.Tensor], directory: Path) -> None:
    """Assert that the weights are those of a checkpoint's file, and that the head is the word embeddings."""
    expected = read_tensors(directory)
    assert set(weights) == {*expected, HEAD}
    for name, tensor in expected.items():
        assert torch.equal(weights[name].reshape(tensor.shape), tensor.float())
    assert torch.equal(weights[HEAD], expected[TABLE].float())


def problem_of(directory: Path | str, **options: bool) -> str:
    """Return the error message, one line, of opening a checkpoint and reading its weights."""
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(str(directory), **options).load_weights()
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(directory))
    return message.removeprefix(str(directory)).removeprefix(": ")
