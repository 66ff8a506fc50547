"""Record golden scores of a matcher, which `runtimes.verification.match_golden` compares on another machine."""

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from PIL import Image

from runtimes.tasks.matcher import Matcher
from runtimes.verification.golden import SCHEMA, Sensitivity
from runtimes.verification.match_golden import GoldenMatch, GoldenMatches, score_errors, tolerance
from runtimes.verification.replay import machine_of
from toolkit.packaging.goldens import Files, golden_images

TOLERANCES = {"fp32": 1e-3, "fp16": 0.02, "int8": 0.1, "int4": 0.1}
"""Precision → tolerance of a score between two machines. Two machines were not measured; those of logits are 0.19 apart with INT8, and a
score is less steep: a probability changes by at most a quarter of its logit."""


@dataclass(frozen=True)
class MatchRecording:
    """Golden scores and the images that they were recorded with."""

    golden: GoldenMatches
    """The content of golden.json; `sensitivity` has a placeholder."""
    images: tuple[Image.Image, ...]
    """The decoded originals, RGB."""
    files: Files
    """Files of the images, to add to the package."""


def record_matches(matcher: Matcher, path: Path) -> MatchRecording:
    """Compare the golden images with the first caption of each.

    Args:
        matcher: The loaded artifact.
        path: Not used.
    """
    entries = json.loads(resources.files("toolkit.sample").joinpath("captions.json").read_bytes())["images"]
    captions = {entry["file"]: entry["captions"][0] for entry in entries}
    images, files = golden_images(matcher.manifest.image)
    texts = tuple(captions[image.name] for image in images)
    golden = GoldenMatches(
        schema=SCHEMA,
        texts=texts,
        tolerance=TOLERANCES[matcher.manifest.target.precision],
        sensitivity=Sensitivity(layer="", noticed=False),
        machine=machine_of(matcher),
        images=tuple(
            GoldenMatch(original=image.original, resized=image.resized, probabilities=match.probabilities, similarities=match.similarities)
            for image, match in zip(images, matcher.stream([image.decoded for image in images], texts), strict=True)
        ),
    )
    return MatchRecording(golden, tuple(image.decoded for image in images), files)


def notices_matches(recording: MatchRecording, damaged: Matcher) -> bool:
    """Return whether golden scores differ between an artifact and a damaged copy of it."""
    bound = tolerance(damaged, recording.golden)
    return any(not (score_errors(damaged, image, recording.golden, index) <= bound).all() for index, image in enumerate(recording.images))
