"""Golden captions: captions of a few images, recorded where an artifact was packaged, to be compared on the machine where it runs.

A package contains, beside the model's files, each declared in its manifest as optional:

- `golden.json` (role "golden"): a `Golden`, below.
- `golden-logits.f32` (role "golden-logits"): f32[I,V] little-endian, row i the logits of the token after the first one for image i. A
  session that runs its whole loop in one call returns no logits: then there is no such file, and captions are compared by ids and score.
- per image `golden-NAME.jpg`, the file as it is shipped, for the whole path from bytes to words; and `golden-NAME.png`, the same image as
  RGB of exactly `image.width_px` x `image.height_px`, resized with `image.resample` and not yet rescaled or normalized. A runtime that
  resizes otherwise (a browser, a camera's hardware) starts from the PNG and must get the same ids.

Every search starts without a prompt, with no shortest length, length penalty 1, and one image per run.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from typing import TypeAlias

import numpy as np
from PIL import Image

from runtimes.artifact import json_dataclass
from runtimes.artifact.manifest import Manifest
from runtimes.artifact.verified_files import VerifiedFiles
from runtimes.caption import Caption
from runtimes.captioner import Captioner
from runtimes.decoding.search import FIRST_POSITION, log_softmax
from runtimes.decoding.session import Float32
from runtimes.errors import ArtifactCorruptError, EngineError, translate_errors
from runtimes.host.facts import read_host
from runtimes.images.reading import preprocess, read_image

SCHEMA = 1
FILE, LOGITS = "golden.json", "golden-logits.f32"
ROLE, LOGITS_ROLE = "golden", "golden-logits"
"""An image's role is `golden:` and its file name."""
MAX_BYTES = 1 << 20
"""Of golden.json."""
MAX_IMAGES = 16
SAME_MACHINE_TOLERANCE = 1e-3
"""Largest difference of a logit where CPU features and versions are those of the recording machine; only threads may differ."""
Logits: TypeAlias = Float32 | None
"""f32[I,V], of the token after the first one; None of a session that returns none."""
SEARCHES = (1, 3)
"""Beams of the searches that are recorded: greedy, and a beam search where the session has beams."""


@dataclass(frozen=True, kw_only=True)
class GoldenCaption:
    """A caption as it was recorded."""

    num_beams: int
    token_ids: tuple[int, ...]
    """All ids, first and end token included."""
    text: str
    score: float
    """See `Caption.score`."""
    margins_nat: tuple[float, ...] | None
    """Per generated token, after the ones before it: log-probability of the best token over that of the second. None without logits."""

    def __post_init__(self) -> None:
        """Refuse what no caption has."""
        margins = self.margins_nat or ()
        if not all(map(isfinite, (self.score, *margins))) or any(margin < 0 for margin in margins):
            raise ValueError("score and margins must be finite, and no margin negative")


@dataclass(frozen=True, kw_only=True)
class GoldenImage:
    """An image and its captions, one for each search."""

    original: str
    """File name of the image as shipped."""
    resized: str
    """File name of the RGB PNG."""
    captions: tuple[GoldenCaption, ...]


@dataclass(frozen=True, kw_only=True)
class RecordingMachine:
    """Where captions were recorded: on another such machine they are the same to the last bit, elsewhere within the bounds."""

    cpu_features: tuple[str, ...]
    versions: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """Whether golden captions notice damage that hashes do not see. Measured once, when an artifact is packaged."""

    layer: str
    """The weight of which a thousandth was set to zero."""
    noticed: bool
    """Whether a golden caption or its logits changed."""


