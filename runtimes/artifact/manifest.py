"""The manifest of an artifact: what its files are, what they compute and how that was checked.

`manifest.json` goes in, frozen dataclasses come out; and back. It is written last, so a folder without one is no artifact.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, fields, replace
from pathlib import Path, PureWindowsPath
from typing import Any, Literal

from runtimes.artifact import json_dataclass
from runtimes.errors import ManifestError, ManifestVersionError

MANIFEST_NAME = "manifest.json"
SCHEMA = 1
# Schema history. 1 (2026-11): first; free to change until the first release tag.
MAX_MANIFEST_BYTES = 1 << 20

Activation = Literal["gelu", "gelu_new", "quick_gelu", "relu"]

MOST = {
    "image_px": 4096,
    "patch_px": 4096,
    "vision_layers": 256,
    "text_layers": 256,
    "vocabulary": 1 << 20,
    "max_positions": 1 << 16,
    "height_px": 4096,
    "width_px": 4096,
}
"""Field → its largest value: far above any BLIP, and low enough that a forged manifest cannot make a device run out of memory."""
MOST_OTHER = 1 << 16
"""Of every other size of a model: widths and heads."""
MOST_SCALE = 1e6
MOST_BYTES = 1 << 40
SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Sizes of a BLIP captioner, as its config states them."""

    image_px: int
    patch_px: int
    vision_width: int
    vision_inner: int
    vision_layers: int
    vision_heads: int
    vision_activation: Activation
    vision_norm_eps: float
    text_width: int
    text_inner: int
    text_layers: int
    text_heads: int
    text_activation: Activation
    text_norm_eps: float
    vocabulary: int
    max_positions: int

    def __post_init__(self) -> None:
        """Refuse sizes that no model has."""
        _check_sizes(self)
        if self.image_px < self.patch_px or self.vision_width % self.vision_heads or self.text_width % self.text_heads:
            raise ValueError("image_px must hold a patch, vision_width and text_width must be multiples of vision_heads and text_heads")
        if not (0 < self.vision_norm_eps < 1 and 0 < self.text_norm_eps < 1):
            raise ValueError("vision_norm_eps and text_norm_eps must lie between 0 and 1")

    @property
    def vision_tokens(self) -> int:
        """N: patches and the class token."""
        return (self.image_px // self.patch_px) ** 2 + 1

    @property
    def head_width(self) -> int:
        """Dh of the decoder."""
        return self.text_width // self.text_heads


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """How a picture becomes pixels f32[3,S,S]: resized to a square, not cropped; then (value * rescale - mean) / std."""

    height_px: int
    width_px: int
    resample: Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    rescale: float

    def __post_init__(self) -> None:
        """Refuse numbers that make no picture."""
        _check_sizes(self)
        if not all(abs(value) < MOST_SCALE for value in (*self.mean, *self.std, self.rescale)) or 0 in (*self.std, self.rescale):
            raise ValueError(f"mean, std and rescale must be below {MOST_SCALE:.0f}, and the last two not 0")


@dataclass(frozen=True, kw_only=True)
class GenerationSpec:
    """Token ids that start, stop and fill a caption."""

    bos_id: int
    """[DEC]: the first token of every caption; it also takes the place of a prompt's [CLS]."""
    eos_id: int
    """[SEP]: a caption ends after it."""
    pad_id: int


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
        if not 0 <= self.bytes <= MOST_BYTES or not SHA256.fullmatch(self.sha256):
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
    """Everything a runtime must know to caption with an artifact, and everything a person may ask about it."""

    schema: int
    name: str
    runtime: str
    contract: str
    toolkit: str
    source: Source
    recipe: dict[str, Any]
    """The recipe as it was asked for."""
    applied: dict[str, dict[str, int]]
    """What was really quantized: component → operator or module kind → count."""
    target: Target
    architecture: Architecture
    image: ImageSpec
    generation: GenerationSpec
    graphs: dict[str, GraphSpec]
    """Role of an ONNX file → what it computes; no other graph is run."""
    files: dict[str, FileEntry]
    requires: dict[str, str]
    gate: dict[str, Any]
    digest: str = ""
    """sha256 of the canonical JSON of all other fields."""

    def __post_init__(self) -> None:
        """Refuse parts that do not fit each other."""
        ids = (self.generation.bos_id, self.generation.eos_id, self.generation.pad_id)
        if not all(0 <= token < self.architecture.vocabulary for token in ids):
            raise ValueError("generation holds an id that is not in the vocabulary")
        if {self.image.height_px, self.image.width_px} != {self.architecture.image_px}:
            raise ValueError("image is not of the size that architecture takes")
        if len({entry.role for entry in self.files.values()}) != len(self.files):
            raise ValueError("two files have the same role")

    def sealed(self) -> "Manifest":
        """Return a copy that carries the digest of its own content."""
        return replace(self, digest=_digest(json_dataclass.to_json(self)))

    def to_bytes(self) -> bytes:
        """Return the text of manifest.json."""
        return (json.dumps(json_dataclass.to_json(self), indent=1, ensure_ascii=False) + "\n").encode()

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
        parsed = json.loads(content, object_pairs_hook=_no_twins, parse_float=_plain_float)
        digest = _digest(parsed) if isinstance(parsed, dict) else ""  # fails on halves of surrogate pairs
    except (ValueError, RecursionError) as error:
        raise ManifestError(path, [f"not JSON ({error})"]) from error
    schema = parsed.get("schema") if isinstance(parsed, dict) else None
    if type(schema) is int and schema > SCHEMA:
        raise ManifestVersionError(path, schema, SCHEMA)
    manifest, problems = json_dataclass.from_json(Manifest, parsed)
    if manifest is None:
        raise ManifestError(path, problems)
    if manifest.digest != digest:
        raise ManifestError(path, ["its digest does not match its content"])
    if unsafe := [name for name in manifest.files if not _plain_name(name)]:
        raise ManifestError(path, [f"file name {name!r} is not a plain name" for name in unsafe])
    return manifest


def _check_sizes(sizes: Architecture | ImageSpec) -> None:
    """Refuse a size below one or above `MOST`."""
    for field in fields(sizes):
        value, most = getattr(sizes, field.name), MOST.get(field.name, MOST_OTHER)
        if type(value) is int and not 1 <= value <= most:
            raise ValueError(f"{field.name} is {value}, not 1 to {most}")


def _plain_name(name: str) -> bool:
    """Whether a name means a file beside the manifest on every system; Windows takes more characters for separators."""
    return name.isprintable() and PureWindowsPath(name).name == name and name not in ("", ".", "..", MANIFEST_NAME)


def _digest(parsed: Mapping[str, Any]) -> str:
    return hashlib.sha256(json_dataclass.canonical({key: value for key, value in parsed.items() if key != "digest"})).hexdigest()


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a key that stands twice, where the last one would silently win."""
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return dict(pairs)


def _plain_float(text: str) -> float:
    """Refuse a number in another spelling than ours: to the digest both are one value, and damage may be what changed the spelling."""
    value = float(text)
    if repr(value) != text:
        raise ValueError(f"{text} should read {value!r}")
    return value
