"""An engine is added by one file and one registry entry: everything that lists, chooses, loads and runs engines then knows it.

The commands run in processes of their own, which get the entry when Python starts.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from exporters.writing.artifact_writer import write_artifact
from runtimes.artifact.folder import open_artifact
from tests.paths import ROOT

ENGINE = '''
"""An engine that computes nothing: every caption is one word."""

import numpy as np

from runtimes.decoding.session import EngineInfo
from runtimes.engines.engine import Signature, TensorSpec
from runtimes.engines.offer import Offer
from runtimes.engines.step_session import StepSession

CACHE = TensorSpec(np.dtype(np.float32), (None, 1, None, 1))
VOCABULARY, WORD = 64, 20


class IdleEngine:
    def __init__(self, end, device, threads):
        self._end, self._device, self._threads = end, device, threads

    def signature(self, graph):
        if graph == "encoder":
            return Signature({"pixels": CACHE}, {"cross_key_0": CACHE})
        inputs = ("token_ids", "positions", "past_key_0", "cross_key_0")
        return Signature(dict.fromkeys(inputs, CACHE), {"logits": CACHE, "present_key_0": CACHE})

    def bind(self, graph, feeds):
        return feeds

    def run(self, graph, bound, feeds, outputs):
        if graph == "encoder":
            return {"cross_key_0": np.zeros((len(feeds["pixels"]), 1, 1, 1), np.float32)}
        past, ids = feeds["past_key_0"], feeds["token_ids"]
        logits = np.zeros((len(ids), len(feeds["positions"]), VOCABULARY), np.float32)
        logits[:, :, self._end if past.shape[2] else WORD] = 9.0
        return {"logits": logits, "present_key_0": np.zeros((len(ids), 1, past.shape[2] + ids.shape[1], 1), np.float32)}

    def to_engine(self, array):
        return array

    def to_numpy(self, value):
        return value

    def take(self, value, indices):
        return value[indices]

    def crop(self, value, length):
        return value[:, :, :length]

    def info(self):
        return EngineInfo(runtime="idle", versions={}, device=self._device, providers=("idle",), threads=self._threads, precision="fp32")


def open_session(payload, device, threads, options):
    return StepSession(IdleEngine(payload.artifact.manifest.tokenizer.eos_id, device, threads))


def probe():
    return Offer(providers=("idle",), cuda=False, product=None)
'''

ENTRY = """
from runtimes.engine_registry import ENGINES, EngineSpec

ENGINES["idle"] = EngineSpec(
    name="idle", library="idle_engine", distributions=("idle-engine",), extra="idle", rank=-1,
    sessions={"split/1": "idle_engine:open_session"}, probe="idle_engine:probe",
)
"""


@pytest.fixture(scope="module")
def folder(tiny_artifacts, tmp_path_factory):
    """The two files, and a folder with an artifact for ONNX Runtime and the same one for the new engine."""
    path = tmp_path_factory.mktemp("extension")
    (path / "idle_engine.py").write_text(ENGINE)
    (path / "sitecustomize.py").write_text(ENTRY)
    artifact = open_artifact(tiny_artifacts["onnx-fp32"])
    files = {entry.role: shutil.copy(artifact.path / name, path) for name, entry in artifact.manifest.files.items()}
    files = {role: (path / name).rename(path / f"{role}{(path / name).suffix}") for role, name in files.items()}
    write_artifact(path / "artifacts" / "idle", replace(artifact.manifest, runtime="idle", requires={}), files, overwrite=False)
    shutil.copytree(artifact.path, path / "artifacts" / "onnx-fp32")
    return path


def toolkit(folder, *arguments, installed=True):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*([str(folder)] if installed else []), str(ROOT)])}
    command = [sys.executable, "-m", "toolkit.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=folder)


def test_it_is_loaded_and_captions(folder, drawn_images):
    ran = toolkit(
        folder, "caption", folder / "artifacts" / "idle", *[image.path for image in drawn_images[:3]], "--json", "--num-beams", "2"
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert [json.loads(line)["token_ids"][1:-1] for line in ran.stdout.splitlines()] == [[20]] * 3


def test_it_is_selected_by_its_rank(folder, drawn_images):
    ran = toolkit(folder, "caption", folder / "artifacts", drawn_images[0].path)
    assert ran.returncode == 0
    assert "using idle: FP32" in ran.stderr


def test_the_doctor_lists_it(folder):
    ran = toolkit(folder, "doctor", folder / "artifacts", "--json")
    assert ran.returncode == 0, ran.stderr
    report = json.loads(ran.stdout)
    assert report["engines"]["idle"] == {
        "library": "idle_engine",
        "offer": {"providers": ["idle"], "cuda": False, "product": None},
        "error": None,
    }
    assert [choice["name"] for choice in report["artifacts"]] == ["idle", "onnx-fp32"]


def test_without_its_entry_it_is_unknown(folder, drawn_images):
    ran = toolkit(folder, "caption", folder / "artifacts" / "idle", drawn_images[0].path, installed=False)
    assert ran.returncode == 1
    assert "unknown runtime 'idle split/1'; known: ort " in ran.stderr
