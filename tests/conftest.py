"""What tests share: checkpoints, the artifacts made of them, and images. Nothing here uses the network.

torch and transformers are imported by the fixtures that need them, so that the tests of small modules start at once. Worker processes of
one run share checkpoints and artifacts: whichever needs one first makes it, the others wait for it.
"""

import os

from tests.paths import ROOT

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_EVALUATE_OFFLINE"] = "1"
# torch's threads spin while they wait for each other: on a machine with other work, a tiny model takes 30 times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import importlib.metadata
import importlib.util
import json
import logging
import platform
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from filelock import FileLock

from exporters.export import export
from exporters.gate.gate import OnGateFailure
from exporters.gate.labelled_image import LabelledImage
from exporters.recipes import RECIPES, find_recipe

if "PYTEST_XDIST_WORKER" not in os.environ:  # workers inherit it
    # Reference runs of this session alone; matplotlib keeps the font list that it has.
    os.environ.setdefault("MPLCONFIGDIR", str(Path.home() / ".cache" / "matplotlib"))
    CACHE = tempfile.TemporaryDirectory(prefix="blip-toolkit-cache-")
    os.environ["XDG_CACHE_HOME"] = CACHE.name

DATA_IMAGES = 100
DATA = Path(os.environ.get("BLIP_DATA", ROOT.parent / "shared" / "data"))
"""Photographs with captions; a folder `models` may be beside it."""
MODELS = {
    "tiny_matcher",
    "matcher_artifacts",
    "tiny_checkpoint",
    "mini_checkpoint",
    "tiny_vqa_checkpoint",
    "tiny_artifacts",
    "mini_artifacts",
    "tiny_vqa_artifacts",
}
"""Fixtures that are, or are made with, a model; a test that uses one, or a fixture that does, is not fast."""
SLOW_IMPORTS = re.compile(
    r"^(?:from|import) (?:torch|hypothesis|transformers|safetensors|nltk|selenium|exporters\.(?:checkpoint|onnx|pytorch|families\.blip\w*)|"
    r"toolkit\.report\.(?:page|plots|sensitivity|svg|throughput)|tests\.(?:docs\.tables|fuzz|parity\.matching))\b",
    re.MULTILINE,
)
"""A file that imports at its top what takes seconds to import, or what draws: none of its tests is fast."""
SHOWN_VERSIONS = ("torch", "transformers", "onnxruntime", "onnx", "numpy", "pillow")


def pytest_report_header() -> str:
    installed = {name for name in SHOWN_VERSIONS if importlib.util.find_spec("PIL" if name == "pillow" else name)}  # fast tests need few
    versions = (f"{name} {importlib.metadata.version(name)}" for name in SHOWN_VERSIONS if name in installed)
    return f"{', '.join(versions)}; {platform.machine()}, {os.cpu_count()} cores"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave files with slow imports out of `-m fast` before they are imported."""
    if config.option.markexpr != "fast" or collection_path.suffix != ".py":
        return None
    return SLOW_IMPORTS.search(collection_path.read_text(encoding="utf-8")) is not None or None


@pytest.hookimpl(tryfirst=True)  # before pytest deselects by mark
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as fast what needs no model, is not full, and is not marked slow for another reason."""
    for item in items:
        model = MODELS.intersection(getattr(item, "fixturenames", ()))
        if not model and item.get_closest_marker("full") is None and item.get_closest_marker("slow") is None:
            item.add_marker("fast")


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    """Restore the levels and handlers that the command line sets, so that no test sees the log level of the test before it."""
    root, choice = logging.getLogger(), logging.getLogger("runtimes.loading")
    handlers, level, choice_level = list(root.handlers), root.level, choice.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    choice.setLevel(choice_level)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all worker processes of this run share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def drawn_images(tmp_path_factory: pytest.TempPathFactory) -> list[LabelledImage]:
    """16 smooth patterns of random colours, each with two captions of words that the tiny checkpoint knows."""
    from tests.drawn import draw_images

    return draw_images(tmp_path_factory.mktemp("drawn"))


@pytest.fixture(scope="session")
def sample_images() -> list[LabelledImage]:
    """The photographs that ship with the toolkit."""
    return _images(ROOT / "toolkit" / "sample")


@pytest.fixture(scope="session")
def data_images(sample_images: list[LabelledImage]) -> list[LabelledImage]:
    """The first 100 photographs of the data folder; on a machine without it, those that ship with the toolkit."""
    labelled = [
        image
        for name in ("coco_val_cc_by", "train/coco_train_mini")
        if (DATA / name / "captions.json").is_file()
        for image in _images(DATA / name)
    ]
    return labelled[:DATA_IMAGES] or sample_images


def _written(shared_folder: Path, name: str, write: str) -> Path:
    """Return the folder of a checkpoint that the test processes share; the first one writes it with a function of tests/tiny.py."""
    path = shared_folder / "checkpoints" / name
    with FileLock(shared_folder / "checkpoints.lock"):
        if not path.exists():
            from tests import tiny  # it imports torch

            getattr(tiny, write)(path)
    return path


