"""The gate of matchers: compare an artifact's scores and rankings with those of its checkpoint.

A score is the cosine of two embeddings, or the probability of the matching head. FP32 artifacts must have transformers' scores. Quantized
artifacts may change them by a limit on average, and for most texts the image that transformers ranks first must stay first, or among the
first five. The only library used is numpy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters.gate.gate import OnGateFailure, enforce
from exporters.gate.labelled_image import LabelledImage
from exporters.gate.matching_limits import EXACT, limits_of
from exporters.gate.retrieval import TOP, ranks, recall
from exporters.recipe import Recipe
from runtimes.tasks.matcher import Matcher


@dataclass(frozen=True, kw_only=True)
class MatchingReference:
    """Results of transformers' FP32 model on the gate's images and their captions."""

    transformers: str
    """Version of transformers."""
    similarities: tuple[tuple[float, ...], ...]
    """Per image and caption of any image: cosine of the embeddings."""
    probabilities: tuple[tuple[float, ...], ...]
    """Per image and first caption of any image: probability of the matching head."""

    def fits(self, images: Sequence[LabelledImage]) -> bool:
        """Return whether this is a reference of these images."""
        captions, firsts = all_captions(images)[0], first_captions(images)[0]
        sizes = {(len(captions), len(firsts))}
        return len(self.similarities) == len(self.probabilities) == len(images) and sizes == {
            (len(row), len(probabilities)) for row, probabilities in zip(self.similarities, self.probabilities, strict=True)
        }


def all_captions(images: Sequence[LabelledImage]) -> tuple[list[str], list[int]]:
    """Return the captions of all images, and the index of each one's image."""
    pairs = [(caption, index) for index, image in enumerate(images) for caption in image.texts]
    return [caption for caption, _ in pairs], [index for _, index in pairs]


def first_captions(images: Sequence[LabelledImage]) -> tuple[list[str], list[int]]:
    """Return the first caption of each image that has one, and the index of its image."""
    pairs = [(image.texts[0], index) for index, image in enumerate(images) if image.texts]
    return [caption for caption, _ in pairs], [index for _, index in pairs]


def evaluate(
    matcher: Matcher, recipe: Recipe, images: Sequence[LabelledImage], reference: MatchingReference, on_failure: OnGateFailure
) -> dict[str, Any]:
    """Compare an artifact with its checkpoint.

    Args:
        matcher: Matcher of the artifact.
        recipe: The artifact's recipe. Without a drift limit, scores must be equal; with one, those of `limits_of` apply.
        images: The gate's images with their captions.
        reference: The checkpoint's results on the same images, in the same order.
        on_failure: "fail" raises GateError; "write" records the failure in the findings.

    Returns:
        The findings, as JSON values for the manifest.

    Raises:
        GateError: With `on_failure="fail"`, the artifact differs from the checkpoint by more than the recipe allows.
    """
    paths = [image.path for image in images]
    (captions, own), (firsts, _) = all_captions(images), first_captions(images)
    similarities, probabilities = matcher.similarity(paths, captions), matcher.match(paths, firsts)
    expected = np.array(reference.similarities, np.float32)
    changes = {
        "similarity": np.abs(similarities - expected),
        "probability": np.abs(probabilities - np.array(reference.probabilities, np.float32)),
    }
    best = expected.argmax(axis=0).tolist()
    agreement = {k: recall(ranks(similarities, best), k) for k in TOP}
    problem = _problem(recipe, changes, agreement)
    enforce(recipe, problem, on_failure)
    return {
        "passed": problem is None,
        "problem": problem,
        "images": len(images),
        "texts": len(captions),
        **{f"{name}_change": round(float(change.mean()), 7) for name, change in changes.items()},
        **{f"{name}_change_max": round(float(change.max()), 7) for name, change in changes.items()},
        **{f"agreement_at_{k}": round(share, 4) for k, share in agreement.items()},
        **{f"recall_at_{k}": round(recall(ranks(similarities, own), k), 4) for k in TOP},
        **{f"reference_recall_at_{k}": round(recall(ranks(expected, own), k), 4) for k in TOP},
        "device": matcher.session.info().device,
        "reference": f"transformers {reference.transformers} FP32",
    }


def _problem(recipe: Recipe, changes: Mapping[str, NDArray[np.float32]], agreement: Mapping[int, float]) -> str | None:
    """Return why an artifact fails the gate, or None."""
    if recipe.drift_limit_nat is None:
        wrong = [(name, float(change.max())) for name, change in changes.items() if not change.max() <= EXACT]
        return f"a {wrong[0][0]} differs by {wrong[0][1]:.2g} from transformers', more than {EXACT:g}" if wrong else None
    limits = limits_of(recipe.precision, approximate=recipe.approximate)
    for name, change in changes.items():
        if not change.mean() <= limits.score:
            return f"a {name} changes by {change.mean():.4f} on average, the recipe allows {limits.score}"
    for k, share in agreement.items():
        if share < limits.agreement[k]:
            best = f"transformers' best image is among the {k} best"
            return f"for {share:.0%} of the captions, {best}, the recipe needs {limits.agreement[k]:.0%}"
    return None


def findings_line(findings: Mapping[str, Any]) -> str:
    """Format the gate's findings as one line."""
    result = "gate passed" if findings["passed"] else f"gate not passed ({findings['problem']})"
    return f"{result}: {quality_text(findings)}"


def quality_text(findings: Mapping[str, Any]) -> str:
    """Return the change of scores and the agreement of ranks in the gate's findings."""
    agreement = " and ".join(f"{findings[f'agreement_at_{k}']:.1%} (R@{k})" for k in TOP)
    return (
        f"mean change of similarity {findings['similarity_change']:.5f}, of probability {findings['probability_change']:.5f}; "
        f"{agreement} of {findings['texts']} captions rank transformers' best image as high"
    )
