"""Test the reader of safetensors files against the library, and with damaged files."""

import json
import subprocess
import sys

import pytest
import safetensors.torch
import torch

from runtimes.engines.pytorch.safetensors_file import MAX_HEADER_BYTES, TensorFile


def tensors():
    generator = torch.Generator().manual_seed(0)
    return {
        "b.weight": torch.randn(3, 5, generator=generator),
        "a.half": torch.randn(7, generator=generator).half(),
        "c.int8": torch.randint(-128, 128, (2, 3, 4), generator=generator).to(torch.int8),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 4),
    }


def write(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_it_reads_files_that_the_library_wrote(tmp_path):
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(tensors(), path, metadata={"format": "pt"})
    with path.open("rb") as stream:
        file = TensorFile(stream)
        loaded = {name: file.read(name) for name in file.names()}
    assert set(loaded) == set(tensors())
    for name, tensor in tensors().items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)


@pytest.mark.parametrize(
    ("header", "data", "problem"),
    [
        (b"not json", b"", "Expecting value"),
        (b"[]", b"", "not that of a safetensors file"),
        (b'{"a": 1}', b"", "not that of a safetensors file"),
        ({"a": {"dtype": "F32", "shape": [1]}}, bytes(4), "not that of a safetensors file"),
        ({"a": entry("F8_E4M3")}, bytes(4), "a is of type F8_E4M3"),
        ({"a": entry(shape=(-1,))}, bytes(4), "a has shape"),
        ({"a": entry(shape=(1 << 63, 0), offsets=(0, 0))}, b"", "a has shape"),
        ({"a": entry(shape=(True,))}, bytes(4), "a has shape"),
        ({"a": entry(offsets=(0.0, 4.0))}, bytes(4), "a has offsets that are not whole numbers"),
        ({"a": entry(offsets=(False, 4))}, bytes(4), "a has offsets that are not whole numbers"),
        (b"[" * 100_000, b"", "not that of a safetensors file"),
        ({"a": entry(shape=(2,))}, bytes(4), "data_offsets of a do not match"),
        ({"a": entry(), "b": entry(offsets=(8, 12))}, bytes(12), "data_offsets of b do not match"),
        ({"a": entry(), "b": entry()}, bytes(4), "data_offsets of b do not match"),
        ({"a": entry()}, bytes(3), "it has 3 bytes of data instead of 4"),
        ({"a": entry()}, bytes(5), "it has 5 bytes of data instead of 4"),
        (b'{"a": {"dtype": "F32"}, "a": {"dtype": "F16"}}', b"", "a duplicate name"),
    ],
)  # fmt: skip
def test_a_damaged_header_is_refused_before_any_tensor_is_made(tmp_path, header, data, problem):
    with write(tmp_path / "w.safetensors", header, data).open("rb") as stream, pytest.raises(ValueError, match=problem):
        TensorFile(stream)


def test_a_header_with_too_large_a_length_is_not_read(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes((MAX_HEADER_BYTES + 1).to_bytes(8, "little") + b"{}")
    with path.open("rb") as stream, pytest.raises(ValueError, match="more than"):
        TensorFile(stream)


def test_loading_does_not_import_the_symbolic_modules_of_torch(tiny_artifacts):
    code = "import sys, runtimes; runtimes.load(sys.argv[1]); print([m for m in ('sympy', 'mpmath') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code, tiny_artifacts["pytorch-int8"]], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
