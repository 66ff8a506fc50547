"""What tests share: checkpoints, the artifacts made of them, and pictures. Nothing here uses the network.

torch and transformers are imported by the fixtures that need them, so that the tests of small modules start at once.
"""

import os

from tests.paths import ROOT

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_EVALUATE_OFFLINE"] = "1"
# torch's threads spin while they wait for each other: on a machine with other work, a tiny model takes 30 times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import importlib.metadata
import json
import platform
from pathlib import Path

import pytest

from exporters.export import export
from exporters.gate.gate import OnGateFailure, Picture
from exporters.recipes import find_recipe

DATA_PICTURES = 100
SHOWN_VERSIONS = ("torch", "transformers", "onnxruntime", "onnx", "numpy", "pillow")


def pytest_report_header() -> str:
    versions = (f"{name} {importlib.metadata.version(name)}" for name in SHOWN_VERSIONS)
    return f"{', '.join(versions)}; {platform.machine()}, {os.cpu_count()} cores"


@pytest.fixture(scope="session")
def drawn_pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Picture]:
    """16 smooth patterns of random colours, each with two captions of words that the tiny checkpoint knows."""
    from tests.tiny import draw_pictures

    return draw_pictures(tmp_path_factory.mktemp("drawn"))


@pytest.fixture(scope="session")
def sample_pictures() -> list[Picture]:
    """The photographs that ship with the toolkit."""
    return _pictures(ROOT / "toolkit" / "sample")


@pytest.fixture(scope="session")
def data_pictures(sample_pictures: list[Picture]) -> list[Picture]:
    """The first 100 photographs of the data folder; on a machine without it, those that ship with the toolkit."""
    folder = Path(os.environ.get("BLIP_DATA", ROOT.parent / "shared" / "data"))
    found = [
        picture
        for name in ("coco_val_cc_by", "train/coco_train_mini")
        if (folder / name / "captions.json").is_file()
        for picture in _pictures(folder / name)
    ]
    return found[:DATA_PICTURES] or sample_pictures


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BLIP of 72 k parameters, of whose captions a third end early; never write into it."""
    from tests.tiny import write_tiny_checkpoint

    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny")


@pytest.fixture(scope="session")
def mini_checkpoint() -> Path:
    """The captioner that ships with the repository."""
    return ROOT / "models" / "blip-mini-coco"


class Artifacts:
    """Artifacts of one checkpoint by recipe name, each exported when it is first asked for."""

    def __init__(self, checkpoint: Path, output: Path, pictures: list[Picture], on_gate_failure: OnGateFailure) -> None:
        self._checkpoint, self._output, self._pictures, self._on_gate_failure = checkpoint, output, pictures, on_gate_failure
        self._made: dict[str, Path] = {}

    def __getitem__(self, recipe: str) -> Path:
        from exporters.checkpoint.blip import open_checkpoint

        if recipe not in self._made:
            checkpoint = open_checkpoint(str(self._checkpoint))
            (self._made[recipe],) = export(
                checkpoint, [find_recipe(recipe)], self._output, self._pictures, on_gate_failure=self._on_gate_failure
            )
        return self._made[recipe]


@pytest.fixture(scope="session")
def tiny_artifacts(tiny_checkpoint: Path, drawn_pictures: list[Picture], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Recipe name → artifact of the tiny checkpoint, all shipped recipes; its weights are random, so the gate only reports."""
    from tests.tiny import export_tiny

    return export_tiny(tiny_checkpoint, drawn_pictures, tmp_path_factory.mktemp("tiny-artifacts"))


@pytest.fixture(scope="session")
def mini_artifacts(mini_checkpoint: Path, sample_pictures: list[Picture], tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    """Recipe name → artifact of the shipped checkpoint, made on first use and past the gate.

    The gate looks at 12 pictures here; at all of them in `make export`, and in a full test.
    """
    return Artifacts(mini_checkpoint, tmp_path_factory.mktemp("mini-artifacts"), sample_pictures[:12], on_gate_failure="fail")


def _pictures(folder: Path) -> list[Picture]:
    listed = json.loads((folder / "captions.json").read_text(encoding="utf-8"))["images"]
    return [Picture(folder / entry["file"], tuple(entry["captions"])) for entry in listed]
