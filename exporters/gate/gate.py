"""The gate: compare an artifact with its checkpoint's reference run, and fail if they differ by more than the recipe allows.

FP32 artifacts must produce the same token ids as transformers. Quantized artifacts are judged by their drift: the increase in negative
log-probability per token of fixed captions, teacher-forced. Drift shows small losses that captions and BLEU on a few images do not show.
The only library used is numpy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from exporters.gate.drift import drift_text, measure_drift, summed_by
from exporters.gate.intervals import finite
from exporters.gate.labelled_image import LabelledImage
from exporters.gate.verdict import judge, within
from exporters.recipe import Recipe
from runtimes.artifact.folder import sha256_of
from runtimes.decoding.scoring import sequence_log_probability
from runtimes.errors import GateError
from runtimes.tasks.registry import TASKS
from runtimes.tasks.text_generator import TextGenerator

OnGateFailure = Literal["retry", "fail", "write"]
"""What an export does if an artifact fails the gate: try the recipe again with other formats for single layers and then raise GateError,
raise GateError, or write the artifact with the failure recorded in its manifest."""

TIE_NAT = 1e-3
"""If the two best tokens of the reference differ by less than this log-probability, rounding alone can swap them: a tie."""

REMEDY = "--on-gate-failure write writes the artifact anyway and records the failure in its manifest."


class AnyReference(Protocol):
    """Results of transformers' FP32 model on the gate's images: a dataclass of JSON values."""

    def fits(self, images: Sequence[LabelledImage]) -> bool:
        """Return whether the numbers of results are those of the images and their captions."""
        ...


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Results of transformers' FP32 model on the gate's images."""

    transformers: str
    """Version of transformers."""
    token_ids: tuple[tuple[int, ...], ...]
    """Per image: token ids of the caption with the checkpoint's own settings."""
    margins_nat: tuple[tuple[float, ...], ...]
    """Per image and generated token: log-probability of the best token minus that of the second, in nat; () of a beam search."""
    log_probabilities: tuple[tuple[float, ...], ...]
    """Per image and reference caption: teacher-forced log-probability, in nat."""

    def fits(self, images: Sequence[LabelledImage]) -> bool:
        """See `AnyReference.fits`."""
        captions = [len(image.texts) for image in images]
        return [len(row) for row in self.log_probabilities] == captions and len(self.token_ids) == len(self.margins_nat) == len(captions)


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Result of comparing captions with those of a reference, token by token."""

    equal: int
    """Number of captions with the same token ids."""
    ties: int
    """Number of captions whose first difference is a tie."""
    different: tuple[tuple[int, int], ...]
    """(image, position) of each first difference that is not a tie."""


def compare(token_ids: Sequence[Sequence[int]], reference: Sequence[Sequence[int]], margins_nat: Sequence[Sequence[float]]) -> Agreement:
    """Compare captions with those of a reference.

    A caption is a tie if the reference's margin at the first difference is below `TIE_NAT`.

    Args:
        token_ids: Token ids per image, from [DEC] to the end token.
        reference: The reference's token ids per image.
        margins_nat: The reference's margins per image. They belong to the last len(margins) of its token ids, which were generated.
    """
    equal = ties = 0
    different: list[tuple[int, int]] = []
    for image, (ids, expected, margins) in enumerate(zip(token_ids, reference, margins_nat, strict=True)):
        if list(ids) == list(expected):
            equal += 1
            continue
        position = next((i for i, (a, b) in enumerate(zip(ids, expected, strict=False)) if a != b), min(len(ids), len(expected)))
        generated = position - (len(expected) - len(margins))
        if 0 <= generated < len(margins) and margins[generated] < TIE_NAT:
            ties += 1
        else:
            different.append((image, position))
    return Agreement(equal=equal, ties=ties, different=tuple(different))


def evaluate(
    model: TextGenerator[Any, Any], recipe: Recipe, images: Sequence[LabelledImage], reference: Reference, on_failure: OnGateFailure
) -> dict[str, Any]:
    """Compare an artifact with its checkpoint.

    Args:
        model: TextGenerator[Any, Any] of the artifact.
        recipe: The artifact's recipe: without a drift limit, token ids must be equal; with one, the upper 95 % bound of drift counts.
        images: The gate's images with their reference captions.
        reference: The checkpoint's results on the same images, in the same order.
        on_failure: "fail" raises GateError; "write" records the failure in the findings.

    Returns:
        The findings, as JSON values for the manifest.

    Raises:
        GateError: With `on_failure="fail"`, the artifact differs from the checkpoint by more than the recipe allows.
    """
    ids, word = token_ids(model, images), TASKS[model.manifest.task].text
    agreement = compare(ids, reference.token_ids, reference.margins_nat)
    scores, tokens = [], []
    for image in images:
        rows = model.reference_log_probabilities(image.path, image.question, image.texts)
        sequences = [model.text_ids(text) for text in image.texts]
        scores.append(sum(sequence_log_probability(row, sequence) for row, sequence in zip(rows, sequences, strict=True)))
        tokens.append(sum(len(sequence) - 1 for sequence in sequences))
    logprob_drops = [sum(expected) - actual for expected, actual in zip(reference.log_probabilities, scores, strict=True)]
    drift = measure_drift(*summed_by([image.path for image in images], np.array([logprob_drops, tokens], dtype=np.float64).T).T)
    judgement = judge(drift, recipe.drift_limit_nat)
    problem = None
    if recipe.drift_limit_nat is None:
        if agreement.different:
            first, position = agreement.different[0]
            problem = (
                f"{word}s of {len(agreement.different)} of {len(images)} images differ from transformers' "
                f"(first: {images[first].path.name}, token {position})"
            )
    elif not within(drift, recipe.drift_limit_nat):
        problem = (
            f"{judgement.text}: drift is {drift.nat:+.4f} nat/token, upper 95 % bound {drift.high:+.4f}, "
            f"the recipe allows {recipe.drift_limit_nat}"
        )
    enforce(recipe, problem, on_failure)
    return {
        "passed": problem is None,
        "problem": problem,
        "images": len(images),
        "exact_captions": agreement.equal,
        "ties": agreement.ties,
        "drift_nat_per_token": round(drift.nat, 6),
        "drift_low": finite(drift.low, 6),
        "drift_high": finite(drift.high, 6),
        "drift_limit": recipe.drift_limit_nat,
        "verdict": judgement.text,
        "device": model.session.info().device,
        "reference": f"transformers {reference.transformers} FP32 generate",
        "text": word,
        "captions": {key_of(image): list(each) for image, each in zip(images, ids, strict=True)},
    }


def evaluate_joined(
    model: TextGenerator[Any, Any], recipe: Recipe, images: Sequence[LabelledImage], findings: dict[str, Any], on_failure: OnGateFailure
) -> dict[str, Any]:
    """Compare a single graph with the split graphs that it was joined from.

    A single graph computes no scores, so its drift cannot be measured. It must produce the same token ids as the split graphs; the drift of
    the split graphs then holds for it, too.

    Args:
        model: TextGenerator[Any, Any] of the single graph.
        recipe: The recipe of both.
        images: The images that `evaluate` had.
        findings: The result of `evaluate` on the split graphs.
        on_failure: "fail" raises GateError; "write" records the failure in the findings.

    Returns:
        The findings on the single graph, as JSON values for the manifest.

    Raises:
        GateError: With `on_failure="fail"`, a caption differs.
    """
    captions = {key_of(image): list(ids) for image, ids in zip(images, token_ids(model, images), strict=True)}
    different = [image.path for image in images if captions[key_of(image)] != findings["captions"][key_of(image)]]
    problem = None
    if different:
        problem = (
            f"captions of {len(different)} of {len(images)} images differ between the single graph and the split ones "
            f"(first: {different[0].name})"
        )
    enforce(recipe, problem, on_failure)
    return findings | {
        "passed": findings["passed"] and problem is None,
        "problem": "; ".join(text for text in (findings["problem"], problem) if text) or None,
        "captions": captions,
        "captions_as_split": len(images) - len(different),
    }


def token_ids(model: TextGenerator[Any, Any], images: Sequence[LabelledImage]) -> list[tuple[int, ...]]:
    """Return the token ids of the text of each image, with the artifact's own settings but without sampling."""
    config = model.manifest.defaults.deterministic()
    texts = model.generate([image.path for image in images], [image.question for image in images], generation_config=config)
    return [text.token_ids for text in texts]


