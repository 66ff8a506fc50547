"""Golden scores: the golden file of a matcher, and its comparison with this machine.

`golden.json` of a matcher is a `GoldenMatches`: the scores of a few images and texts on the machine that packaged the artifact. The images
have the forms and file names of golden captions, see `runtimes.verification.golden`.
"""

from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runtimes.artifact.verified_files import VerifiedFiles
from runtimes.errors import EngineError, translate_errors
from runtimes.tasks.matcher import Matcher
from runtimes.verification.golden import MAX_IMAGES, ROLE, SCHEMA, RecordingMachine, Sensitivity, check_roles, load_golden
from runtimes.verification.replay import Replay, each_form, machine_of

SAME_MACHINE_TOLERANCE = 1e-4
"""Largest difference of a score if CPU features and library versions equal those of the recording machine."""
MAX_TEXTS = 64


@dataclass(frozen=True, kw_only=True)
class GoldenMatch:
    """An image and its scores."""

    original: str
    """File name of the original image."""
    resized: str
    """File name of the resized PNG."""
    probabilities: tuple[float, ...]
    """Per text: probability of the matching head."""
    similarities: tuple[float, ...]
    """Per text: cosine of the embeddings."""

    def __post_init__(self) -> None:
        """Check the scores; raise ValueError."""
        if not all(map(isfinite, (*self.probabilities, *self.similarities))):
            raise ValueError("scores must be finite")


@dataclass(frozen=True, kw_only=True)
class GoldenMatches:
    """The content of golden.json."""

    schema: int
    texts: tuple[str, ...]
    tolerance: float
    """Largest allowed difference of a score on another machine."""
    sensitivity: Sensitivity
    machine: RecordingMachine
    images: tuple[GoldenMatch, ...]

    def __post_init__(self) -> None:
        """Check the numbers of images, texts and scores; raise ValueError."""
        if self.schema != SCHEMA:
            raise ValueError(f"schema {self.schema} is not {SCHEMA}, which this toolkit reads")
        if not (0 <= self.tolerance <= 1 and 1 <= len(self.images) <= MAX_IMAGES and 1 <= len(self.texts) <= MAX_TEXTS):
            raise ValueError(f"tolerance must be 0 to 1, with 1 to {MAX_IMAGES} images and 1 to {MAX_TEXTS} texts")
        if any({len(image.probabilities), len(image.similarities)} != {len(self.texts)} for image in self.images):
            raise ValueError("every image needs a probability and a similarity for every text")


def read_golden_matches(files: VerifiedFiles) -> GoldenMatches | None:
    """Return the golden scores of an artifact, or None without them.

    Raises:
        ArtifactCorruptError: golden.json is invalid, or does not belong to the artifact.
    """
    golden = load_golden(files, GoldenMatches)
    if golden is not None:
        check_roles(files, {f"{ROLE}:{name}" for image in golden.images for name in (image.original, image.resized)})
    return golden


def replay_matches(matcher: Matcher, golden: GoldenMatches, files: VerifiedFiles) -> Replay:
    """Compare the golden images of an artifact with the golden texts, and the scores with those of the recording machine.

    Args:
        matcher: Matcher of the artifact.
        golden: From `read_golden_matches`, or just recorded.
        files: The files of the artifact.

    Raises:
        ArtifactCorruptError, ImageReadError: An image does not belong to golden.json.
        EngineError: The engine failed during a run.
    """
    bound, equal, total, largest, differences = tolerance(matcher, golden), 0, 0, 0.0, []
    for index, image in enumerate(golden.images):
        for name, form in each_form(files, (image.original, image.resized), matcher.manifest.image):
            errors = score_errors(matcher, form, golden, index)
            total, equal, largest = total + len(errors), equal + int((errors <= bound).sum()), max(largest, float(errors.max()))
            if not (errors <= bound).all():  # true for NaN as well
                differences.append(f"{name}: scores differ by {errors.max():.4g}, {bound:.4g} is allowed")
    return Replay(
        searches=(),
        captions=total,
        equal=equal,
        ties=(),
        differences=tuple(differences),
        logits_difference=largest,
        logits_bound=bound,
        same_machine=machine_of(matcher) == golden.machine,
    )


def tolerance(matcher: Matcher, golden: GoldenMatches) -> float:
    """Return the largest allowed difference of a score on this machine."""
    return min(SAME_MACHINE_TOLERANCE, golden.tolerance) if machine_of(matcher) == golden.machine else golden.tolerance


def score_errors(matcher: Matcher, image: Image.Image, golden: GoldenMatches, index: int) -> NDArray[np.float64]:
    """Return the differences f[2T] of an image's probabilities and similarities from the recorded ones.

    Args:
        matcher: The matcher.
        image: The golden image.
        golden: Texts and recorded scores.
        index: Number of the image in `golden.images`.
    """
    recorded = golden.images[index]
    with translate_errors(lambda problem: EngineError(matcher.manifest.name, problem)):
        (match,) = matcher.stream([image], golden.texts)
    scores = np.array([*match.probabilities, *match.similarities], np.float64)
    return np.asarray(np.abs(scores - np.array([*recorded.probabilities, *recorded.similarities])))