@dataclass(frozen=True, kw_only=True)
class Golden:
    """golden.json."""

    schema: int
    max_length: int
    """Longest caption, in tokens, the first one included."""
    tie_nat: float
    """A caption may differ from where the recorded margin is below this."""
    logits_tolerance: float | None
    """Largest difference of a logit that another machine may make; None: the session returns no logits."""
    sensitivity: Sensitivity
    machine: RecordingMachine
    images: tuple[GoldenImage, ...]

    def __post_init__(self) -> None:
        """Refuse bounds that forgive anything, and captions that do not belong together."""
        if self.schema != SCHEMA:
            raise ValueError(f"schema {self.schema} is not {SCHEMA}, which this toolkit reads")
        if not (0 <= self.tie_nat <= 1 and 0 <= (self.logits_tolerance or 0) <= 10):
            raise ValueError("bounds as wide as these forgive anything")
        if not 1 <= len(self.images) <= MAX_IMAGES:
            raise ValueError(f"there are {len(self.images)} images, not 1 to {MAX_IMAGES}")
        if self.searches not in (SEARCHES, SEARCHES[:1]) or any(_beams(image) != self.searches for image in self.images):
            raise ValueError(f"an image has captions with {', '.join(map(str, self.searches)) or 'no'} beams, another with others")
        captions = [caption for image in self.images for caption in image.captions]
        if any((caption.margins_nat is None) != (self.logits_tolerance is None) for caption in captions):
            raise ValueError("margins and a tolerance of logits are recorded together")
        if any(caption.margins_nat is not None and len(caption.margins_nat) != len(caption.token_ids) - 1 for caption in captions):
            raise ValueError("every token after the first needs its margin")

    @property
    def searches(self) -> tuple[int, ...]:
        """Beams of each search, in the order of an image's captions."""
        return _beams(self.images[0])


def _beams(image: GoldenImage) -> tuple[int, ...]:
    return tuple(caption.num_beams for caption in image.captions)


def has_logits(captioner: Captioner) -> bool:
    """Whether a captioner's session returns logits; one that runs its whole loop in one call does not."""
    return "step" in captioner.session.capabilities


def searches_of(captioner: Captioner) -> tuple[int, ...]:
    """Return the searches of `SEARCHES` that a captioner's session can run."""
    return SEARCHES if has_logits(captioner) else SEARCHES[:1]


def golden_caption(captioner: Captioner, image: Image.Image, num_beams: int, max_length: int) -> Caption:
    """Caption one RGB image as golden captions are searched for."""
    return captioner.caption([image], num_beams=num_beams, min_length=0, max_length=max_length, length_penalty=1.0)[0]


def first_logits(captioner: Captioner, image: Image.Image) -> Float32 | None:
    """Return the logits f32[V] of the token after the first one; None from a session that returns none."""
    if not has_logits(captioner):
        return None
    state = captioner.stepwise_session.encode({"pixels": preprocess(image, captioner.manifest.image)[None]})
    logits, _ = captioner.stepwise_session.step(np.array([captioner.tokenizer.prompt_ids(None)], np.int64), state, FIRST_POSITION)
    return np.array(logits[0, 0])


def teacher_force(captioner: Captioner, image: Image.Image, token_ids: Sequence[int]) -> tuple[tuple[float, ...], float]:
    """Feed a caption token by token, as greedy search does.

    Returns:
        Margins of the two best tokens after each but the last, nat; and the caption's log-probability per generated token.
    """
    state, margins, total = captioner.stepwise_session.encode({"pixels": preprocess(image, captioner.manifest.image)[None]}), [], 0.0
    for fed, wanted in pairwise(token_ids):
        logits, state = captioner.stepwise_session.step(np.array([[fed]], np.int64), state, FIRST_POSITION)
        probabilities = log_softmax(logits[0, 0])
        second, best = np.partition(probabilities, -2)[-2:]
        margins.append(float(best - second))
        total += float(probabilities[wanted])
    return tuple(margins), total / len(margins)


def compare_caption(
    captioner: Captioner, image: Image.Image, recorded: GoldenCaption, found: Caption, tie_nat: float
) -> tuple[bool, str | None]:
    """Compare a caption with the recorded one.

    At the first difference it is a tie if the recorded margin is below the bound. A beam search weighs whole captions besides, so there
    it is also one if the recorded caption is as likely here as the one that was found. Without margins nothing is a tie.

    Returns:
        Whether it is a tie, and what differs; None if nothing does.
    """
    mine, other = found.token_ids, recorded.token_ids
    if mine == other:
        return False, None
    position = next((i for i, (a, b) in enumerate(zip(mine, other, strict=False)) if a != b), min(len(mine), len(other)))
    problem = f"with {recorded.num_beams} beams: {found.text!r}, not {recorded.text!r} (token {position}"
    if recorded.margins_nat is None:
        return False, f"{problem}; without logits a tie counts as a difference)"
    margin = recorded.margins_nat[position - 1] if 1 <= position <= len(recorded.margins_nat) else float("inf")
    problem += f", margin {margin:.4f} nat)"
    if recorded.num_beams > 1 and margin >= tie_nat and found.score is not None:
        margin = abs(found.score - teacher_force(captioner, image, other)[1])
    return margin < tie_nat, problem