def text_key(image_sha256: str, question: str | None) -> str:
    """Return the name of an image's text in the findings: the sha256 of the image, and the question if there is one."""
    return image_sha256 if question is None else f"{image_sha256} {question}"


def key_of(image: LabelledImage) -> str:
    """Return the name of an image's text in the findings."""
    return text_key(sha256_of(image.path), image.question)


def enforce(recipe: Recipe, problem: str | None, on_failure: OnGateFailure) -> None:
    """Raise GateError if there is a problem and the export must fail."""
    if problem and on_failure == "fail":
        raise GateError(f"{recipe.name}: {problem}. Nothing was written. {REMEDY}")


def error_after_retries(recipe: Recipe, failed: Sequence[Mapping[str, Any]]) -> GateError:
    """Return the error of a recipe that failed the gate with every number of exceptions.

    Args:
        recipe: The recipe without exceptions.
        failed: The findings on the recipe, then on each retry with its `exceptions`.
    """
    retries = [
        f"{len(each['exceptions'])} layers: {drift_text(each['drift_nat_per_token'], each['drift_low'], each['drift_high'])}"
        for each in failed[1:]
    ]
    tried = f" Tried again with other formats for {'; '.join(retries)} nat/token." if retries else ""
    return GateError(f"{recipe.name}: {failed[0]['problem']}.{tried} Nothing was written. {REMEDY}")


def findings_line(findings: Mapping[str, Any]) -> str:
    """Format the gate's findings as one line."""
    as_split = (
        f"; {findings['captions_as_split']} of {findings['images']} equal the split graphs'" if "captions_as_split" in findings else ""
    )
    exceptions = f"; {len(findings['exceptions'])} layers in other formats" if findings.get("exceptions") else ""
    result = "gate passed" if findings["passed"] else f"gate not passed ({findings['problem']})"
    return (
        f"{result}: {findings['exact_captions']} of {findings['images']} {findings.get('text', 'caption')}s equal transformers', "
        f"{findings['ties']} ties, "
        f"{quality_text(findings)}{as_split}{exceptions}"
    )


def captions_text(findings: Mapping[str, Any]) -> str:
    """Return the agreement of captions and the drift in the gate's findings."""
    word = findings.get("text", "caption")
    equal = f"{findings['exact_captions']} of {findings['images']} {word}s equal {findings['reference']}"
    return f"{equal}, {quality_text(findings)}"


def quality_text(findings: Mapping[str, Any]) -> str:
    """Return the drift of the gate's findings with its interval and its verdict. Older manifests have no verdict."""
    drift = drift_text(findings["drift_nat_per_token"], findings.get("drift_low"), findings.get("drift_high"))
    return f"drift {drift} nat/token" + (f", {findings['verdict']}" if findings.get("verdict") else "")
