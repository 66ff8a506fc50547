"""The gate: an artifact's captioner and the checkpoint's reference run go in; how far they differ, and whether that is allowed, come out.

FP32 artifacts must say what transformers says, token for token. Quantized ones are judged by drift, the rise of the teacher-forced negative
log-probability per token of fixed captions: it orders losses that captions and BLEU on a few images cannot see. numpy only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from exporters.gate.intervals import Float64, interval
from exporters.gate.labelled_image import LabelledImage
from exporters.recipes import Recipe
from runtimes.artifact.folder import sha256_of
from runtimes.captioner import Captioner
from runtimes.errors import GateError

OnGateFailure = Literal["fail", "write"]
"""What an export does with an artifact that fails the gate: refuse it, or write it with its findings."""

TIE_NAT = 1e-3
"""Below this margin between its two best tokens a reference has no opinion that rounding could not change."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What transformers' FP32 model says and thinks of the gate's images."""

    transformers: str
    """Its version."""
    token_ids: tuple[tuple[int, ...], ...]
    """Greedy captions at default lengths, one per image."""
    margins_nat: tuple[tuple[float, ...], ...]
    """Per image and generated token: log-probability of the best token over that of the second."""
    log_probabilities: tuple[tuple[float, ...], ...]
    """Per image and human caption, natural log."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Token-for-token comparison with a reference."""

    equal: int
    ties: int
    different: tuple[tuple[int, int], ...]
    """(image, position) of first differences that are no ties."""


def compare(ours: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]], margins_nat: Sequence[Sequence[float]]) -> Agreement:
    """Compare captions: equal, or a tie if at the first difference the reference's top-2 margin is below `TIE_NAT`.

    Args:
        ours: Ids per image, [DEC] to end.
        theirs: The reference's ids.
        margins_nat: The reference's margins of generated tokens; the last len(margins) of its ids were generated.
    """
    equal = ties = 0
    different: list[tuple[int, int]] = []
    for image, (mine, other, margins) in enumerate(zip(ours, theirs, margins_nat, strict=True)):
        if list(mine) == list(other):
            equal += 1
            continue
        position = next((i for i, (a, b) in enumerate(zip(mine, other, strict=False)) if a != b), min(len(mine), len(other)))
        generated = position - (len(other) - len(margins))
        if 0 <= generated < len(margins) and margins[generated] < TIE_NAT:
            ties += 1
        else:
            different.append((image, position))
    return Agreement(equal=equal, ties=ties, different=tuple(different))


def drift_of_sums(sums: Float64) -> Float64:
    """Sums f64[R,2] of (fall in log-probability, tokens) → f64[R] nat per token."""
    return np.asarray(sums[:, 0] / sums[:, 1])


def check(
    captioner: Captioner, recipe: Recipe, images: Sequence[LabelledImage], reference: Reference, on_failure: OnGateFailure
) -> dict[str, Any]:
    """Judge an artifact and return what goes into its manifest.

    Raises:
        GateError: With `on_failure="fail"`, it differs from the checkpoint by more than the recipe allows.
    """
    paths = [image.path for image in images]
    ids = [caption.token_ids for caption in captioner.caption(paths)]
    agreement = compare(ids, reference.token_ids, reference.margins_nat)
    scores = captioner.score(paths, captions=[image.captions for image in images])
    tokens = [sum(len(captioner.caption_ids(caption)) - 1 for caption in image.captions) for image in images]
    falls = [sum(theirs) - float(ours.sum()) for theirs, ours in zip(reference.log_probabilities, scores, strict=True)]
    rows = np.array([falls, tokens], dtype=np.float64).T
    low, high = interval(rows, drift_of_sums)
    drift = float(drift_of_sums(rows.sum(axis=0, keepdims=True))[0])
    problem = None
    if recipe.drift_limit_nat is None:
        if agreement.different:
            image, position = agreement.different[0]
            problem = (
                f"captions of {len(agreement.different)} of {len(images)} images differ from transformers' "
                f"(first: {paths[image].name}, token {position})"
            )
    elif not high <= recipe.drift_limit_nat:  # also when it is not a number
        problem = f"drift is {drift:+.4f} nat/token, upper 95 % bound {high:+.4f}, the recipe allows {recipe.drift_limit_nat}"
    _enforce(recipe, problem, on_failure)
    return {
        "passed": problem is None,
        "problem": problem,
        "images": len(images),
        "exact_captions": agreement.equal,
        "ties": agreement.ties,
        "drift_nat_per_token": round(drift, 6),
        "drift_low": round(low, 6),
        "drift_high": round(high, 6),
        "drift_limit": recipe.drift_limit_nat,
        "device": captioner.session.info().device,
        "reference": f"transformers {reference.transformers} FP32 generate",
        "captions": {sha256_of(path): list(said) for path, said in zip(paths, ids, strict=True)},
    }


def check_joined(
    captioner: Captioner, recipe: Recipe, images: Sequence[LabelledImage], findings: dict[str, Any], on_failure: OnGateFailure
) -> dict[str, Any]:
    """Judge a single graph, which gives no scores, by what it was joined from: it must say the same, token for token.

    Args:
        captioner: Of the single graph.
        recipe: Of both.
        images: What `check` looked at.
        findings: Of `check` on the split graphs.
        on_failure: Refuse the artifact, or only record the problem.

    Returns:
        The findings, which hold for the single graph too if it says the same.

    Raises:
        GateError: With `on_failure="fail"`, it says something else.
    """
    paths = [image.path for image in images]
    said = {sha256_of(path): list(caption.token_ids) for path, caption in zip(paths, captioner.caption(paths), strict=True)}
    different = [path for path in paths if said[sha256_of(path)] != findings["captions"][sha256_of(path)]]
    problem = None
    if different:
        problem = (
            f"captions of {len(different)} of {len(paths)} images differ between the single graph and the split ones "
            f"(first: {different[0].name})"
        )
    _enforce(recipe, problem, on_failure)
    return findings | {
        "passed": findings["passed"] and problem is None,
        "problem": "; ".join(found for found in (findings["problem"], problem) if found) or None,
        "captions": said,
        "captions_as_split": len(paths) - len(different),
    }


def _enforce(recipe: Recipe, problem: str | None, on_failure: OnGateFailure) -> None:
    if problem and on_failure == "fail":
        remedy = "--on-gate-failure write writes it all the same and records the failure in its manifest."
        raise GateError(f"{recipe.name}: {problem}. Nothing was written. {remedy}")


def findings_line(findings: dict[str, Any]) -> str:
    """Say a gate's findings in one line."""
    # + 0.0: no minus before a zero
    drift, low, high = (round(findings[key], 4) + 0.0 for key in ("drift_nat_per_token", "drift_low", "drift_high"))
    as_split = (
        f"; {findings['captions_as_split']} of {findings['images']} equal the split graphs'" if "captions_as_split" in findings else ""
    )
    verdict = "gate passed" if findings["passed"] else f"gate not passed ({findings['problem']})"
    return (
        f"{verdict}: {findings['exact_captions']} of {findings['images']} captions equal transformers', {findings['ties']} ties, drift "
        f"{drift:+.4f} [{low:+.4f}, {high:+.4f}] nat/token{as_split}"
    )