@dataclass(frozen=True, kw_only=True)
class ImageComparison:
    """How the captions of one image differ from the recorded ones."""

    equal: int = 0
    ties: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()
    """What is no tie."""
    logits_difference: float | None = None
    """Largest one; None without logits."""


def compare_image(captioner: Captioner, image: Image.Image, name: str, golden: Golden, index: int, expected: Logits) -> ImageComparison:
    """Caption one golden image, RGB, and compare.

    Args:
        captioner: Of the artifact, or of a copy of it.
        image: The image, in one of its forms.
        name: Its file name, for messages.
        golden: From `read_golden`, or recorded a moment ago.
        index: Which of its images this is.
        expected: Recorded logits.

    Raises:
        EngineError: The engine failed while it ran.
    """
    equal = 0
    ties: list[str] = []
    differences: list[str] = []
    logits_difference, bound = None, logits_bound(captioner, golden)
    with translate_errors(lambda problem: EngineError(captioner.manifest.name, problem)):
        if bound is not None and expected is not None and (logits := first_logits(captioner, image)) is not None:
            logits_difference = float(np.abs(logits - expected[index]).max())
            if not logits_difference <= bound:  # also when it is not a number
                differences.append(f"{name}: logits differ by {logits_difference:.4g}, {bound:.4g} is allowed")
        for recorded in golden.images[index].captions:
            found = golden_caption(captioner, image, recorded.num_beams, golden.max_length)
            tie, problem = compare_caption(captioner, image, recorded, found, golden.tie_nat)
            equal += problem is None
            if problem is not None:
                (ties if tie else differences).append(f"{name}: {problem}")
            elif bound is None and not (drift := abs((found.score or 0.0) - recorded.score)) <= (
                allowed := _score_bound(captioner, golden)
            ):
                differences.append(f"{name}: its score differs by {drift:.4g} nat per token, {allowed:.4g} is allowed")
    return ImageComparison(equal=equal, ties=tuple(ties), differences=tuple(differences), logits_difference=logits_difference)


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Result of comparing golden captions."""

    searches: tuple[int, ...]
    """Beams of each."""
    captions: int
    """Compared, over images, searches and the two forms of an image."""
    equal: int
    ties: tuple[str, ...]
    differences: tuple[str, ...]
    """What is no tie; empty where the artifact is right."""
    logits_difference: float | None
    """Largest one; None without logits."""
    logits_bound: float | None
    same_machine: bool
    """Whether this machine has the CPU features and versions of the one that recorded them."""


def machine_of(captioner: Captioner) -> RecordingMachine:
    """Return what decides how this machine rounds."""
    return RecordingMachine(cpu_features=tuple(sorted(read_host().cpu_features)), versions=captioner.session.info().versions)


def logits_bound(captioner: Captioner, golden: Golden) -> float | None:
    """Return the largest difference of a logit that is allowed here; None without logits."""
    if golden.logits_tolerance is None or machine_of(captioner) != golden.machine:
        return golden.logits_tolerance
    return min(SAME_MACHINE_TOLERANCE, golden.logits_tolerance)


def _score_bound(captioner: Captioner, golden: Golden) -> float:
    """Return the largest difference of a caption's score that is allowed here; it stands in where a session returns no logits."""
    return SAME_MACHINE_TOLERANCE if machine_of(captioner) == golden.machine else max(golden.tie_nat, SAME_MACHINE_TOLERANCE)


