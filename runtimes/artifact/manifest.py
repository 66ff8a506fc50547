"""The manifest of an artifact: which files it has, what they compute, and how that was checked.

`manifest.json` is read into frozen dataclasses and written from them. It is written last, so a folder without one is no artifact.
Reading is strict: an unknown field is an error, except within `optional`. The digest is the sha256 of the file's bytes, what `sha256sum
manifest.json` prints.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PureWindowsPath
from typing import Any, Literal

from runtimes.artifact import json_dataclass
from runtimes.artifact.generation import GenerationConfig
from runtimes.errors import ManifestError, ManifestTooOldError, ManifestVersionError
from runtimes.families.registry import FAMILIES, ModelSpec, check_sizes, model_class

MANIFEST_NAME = "manifest.json"
SCHEMA = 2
# Schema history; free to change until the first release tag. No older schema is read, because nothing was released with one.
# 1 (2026-11): first.
# 2 (2026-11): `task`, `family`, and the family's own `model` in place of `architecture`; `tokenizer` (template, dropped ids) in place of
#    `generation`; `defaults`; `optional`, and files that are; no field `digest`, which was a hash over canonical JSON.
MAX_MANIFEST_BYTES = 1 << 20

MAX_IMAGE_SIDE_PX = 4096
MAX_SCALE = 1e6
MAX_FILE_BYTES = 1 << 40
MAX_DROPPED_IDS = 64
SHA256 = re.compile("[0-9a-f]{64}")
TEXT = "{text}"


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """How an image becomes pixels f32[3,H,W]: resized, not cropped; then (value * rescale - mean) / std."""

    height_px: int
    width_px: int
    resample: Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    rescale: float

    def __post_init__(self) -> None:
        """Refuse numbers that make no image."""
        check_sizes(self, {}, MAX_IMAGE_SIDE_PX)
        if not all(abs(value) < MAX_SCALE for value in (*self.mean, *self.std, self.rescale)) or 0 in (*self.std, self.rescale):
            raise ValueError(f"mean, std and rescale must be below {MAX_SCALE:.0f}, and the last two not 0")


@dataclass(frozen=True, kw_only=True)
class TokenizerSpec:
    """How a text becomes the ids that a model takes, and which ids start, end and fill it."""

    template: str = "[BOS] {text}"
    """What a prompt becomes, separated by spaces: `{text}` once, and any of [BOS], [EOS], [PAD]."""
    drop_left: int = 1
    """How many ids the tokenizer puts before a text's own; they are dropped ([CLS] of BERT)."""
    drop_right: int = 1
    """Likewise behind ([SEP] of BERT)."""
    bos_id: int
    """The first token of every text: [DEC] of BLIP."""
    eos_id: int
    """A text ends after it: [SEP] of BERT."""
    pad_id: int

    def __post_init__(self) -> None:
        """Refuse a template that names other parts."""
        parts = self.template.split()
        if parts.count(TEXT) != 1 or set(parts) - {TEXT, *self.special_ids}:
            raise ValueError(f"template must hold {TEXT} once and else only {', '.join(self.special_ids)}")
        if not (0 <= self.drop_left <= MAX_DROPPED_IDS and 0 <= self.drop_right <= MAX_DROPPED_IDS):
            raise ValueError(f"drop_left and drop_right must be 0 to {MAX_DROPPED_IDS}")

    @property
    def special_ids(self) -> dict[str, int]:
        """Name in a template → id."""
        return {"[BOS]": self.bos_id, "[EOS]": self.eos_id, "[PAD]": self.pad_id}


