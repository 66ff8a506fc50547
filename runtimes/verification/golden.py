"""Golden captions: the file format, and reading them from an artifact.

Golden captions are captions of a few images, or answers to a question about each, recorded on the machine that packages an artifact.
`runtimes.verification.replay` compares them on the machine that runs it. A package contains these files, which its manifest declares as
optional:

- `golden.json` (role "golden"): a `Golden`.
- `golden-logits.f32` (role "golden-logits"): f32[I,V] little-endian; row i has the logits of the token after the start token for image i.
  Sessions with the capability "loop" return no logits. Then the file is absent, and captions are compared by token ids and score.
- `golden-NAME.jpg` for each image: the original file, to test the path from bytes to text.
- `golden-NAME.png` for each image: the same image as RGB, resized to `image.width_px` x `image.height_px` with `image.resample`, not
  rescaled and not normalized. Runtimes with another resize function (a browser, camera hardware) start from it and must get the same ids.

Every caption is searched without a prompt, with min_length 0, length penalty 1, and one image per run.
"""

import json
from dataclasses import dataclass
from math import isfinite
from typing import TypeAlias, TypeVar

import numpy as np
from PIL import Image

from runtimes.artifact import json_dataclass
from runtimes.artifact.manifest import ImageSpec, Manifest
from runtimes.artifact.verified_files import VerifiedFiles
from runtimes.decoding.session import Float32
from runtimes.errors import ArtifactCorruptError
from runtimes.images.reading import read_image
from runtimes.tasks.registry import TASKS

SCHEMA = 1
FILE, LOGITS = "golden.json", "golden-logits.f32"
ROLE, LOGITS_ROLE = "golden", "golden-logits"
"""The role of an image is `golden:` and its file name."""
MAX_BYTES = 1 << 20
"""Largest size of golden.json."""
MAX_IMAGES = 16
G = TypeVar("G")
Logits: TypeAlias = Float32 | None
"""f32[I,V] of the token after the start token; None for a session without logits."""
SEARCHES = (1, 3)
"""Numbers of beams of the recorded searches: greedy search, and a beam search if the session supports it."""


@dataclass(frozen=True, kw_only=True)
class GoldenCaption:
    """A recorded caption."""

    num_beams: int
    token_ids: tuple[int, ...]
    """All ids, start and end token included."""
    text: str
    score: float
    """See `Caption.score`."""
    margins_nat: tuple[float, ...] | None
    """For each generated token: log-probability of the best token minus that of the second best. None without logits."""

    def __post_init__(self) -> None:
        """Check score and margins; raise ValueError."""
        margins = self.margins_nat or ()
        if not all(map(isfinite, (self.score, *margins))) or any(margin < 0 for margin in margins):
            raise ValueError("score and margins must be finite, and no margin negative")


@dataclass(frozen=True, kw_only=True)
class GoldenImage:
    """An image and its recorded captions, one for each search."""

    original: str
    """File name of the original image."""
    resized: str
    """File name of the resized PNG."""
    captions: tuple[GoldenCaption, ...]
    question: str | None = None
    """What the captions answer; None for a captioner."""
    question_ids: tuple[int, ...] | None = None
    """Token ids of the question, for runtimes without a tokenizer."""


@dataclass(frozen=True, kw_only=True)
class RecordingMachine:
    """The machine that recorded the captions. An equal machine returns the same bits, another one values within the bounds."""

    cpu_features: tuple[str, ...]
    versions: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """Whether golden captions detect damaged weights, independently of hashes. Measured once, when an artifact is packaged."""

    layer: str
    """Name of the weight of which a thousandth was set to zero."""
    noticed: bool
    """True if a golden caption or its logits changed."""


@dataclass(frozen=True, kw_only=True)
class Golden:
    """The content of golden.json."""

    schema: int
    max_length: int
    """Longest caption in tokens, start token included."""
    tie_nat: float
    """A different token counts as a tie if the recorded margin is below this value."""
    logits_tolerance: float | None
    """Largest allowed difference of a logit on another machine; None for a session without logits."""
    sensitivity: Sensitivity
    machine: RecordingMachine
    images: tuple[GoldenImage, ...]

    def __post_init__(self) -> None:
        """Check bounds, images and captions against each other; raise ValueError."""
        if self.schema != SCHEMA:
            raise ValueError(f"schema {self.schema} is not {SCHEMA}, which this toolkit reads")
        if not (0 <= self.tie_nat <= 1 and 0 <= (self.logits_tolerance or 0) <= 10):
            raise ValueError("tie_nat must be 0 to 1, logits_tolerance 0 to 10")
        if not 1 <= len(self.images) <= MAX_IMAGES:
            raise ValueError(f"there are {len(self.images)} images, not 1 to {MAX_IMAGES}")
        if self.searches not in (SEARCHES, SEARCHES[:1]) or any(_beams(image) != self.searches for image in self.images):
            raise ValueError(f"an image has captions with {', '.join(map(str, self.searches)) or 'no'} beams, another image with others")
        captions = [caption for image in self.images for caption in image.captions]
        if any((caption.margins_nat is None) != (self.logits_tolerance is None) for caption in captions):
            raise ValueError("margins_nat and logits_tolerance must both be given, or neither")
        if any(caption.margins_nat is not None and len(caption.margins_nat) != len(caption.token_ids) - 1 for caption in captions):
            raise ValueError("every token after the first needs a margin")

    @property
    def searches(self) -> tuple[int, ...]:
        """Number of beams of each search, in the order of an image's captions."""
        return _beams(self.images[0])


