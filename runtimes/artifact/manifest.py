"""The manifest of an artifact: its files, its model, the signatures of its graphs and the results of the gate.

`manifest.json` is read into frozen dataclasses and written from them. It is the last file that an exporter writes, so a folder without a
manifest is not an artifact. Reading is strict: an unknown field is an error, except within `optional`. The digest of an artifact is the
output of `sha256sum manifest.json`.
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
# Schema history. The schema may change until the first release. Older schemas are not read, because none was released.
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
    """Preprocessing of an image to pixels f32[3,H,W]: resize without cropping, then (value * rescale - mean) / std."""

    height_px: int
    """Height of the pixels. The image's aspect ratio is not kept."""
    width_px: int
    """Width of the pixels."""
    resample: Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
    """Interpolation filter, by Pillow's name."""
    mean: tuple[float, float, float]
    """Mean per channel (red, green, blue), after `rescale`."""
    std: tuple[float, float, float]
    """Standard deviation per channel, after `rescale`."""
    rescale: float
    """Factor for 8-bit values: 1/255 of BLIP."""

    def __post_init__(self) -> None:
        """Check the numbers; raise ValueError."""
        check_sizes(self, {}, MAX_IMAGE_SIDE_PX)
        if not all(abs(value) < MAX_SCALE for value in (*self.mean, *self.std, self.rescale)) or 0 in (*self.std, self.rescale):
            raise ValueError(f"mean, std and rescale must be below {MAX_SCALE:.0f}, and the last two not 0")


@dataclass(frozen=True, kw_only=True)
class TokenizerSpec:
    """Rules for the token ids of a text, and the ids of special tokens."""

    template: str = "[BOS] {text}"
    """Parts of a prompt, separated by spaces: `{text}` once, and any of [BOS], [EOS], [PAD]."""
    drop_left: int = 1
    """Number of ids to drop at the start of the tokenizer's output: 1 for [CLS] of BERT."""
    drop_right: int = 1
    """Number of ids to drop at the end: 1 for [SEP] of BERT."""
    bos_id: int
    """Start token: [DEC] of BLIP."""
    eos_id: int
    """End token: [SEP] of BERT."""
    pad_id: int
    """Padding token."""
    clean_up_tokenization_spaces: bool = False
    """Text has no space before punctuation and English contractions, as transformers' setting of this name removes them."""

    def __post_init__(self) -> None:
        """Check the template and the numbers of dropped ids; raise ValueError."""
        parts = self.template.split()
        if parts.count(TEXT) != 1 or set(parts) - {TEXT, *self.special_ids}:
            raise ValueError(f"template must contain {TEXT} once and otherwise only {', '.join(self.special_ids)}")
        if not (0 <= self.drop_left <= MAX_DROPPED_IDS and 0 <= self.drop_right <= MAX_DROPPED_IDS):
            raise ValueError(f"drop_left and drop_right must be 0 to {MAX_DROPPED_IDS}")

    @property
    def special_ids(self) -> dict[str, int]:
        """Name in the template → token id."""
        return {"[BOS]": self.bos_id, "[EOS]": self.eos_id, "[PAD]": self.pad_id}


@dataclass(frozen=True, kw_only=True)
class Source:
    """The checkpoint an artifact was made from."""

    model: str
    """Path or hub id, as the user named it."""
    revision: str | None
    """Commit of the hub's repository; None for a local checkpoint."""
    sha256: str
    """sha256 of the checkpoint's weight file."""
    licence: str | None = None
    """Licence in the model card of the checkpoint; None without one."""


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """One file of the artifact."""

    role: str
    """Purpose of the file, such as "encoder" or "tokenizer". Sessions open files by role."""
    bytes: int
    """Size in bytes."""
    sha256: str
    """sha256 of the content, in hexadecimal."""
    optional: bool = False
    """True for files that no session reads: golden captions, model card, wheels."""

    def __post_init__(self) -> None:
        """Check the size and the hash; raise ValueError."""
        if not 0 <= self.bytes <= MAX_FILE_BYTES or not SHA256.fullmatch(self.sha256):
            raise ValueError("bytes is out of range, or sha256 is not 64 hexadecimal digits")


@dataclass(frozen=True, kw_only=True)
class Target:
    """Hardware that the artifact is made for."""

    device: Literal["cpu", "cuda"]
    """Kind of device."""
    precision: Literal["fp32", "fp16", "int8", "int4"]
    """The smallest precision among the components."""
    cpu_features: tuple[str, ...] = ()
    """CPU features, by the names of `runtimes.host.facts`. A CPU with none of them runs the artifact incorrectly or slowly."""
    approximate: bool = False
    """The artifact computes another function than the checkpoint, for speed. It is chosen only by its path or for lack of others."""
    full_range: bool = False
    """INT8 weights use all 8 bits, so their products saturate on x86 without VNNI (see `runtimes.selection.fitness`)."""

    def suits(self, cpu_features: Set[str]) -> bool:
        """Return whether the artifact needs no CPU feature, or a CPU with these features has one of the needed ones."""
        return not self.cpu_features or not cpu_features.isdisjoint(self.cpu_features)