@dataclass(frozen=True, kw_only=True)
class Source:
    """The checkpoint an artifact was made from."""

    model: str
    revision: str | None
    sha256: str
    """Of the checkpoint's weight file."""
    licence: str | None = None
    """As its model card states it; None where it has none."""


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """One file of the artifact."""

    role: str
    bytes: int
    sha256: str
    optional: bool = False
    """No session needs it: golden captions, a model card, wheels."""

    def __post_init__(self) -> None:
        """Refuse what no file has."""
        if not 0 <= self.bytes <= MAX_FILE_BYTES or not SHA256.fullmatch(self.sha256):
            raise ValueError("bytes or sha256 are none of a file")


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where the artifact is meant to run."""

    device: Literal["cpu", "cuda"]
    precision: Literal["fp32", "fp16", "int8", "int4"]
    cpu_features: tuple[str, ...] = ()
    """CPU features of which one is needed, in the words of `runtimes.host.facts`: without any of them the artifact is wrong or slow."""
    approximate: bool = False
    """It computes something else than the checkpoint, for speed, and runs where it is named or alone."""
    full_range: bool = False
    """Its INT8 weights use all of 8 bits in products that saturate on x86 without VNNI (`runtimes.selection.fitness`)."""

    def suits(self, cpu_features: Set[str]) -> bool:
        """Return whether a CPU with these features has one of those that the artifact needs."""
        return not self.cpu_features or not cpu_features.isdisjoint(self.cpu_features)


@dataclass(frozen=True, kw_only=True)
class GraphSpec:
    """What an ONNX graph takes, gives and computes, as `runtimes.engines.ort.graph_check` reads it from the file."""

    inputs: dict[str, str]
    """Name → type and axes: `float32[rows,4,past,8]`; an axis with a name may have any size."""
    outputs: dict[str, str]
    operators: dict[str, dict[str, int]]
    """Domain → operator → how often."""
    opsets: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything a runtime must know to run an artifact, and everything a person may ask about it."""

    schema: int
    name: str
    task: str
    """What it is for: "caption"."""
    family: str
    """Which models it is one of: "blip"; with the task it decides what `model` holds and which graphs there are."""
    runtime: str
    contract: str
    toolkit: str
    source: Source
    recipe: dict[str, Any]
    """The recipe as it was asked for."""
    applied: dict[str, dict[str, int]]
    """What was really quantized: component → operator or module kind → count."""
    target: Target
    model: ModelSpec
    """Sizes, in the family's own dataclass."""
    image: ImageSpec
    tokenizer: TokenizerSpec
    defaults: GenerationConfig
    """What a caller gets who asks for nothing else."""
    graphs: dict[str, GraphSpec]
    """Role of an ONNX file → what it computes; no other graph is run."""
    files: dict[str, FileEntry]
    requires: dict[str, str]
    gate: dict[str, Any]
    optional: dict[str, Any] = field(default_factory=dict)
    """Any JSON. Readers ignore it, so it may grow without a new schema."""

    def __post_init__(self) -> None:
        """Refuse parts that do not fit each other."""
        if not all(0 <= token < self.model.vocabulary for token in self.tokenizer.special_ids.values()):
            raise ValueError("tokenizer holds an id that is not in the vocabulary")
        if self.defaults.max_length > self.model.max_positions or 2 * self.defaults.num_beams >= self.model.vocabulary:
            raise ValueError("defaults ask for more than the model's positions or vocabulary")
        self.model.check_image(self.image.height_px, self.image.width_px)
        if len({entry.role for entry in self.files.values()}) != len(self.files):
            raise ValueError("two files have the same role")

    @staticmethod
    def json_kinds(document: Mapping[str, Any]) -> dict[str, Any]:
        """Return the class of `model`, which family and task decide; ValueError where there is none."""
        family, task = document.get("family"), document.get("task")
        model = model_class(family, task)
        if model is None and isinstance(family, str) and isinstance(task, str):
            raise ValueError(f"family {family!r} with task {task!r} is not known; known: {', '.join(map(' '.join, FAMILIES))}")
        return {"model": model or object}

    @cached_property
    def content(self) -> bytes:
        """The bytes of manifest.json: those that were read; of a manifest that was not read, those to write."""
        return (json.dumps(json_dataclass.dump(self), indent=1, ensure_ascii=False) + "\n").encode()

    @property
    def digest(self) -> str:
        """sha256 of `content`, in hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()

    def file_of(self, role: str) -> str:
        """Return the name of the file that has the role; KeyError if there is none."""
        return {entry.role: name for name, entry in self.files.items()}[role]


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest.

    Raises:
        ManifestVersionError: It was written by a newer toolkit.
        ManifestError: It is damaged; every problem is named.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise ManifestError(path, [f"cannot be read ({error.strerror})"]) from error
    return parse_manifest(content, path)


def parse_manifest(content: bytes, path: Path) -> Manifest:
    """Read and check the bytes of a manifest; `path` is what errors call it.

    Raises:
        ManifestVersionError, ManifestError: See `read_manifest`.
    """
    if len(content) > MAX_MANIFEST_BYTES:
        raise ManifestError(path, [f"larger than {MAX_MANIFEST_BYTES} bytes"])
    try:
        parsed = json_dataclass.parse(content)
    except ValueError as error:
        raise ManifestError(path, [f"not JSON ({error})"]) from error
    known = parsed if isinstance(parsed, dict) else {}
    schema = known.get("schema")
    if type(schema) is int and schema != SCHEMA:
        raise (ManifestVersionError if schema > SCHEMA else ManifestTooOldError)(path, schema, SCHEMA)
    manifest, problems = json_dataclass.load(Manifest, parsed)
    if manifest is None:
        raise ManifestError(path, problems)
    if unsafe := [name for name in manifest.files if not _plain_name(name)]:
        raise ManifestError(path, [f"file name {name!r} is not a plain name" for name in unsafe])
    vars(manifest)["content"] = content  # where `cached_property` looks first
    return manifest


def _plain_name(name: str) -> bool:
    """Whether a name means a file beside the manifest on every system; Windows takes more characters for separators."""
    return name.isprintable() and PureWindowsPath(name).name == name and name not in ("", ".", "..", MANIFEST_NAME)