@pytest.fixture(scope="session")
def tiny_checkpoint(shared_folder: Path) -> Path:
    """A random BLIP of 72 k parameters, of whose captions a third end early; never write into it."""
    return _written(shared_folder, "tiny", "write_tiny_checkpoint")


@pytest.fixture(scope="session")
def tiny_vqa_checkpoint(shared_folder: Path) -> Path:
    """A random BLIP that answers questions, of tiny shapes; never write into it."""
    return _written(shared_folder, "tiny-vqa", "write_tiny_vqa_checkpoint")


@pytest.fixture(scope="session")
def asked_images(drawn_images: list[LabelledImage]) -> list[LabelledImage]:
    """The drawn images, each with a question of 1 to 30 words and answers."""
    from tests.drawn import ask_about

    return ask_about(drawn_images)


@pytest.fixture(scope="session")
def tiny_vqa_artifacts(tiny_vqa_checkpoint: Path, asked_images: list[LabelledImage], shared_folder: Path) -> "Artifacts":
    """Recipe name → artifact of the tiny checkpoint for questions."""
    output = shared_folder / "tiny-vqa-artifacts"
    output.mkdir(exist_ok=True)
    return Artifacts(tiny_vqa_checkpoint, output, asked_images, on_gate_failure="write")


@pytest.fixture(scope="session")
def tiny_matcher(shared_folder: Path) -> Path:
    """A random matcher; never write into it."""
    return _written(shared_folder, "tiny-matcher", "write_tiny_matcher")


@pytest.fixture(scope="session")
def trained_matcher(tiny_matcher: Path) -> Path:
    """A small trained matcher beside the data folder; on a machine without it, the random one."""
    path = DATA.parent / "models" / "blip-mini-itm"
    return path if path.is_dir() else tiny_matcher


@pytest.fixture(scope="session")
def matcher_artifacts(tiny_matcher: Path, drawn_images: list[LabelledImage], shared_folder: Path) -> "Artifacts":
    """Recipe name → artifact of the random matcher, for the recipes with split graphs."""
    output = shared_folder / "matcher-artifacts"
    output.mkdir(exist_ok=True)
    return Artifacts(tiny_matcher, output, drawn_images, on_gate_failure="write")


@pytest.fixture(scope="session")
def mini_checkpoint() -> Path:
    """The captioner that ships with the repository."""
    return ROOT / "models" / "blip-mini-coco"


class Artifacts(Mapping[str, Path]):
    """Artifacts of one checkpoint by recipe name, each exported when it is first asked for by any worker process."""

    def __init__(self, checkpoint: Path, output: Path, images: list[LabelledImage], on_gate_failure: OnGateFailure) -> None:
        self._checkpoint, self._output, self._images, self._on_gate_failure = checkpoint, output, images, on_gate_failure

    def __getitem__(self, recipe: str) -> Path:
        path = self._output / f"{self._checkpoint.name}-{find_recipe(recipe).name}"
        if not path.exists():  # an artifact appears whole
            with FileLock(self._output.parent / f"{path.name}.lock"):
                if not path.exists():
                    from exporters.checkpoint.checkpoint import open_checkpoint

                    checkpoint = open_checkpoint(str(self._checkpoint))
                    made = export(checkpoint, [find_recipe(recipe)], self._output, self._images, on_gate_failure=self._on_gate_failure)
                    assert list(made) == [path]
        return path

    def __iter__(self) -> Iterator[str]:
        return (recipe.name for recipe in RECIPES)

    def __len__(self) -> int:
        return len(RECIPES)

    @property
    def folder(self) -> Path:
        """A folder of all of them."""
        return {path.parent for path in self.values()}.pop()


@pytest.fixture(scope="session")
def tiny_artifacts(tiny_checkpoint: Path, drawn_images: list[LabelledImage], shared_folder: Path) -> Artifacts:
    """Recipe name → artifact of the tiny checkpoint, all shipped recipes; its weights are random, so the gate refuses nothing."""
    output = shared_folder / "tiny-artifacts"
    output.mkdir(exist_ok=True)
    return Artifacts(tiny_checkpoint, output, drawn_images, on_gate_failure="write")


@pytest.fixture(scope="session")
def mini_artifacts(mini_checkpoint: Path, sample_images: list[LabelledImage], shared_folder: Path) -> Artifacts:
    """Recipe name → artifact of the shipped checkpoint, made on first use and past the gate.

    The gate looks at 12 images here; at all of them in `make export`, and in a full test.
    """
    output = shared_folder / "mini-artifacts"
    output.mkdir(exist_ok=True)
    return Artifacts(mini_checkpoint, output, sample_images[:12], on_gate_failure="fail")


def _images(folder: Path) -> list[LabelledImage]:
    entries = json.loads((folder / "captions.json").read_text(encoding="utf-8"))["images"]
    return [LabelledImage(folder / entry["file"], tuple(entry["captions"])) for entry in entries]