@dataclass(frozen=True, kw_only=True)
class GraphSpec:
    """Inputs, outputs and operators of an ONNX graph, as read by `runtimes.engines.ort.graph_check`."""

    inputs: dict[str, str]
    """Name → type and axes, see `runtimes.families.signature`."""
    outputs: dict[str, str]
    """Name → type and axes."""
    operators: dict[str, dict[str, int]]
    """Domain → operator → number of nodes."""
    opsets: dict[str, int]
    """Domain of operators → version of its operator set."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Data to run an artifact, and data about its origin."""

    schema: int
    """Version of this format."""
    name: str
    """Name of the artifact: <checkpoint>-<recipe>."""
    task: str
    """Task of the model: "caption", "vqa" or "matching"."""
    family: str
    """Model family, for example "blip". Family and task determine the class of `model` and the graphs."""
    runtime: str
    """Engine that runs the artifact: "ort" or "torch"."""
    contract: str
    """Contract of the graphs: names and shapes of their inputs and outputs."""
    toolkit: str
    """Version of the toolkit that made the artifact."""
    source: Source
    """The checkpoint."""
    recipe: dict[str, Any]
    """The recipe of the export."""
    applied: dict[str, dict[str, int]]
    """Result of the quantization: component → operator or class of module → number of quantized ones."""
    target: Target
    """The machine that the artifact is meant for."""
    model: ModelSpec
    """Sizes of the model, in the dataclass of its family."""
    image: ImageSpec
    """Preprocessing of images."""
    tokenizer: TokenizerSpec
    """Rules for token ids."""
    defaults: GenerationConfig
    """Settings of the search for arguments that a caller leaves out."""
    graphs: dict[str, GraphSpec]
    """Role of an ONNX file → its graph. A graph that differs is refused."""
    files: dict[str, FileEntry]
    """File name → role, size and hash. An undeclared file is never read."""
    requires: dict[str, str]
    """Package → versions that run the artifact, as PEP 440 specifiers."""
    gate: dict[str, Any]
    """Results of the comparison with the checkpoint."""
    optional: dict[str, Any] = field(default_factory=dict)
    """Any JSON values. Readers ignore them, so additions need no new schema."""

    def __post_init__(self) -> None:
        """Check the parts against each other; raise ValueError."""
        if not all(0 <= token < self.model.vocabulary for token in self.tokenizer.special_ids.values()):
            raise ValueError("tokenizer has an id that is not in the vocabulary")
        if (
            max(self.defaults.max_length, self.defaults.max_length_after(1)) > self.model.max_positions
            or max(2 * self.defaults.num_beams, self.defaults.largest_token) >= self.model.vocabulary
        ):
            raise ValueError("defaults exceed the model's positions or vocabulary")
        self.model.check_image(self.image.height_px, self.image.width_px)
        if len({entry.role for entry in self.files.values()}) != len(self.files):
            raise ValueError("two files have the same role")

    @staticmethod
    def json_kinds(document: Mapping[str, Any]) -> dict[str, Any]:
        """Return the class of `model` for the family and task; raise ValueError for an unknown pair."""
        family, task = document.get("family"), document.get("task")
        model = model_class(family, task)
        if model is None and isinstance(family, str) and isinstance(task, str):
            raise ValueError(f"family {family!r} with task {task!r} is not known; known: {', '.join(map(' '.join, FAMILIES))}")
        return {"model": model or object}

    @cached_property
    def content(self) -> bytes:
        """The bytes of manifest.json: the bytes that were read, or for a new manifest the bytes to write."""
        return (json.dumps(json_dataclass.dump(self), indent=1, ensure_ascii=False) + "\n").encode()

    @property
    def digest(self) -> str:
        """sha256 of `content`, in hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()

    def file_of(self, role: str) -> str:
        """Return the name of the file with the role; raise KeyError if there is none."""
        return {entry.role: name for name, entry in self.files.items()}[role]


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest.

    Raises:
        ManifestVersionError, ManifestTooOldError: The manifest has another schema.
        ManifestError: The manifest is invalid; the message lists every problem.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise ManifestError(path, [f"cannot be read ({error.strerror})"]) from error
    return parse_manifest(content, path)


def parse_manifest(content: bytes, path: Path) -> Manifest:
    """Read and check the bytes of a manifest; `path` is its name in errors.

    Raises:
        ManifestVersionError, ManifestTooOldError, ManifestError: See `read_manifest`.
    """
    if len(content) > MAX_MANIFEST_BYTES:
        raise ManifestError(path, [f"larger than {MAX_MANIFEST_BYTES} bytes"])
    try:
        parsed = json_dataclass.parse(content)
    except ValueError as error:
        raise ManifestError(path, [f"not JSON ({error})"]) from error
    schema = parsed.get("schema") if isinstance(parsed, dict) else None
    if type(schema) is int and schema != SCHEMA:
        raise (ManifestVersionError if schema > SCHEMA else ManifestTooOldError)(path, schema, SCHEMA)
    manifest, problems = json_dataclass.load(Manifest, parsed)
    if manifest is None:
        raise ManifestError(path, problems)
    if unsafe := [name for name in manifest.files if not _plain_name(name)]:
        raise ManifestError(path, [f"file name {name!r} is not a plain name" for name in unsafe])
    vars(manifest)["content"] = content  # the value of the cached property
    return manifest


def _plain_name(name: str) -> bool:
    """Return whether a name is a file beside the manifest on every system. Windows has more separators, so its rules are used."""
    return name.isprintable() and PureWindowsPath(name).name == name and name not in ("", ".", "..", MANIFEST_NAME)