def _beams(image: GoldenImage) -> tuple[int, ...]:
    return tuple(caption.num_beams for caption in image.captions)


def read_golden(files: VerifiedFiles) -> Golden | None:
    """Return the golden captions of an artifact, or None without them.

    Raises:
        ArtifactCorruptError: golden.json is invalid, or does not belong to the artifact.
    """
    if (golden := load_golden(files, Golden)) is None:
        return None
    needed = {f"{ROLE}:{name}" for image in golden.images for name in (image.original, image.resized)}
    check_roles(files, needed | ({LOGITS_ROLE} if golden.logits_tolerance is not None else set()))
    if problem := _inconsistency(golden, files.artifact.manifest):
        raise ArtifactCorruptError(files.artifact.path_of(ROLE), problem)
    return golden


def load_golden(files: VerifiedFiles, kind: type[G]) -> G | None:
    """Return the content of golden.json as a dataclass, or None without the file; raise ArtifactCorruptError if it is invalid."""
    if ROLE not in {entry.role for entry in files.artifact.manifest.files.values()}:
        return None
    path, content = files.artifact.path_of(ROLE), files.read(ROLE)
    try:
        parsed = json.loads(content) if len(content) <= MAX_BYTES else {}
    except (ValueError, RecursionError) as error:
        raise ArtifactCorruptError(path, f"is not JSON ({error})") from error
    golden, problems = json_dataclass.load(kind, parsed)
    if golden is None:
        raise ArtifactCorruptError(path, "; ".join(problems))
    return golden


def check_roles(files: VerifiedFiles, needed: set[str]) -> None:
    """Raise ArtifactCorruptError if the manifest does not declare a file that golden.json needs."""
    if missing := sorted(needed - {entry.role for entry in files.artifact.manifest.files.values()}):
        path = files.artifact.path_of(ROLE)
        raise ArtifactCorruptError(path, f"needs files with the roles {', '.join(map(repr, missing))}, which the manifest does not declare")


def _inconsistency(golden: Golden, manifest: Manifest) -> str | None:
    """Return why the artifact cannot have produced these captions, or None."""
    model = manifest.model
    if not 2 <= golden.max_length <= model.max_positions:
        return f"max_length is {golden.max_length}, not 2 to the model's {model.max_positions}"
    if 2 * max(golden.searches) >= model.vocabulary:
        return f"{max(golden.searches)} beams are too many for a vocabulary of {model.vocabulary}"
    if any((image.question is not None) != TASKS[manifest.task].asks for image in golden.images):
        return "an image needs a question if the task answers questions, and only then"
    for ids in (caption.token_ids for image in golden.images for caption in image.captions):
        if not 2 <= len(ids) <= golden.max_length:
            return f"a caption has {len(ids)} tokens, not 2 to max_length"
        if not all(0 <= token < model.vocabulary for token in ids) or ids[0] != manifest.tokenizer.bos_id:
            return "a caption has a token that is not in the vocabulary, or another first token"
    return None


def read_image_file(files: VerifiedFiles, name: str, spec: ImageSpec) -> Image.Image:
    """Read a golden image, original or resized, as RGB.

    Raises:
        ArtifactCorruptError: A resized image has another size than `spec`.
        ImageReadError: The image cannot be read.
    """
    image = read_image(files.read(f"{ROLE}:{name}"), name)
    if name.endswith(".png") and image.size != (spec.width_px, spec.height_px):
        path = files.artifact.path_of(f"{ROLE}:{name}")
        raise ArtifactCorruptError(path, f"is {image.width}x{image.height}, not {spec.width_px}x{spec.height_px}")
    return image


def read_logits(files: VerifiedFiles, images: int) -> Logits:
    """Read the recorded logits f32[images,V].

    Raises:
        ArtifactCorruptError: The file has another shape, or values that are not finite.
    """
    content, vocabulary = files.read(LOGITS_ROLE), files.artifact.manifest.model.vocabulary
    if len(content) != 4 * images * vocabulary:
        raise ArtifactCorruptError(files.artifact.path_of(LOGITS_ROLE), f"is not f32[{images},{vocabulary}]")
    logits = np.frombuffer(content, "<f4").reshape(images, vocabulary)
    if not np.isfinite(logits).all():
        raise ArtifactCorruptError(files.artifact.path_of(LOGITS_ROLE), "has logits that are not finite")
    return logits