def read_golden(files: VerifiedFiles) -> Golden | None:
    """Return an artifact's golden captions, or None if it has none.

    Raises:
        ArtifactCorruptError: They cannot be read, or do not fit the artifact.
    """
    manifest = files.artifact.manifest
    if ROLE not in (roles := {entry.role for entry in manifest.files.values()}):
        return None
    path, content = files.artifact.path_of(ROLE), files.read(ROLE)
    try:
        parsed = json.loads(content) if len(content) <= MAX_BYTES else {}
    except (ValueError, RecursionError) as error:
        raise ArtifactCorruptError(path, f"is not JSON ({error})") from error
    golden, problems = json_dataclass.load(Golden, parsed)
    if golden is None:
        raise ArtifactCorruptError(path, "; ".join(problems))
    named = {f"{ROLE}:{name}" for image in golden.images for name in (image.original, image.resized)}
    named |= {LOGITS_ROLE} if golden.logits_tolerance is not None else set()
    if missing := sorted(named - roles):
        raise ArtifactCorruptError(path, f"needs files with the roles {', '.join(map(repr, missing))}, which the manifest does not declare")
    if problem := _misfit(golden, manifest):
        raise ArtifactCorruptError(path, problem)
    return golden


def _misfit(golden: Golden, manifest: Manifest) -> str | None:
    """Return why an artifact cannot have given these captions, or None."""
    model = manifest.model
    if not 2 <= golden.max_length <= model.max_positions:
        return f"max_length is {golden.max_length}, not 2 to the model's {model.max_positions}"
    if 2 * max(golden.searches) >= model.vocabulary:
        return f"{max(golden.searches)} beams are too many for a vocabulary of {model.vocabulary}"
    for ids in (caption.token_ids for image in golden.images for caption in image.captions):
        if not 2 <= len(ids) <= golden.max_length:
            return f"a caption has {len(ids)} tokens, not 2 to max_length"
        if not all(0 <= token < model.vocabulary for token in ids) or ids[0] != manifest.tokenizer.bos_id:
            return "a caption has a token that is not in the vocabulary, or another first token"
    return None


def replay(captioner: Captioner, golden: Golden, files: VerifiedFiles) -> Replay:
    """Caption the golden images of an artifact with its captioner and compare.

    The image as shipped and the resized one are both read; where they give the same pixels, as they should, the model runs once.

    Raises:
        ArtifactCorruptError, ImageReadError: An image or the logits do not fit golden.json.
        EngineError: The engine failed while it ran.
    """
    logits = None if golden.logits_tolerance is None else _logits(files, len(golden.images))
    compared = []
    for index, image in enumerate(golden.images):
        forms = [(name, _read(captioner, files, name)) for name in (image.original, image.resized)]
        original, resized = (preprocess(form, captioner.manifest.image) for _, form in forms)
        if np.array_equal(original, resized):
            forms = [(f"{image.original} and {image.resized}", forms[0][1])]
        compared += [compare_image(captioner, form, name, golden, index, logits) for name, form in forms]
    differences = [one.logits_difference for one in compared if one.logits_difference is not None]
    return Replay(
        searches=golden.searches,
        captions=len(compared) * len(golden.searches),
        equal=sum(one.equal for one in compared),
        ties=tuple(tie for one in compared for tie in one.ties),
        differences=tuple(difference for one in compared for difference in one.differences),
        logits_difference=max(differences, default=None),
        logits_bound=logits_bound(captioner, golden),
        same_machine=machine_of(captioner) == golden.machine,
    )


def _read(captioner: Captioner, files: VerifiedFiles, name: str) -> Image.Image:
    spec = captioner.manifest.image
    image = read_image(files.read(f"{ROLE}:{name}"), name)
    if name.endswith(".png") and image.size != (spec.width_px, spec.height_px):
        path = files.artifact.path_of(f"{ROLE}:{name}")
        raise ArtifactCorruptError(path, f"is {image.width}x{image.height}, not {spec.width_px}x{spec.height_px}")
    return image


def _logits(files: VerifiedFiles, images: int) -> Logits:
    """Read f32[images,V].

    Raises:
        ArtifactCorruptError: They have another shape, or are not finite.
    """
    content, vocabulary = files.read(LOGITS_ROLE), files.artifact.manifest.model.vocabulary
    if len(content) != 4 * images * vocabulary:
        raise ArtifactCorruptError(files.artifact.path_of(LOGITS_ROLE), f"is not f32[{images},{vocabulary}]")
    logits = np.frombuffer(content, "<f4").reshape(images, vocabulary)
    if not np.isfinite(logits).all():
        raise ArtifactCorruptError(files.artifact.path_of(LOGITS_ROLE), "has logits that are not finite")
    return logits
