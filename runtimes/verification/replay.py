"""Replay golden captions: caption the golden images of an artifact on this machine and compare with the recorded captions."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from runtimes.artifact.generation import GenerationConfig
from runtimes.artifact.manifest import ImageSpec
from runtimes.artifact.verified_files import VerifiedFiles
from runtimes.decoding.log_softmax import log_softmax
from runtimes.decoding.session import FIRST_POSITION, Float32, Inputs, State, begin
from runtimes.errors import EngineError, translate_errors
from runtimes.host.facts import read_host
from runtimes.images.reading import preprocess
from runtimes.tasks.loaded_model import LoadedModel
from runtimes.tasks.results import GeneratedText
from runtimes.tasks.text_generator import TextGenerator
from runtimes.verification.golden import SEARCHES, Golden, GoldenCaption, Logits, RecordingMachine, read_image_file, read_logits

Model: TypeAlias = TextGenerator[Any, Any]

SAME_MACHINE_TOLERANCE = 1e-3
"""Largest difference of a logit if CPU features and library versions equal those of the recording machine."""


def has_logits(model: Model) -> bool:
    """Return whether the session of a model returns logits. Sessions with the capability "loop" do not."""
    return "step" in model.session.capabilities


def searches_of(model: Model) -> tuple[int, ...]:
    """Return the searches of `SEARCHES` that the session of a model supports."""
    return SEARCHES if has_logits(model) else SEARCHES[:1]


def golden_caption(model: Model, image: Image.Image, question: str | None, num_beams: int, max_length: int) -> GeneratedText:
    """Generate the text of one RGB image with the settings of golden captions.

    Args:
        model: The captioner or answerer.
        image: An RGB image.
        question: The question; None for captions.
        num_beams: 1 for greedy search.
        max_length: As in `GenerationConfig`.
    """
    config = GenerationConfig(num_beams=num_beams, max_length=max_length)
    return model.generate([image], [question], generation_config=config)[0]  # type: ignore[no-any-return]


def _begin(model: Model, image: Image.Image, question: str | None) -> State:
    """Return the state before the start token."""
    inputs: Inputs = {"pixels": preprocess(image, model.manifest.image)[None]}
    if question is not None:
        inputs = {**inputs, "question_ids": np.array([model.tokenizer.encoder_ids(question)])}
    return begin(model.stepwise_session, inputs)


def first_logits(model: Model, image: Image.Image, question: str | None) -> Float32 | None:
    """Return the logits f32[V] of the token after the start token; None without logits."""
    if not has_logits(model):
        return None
    state = _begin(model, image, question)
    logits, _ = model.stepwise_session.step(np.array([model.tokenizer.prompt_ids(None)], np.int64), state, FIRST_POSITION)
    return np.array(logits[0, 0])


def teacher_force(model: Model, image: Image.Image, question: str | None, token_ids: Sequence[int]) -> tuple[tuple[float, ...], float]:
    """Feed the tokens of a caption one by one, as greedy search does.

    Args:
        model: The captioner or answerer.
        image: An RGB image.
        question: The question; None for captions.
        token_ids: Tokens of the text, the start token first.

    Returns:
        For each token but the last, the margin in nat between the two best next tokens; and the log-probability of the caption per
        generated token.
    """
    state, margins, total = _begin(model, image, question), [], 0.0
    for token, following in pairwise(token_ids):
        logits, state = model.stepwise_session.step(np.array([[token]], np.int64), state, FIRST_POSITION)
        probabilities = log_softmax(logits[0, 0])
        second, best = np.partition(probabilities, -2)[-2:]
        margins.append(float(best - second))
        total += float(probabilities[following])
    return tuple(margins), total / len(margins)


def compare_caption(
    model: Model, image: Image.Image, question: str | None, recorded: GoldenCaption, actual: GeneratedText, tie_nat: float
) -> tuple[bool, str | None]:
    """Compare a caption with the recorded one.

    A difference is a tie if the recorded margin at the first different token is below `tie_nat`. A beam search ranks whole captions, so a
    difference is also a tie if the scores of both captions on this machine differ by less than `tie_nat`. Without recorded margins there
    are no ties.

    Args:
        model: The captioner or answerer.
        image: The golden image.
        question: The question; None for captions.
        recorded: The recorded text.
        actual: The text of this machine.
        tie_nat: Margin in nat below which a difference is a tie.

    Returns:
        Whether the difference is a tie, and a description of it; None for equal captions.
    """
    ids, expected = actual.token_ids, recorded.token_ids
    if ids == expected:
        return False, None
    position = next((i for i, (a, b) in enumerate(zip(ids, expected, strict=False)) if a != b), min(len(ids), len(expected)))
    problem = f"with {recorded.num_beams} beams: {actual.text!r}, not {recorded.text!r} (token {position}"
    if recorded.margins_nat is None:
        return False, f"{problem}; without logits a tie counts as a difference)"
    margin = recorded.margins_nat[position - 1] if 1 <= position <= len(recorded.margins_nat) else float("inf")
    problem += f", margin {margin:.4f} nat)"
    if recorded.num_beams > 1 and margin >= tie_nat and actual.score is not None:
        margin = abs(actual.score - teacher_force(model, image, question, expected)[1])
    return margin < tie_nat, problem


@dataclass(frozen=True, kw_only=True)
class ImageReplay:
    """The differences of one image's captions from the recorded ones."""

    equal: int = 0
    """Number of equal captions."""
    ties: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()
    """Differences that are not ties."""
    logits_difference: float | None = None
    """Largest difference of a logit; None without logits."""


def compare_image(model: Model, image: Image.Image, name: str, golden: Golden, index: int, expected: Logits) -> ImageReplay:
    """Caption one golden image and compare its captions and logits.

    Args:
        model: Model of the artifact or of a copy.
        image: The image as RGB, original or resized.
        name: Its file name, for messages.
        golden: From `read_golden`, or just recorded.
        index: Index of the image in `golden.images`.
        expected: Recorded logits f32[I,V], or None.

    Raises:
        EngineError: The engine failed during a run.
    """
    equal, score_bound, question = 0, _score_bound(model, golden), golden.images[index].question
    ties: list[str] = []
    differences: list[str] = []
    logits_difference, bound = None, logits_bound(model, golden)
    with translate_errors(lambda problem: EngineError(model.manifest.name, problem)):
        if bound is not None and expected is not None and (logits := first_logits(model, image, question)) is not None:
            logits_difference = float(np.abs(logits - expected[index]).max())
            if not logits_difference <= bound:  # true for NaN as well
                differences.append(f"{name}: logits differ by {logits_difference:.4g}, {bound:.4g} is allowed")
        for recorded in golden.images[index].captions:
            actual = golden_caption(model, image, question, recorded.num_beams, golden.max_length)
            tie, problem = compare_caption(model, image, question, recorded, actual, golden.tie_nat)
            equal += problem is None
            if problem is not None:
                (ties if tie else differences).append(f"{name}: {problem}")
            elif bound is None and not (drift := abs((actual.score or 0.0) - recorded.score)) <= score_bound:
                differences.append(f"{name}: its score differs by {drift:.4g} nat per token, {score_bound:.4g} is allowed")
    return ImageReplay(equal=equal, ties=tuple(ties), differences=tuple(differences), logits_difference=logits_difference)


def compare_drafted(model: Model, image: Image.Image, name: str, golden: Golden, index: int) -> ImageReplay:
    """Compare the greedy captions of one golden image with drafts. Arguments and errors are those of `compare_image`."""
    equal, question = 0, golden.images[index].question
    ties: list[str] = []
    differences: list[str] = []
    with translate_errors(lambda problem: EngineError(model.manifest.name, problem)):
        for recorded in golden.images[index].captions:
            if recorded.num_beams > 1:
                continue
            actual = golden_caption(model, image, question, recorded.num_beams, golden.max_length)
            tie, problem = compare_caption(model, image, question, recorded, actual, golden.tie_nat)
            equal += problem is None
            if problem is not None:
                (ties if tie else differences).append(f"{name}, with drafts: {problem}")
    return ImageReplay(equal=equal, ties=tuple(ties), differences=tuple(differences))


@dataclass(frozen=True, kw_only=True)
class Replay:
    """The result of a replay."""

    searches: tuple[int, ...]
    """Number of beams of each search; empty without searches."""
    captions: int
    """Number of compared captions, over images, both forms of an image, and searches; of a matcher: number of compared scores."""
    equal: int
    ties: tuple[str, ...]
    differences: tuple[str, ...]
    """Differences that are not ties; empty if the artifact is correct."""
    logits_difference: float | None
    """Largest difference of a logit, or of a score of a matcher; None without logits."""
    logits_bound: float | None
    """Largest allowed difference; None without logits."""
    same_machine: bool
    """Whether this machine has the CPU features and library versions of the recording machine."""
    drafted: int = 0
    """Number of greedy captions that were compared again, with drafts; 0 if the artifact captions without drafts."""
    drafted_equal: int = 0


def machine_of(model: LoadedModel) -> RecordingMachine:
    """Return the facts that determine the rounding on this machine."""
    return RecordingMachine(cpu_features=tuple(sorted(read_host().cpu_features)), versions=model.session.info().versions)


def logits_bound(model: Model, golden: Golden) -> float | None:
    """Return the largest allowed difference of a logit on this machine; None without logits."""
    if golden.logits_tolerance is None or machine_of(model) != golden.machine:
        return golden.logits_tolerance
    return min(SAME_MACHINE_TOLERANCE, golden.logits_tolerance)


def _score_bound(model: Model, golden: Golden) -> float:
    """Return the largest allowed difference of a caption's score on this machine, for sessions without logits."""
    return SAME_MACHINE_TOLERANCE if machine_of(model) == golden.machine else max(golden.tie_nat, SAME_MACHINE_TOLERANCE)


def each_form(files: VerifiedFiles, names: tuple[str, str], spec: ImageSpec) -> list[tuple[str, Image.Image]]:
    """Return the forms of a golden image, original and resized, by name; one form if their pixels are equal, as expected.

    Raises:
        ArtifactCorruptError, ImageReadError: See `read_image_file`.
    """
    forms = [(name, read_image_file(files, name, spec)) for name in names]
    original, resized = (preprocess(form, spec) for _, form in forms)
    return [(" and ".join(names), forms[0][1])] if np.array_equal(original, resized) else forms


def replay(model: Model, golden: Golden, files: VerifiedFiles) -> Replay:
    """Caption the golden images of an artifact and compare.

    The original and the resized image are both read. If their pixels are equal, as expected, the model runs once. If the model drafts,
    greedy captions are compared without drafts and with them.

    Args:
        model: Model of the artifact.
        golden: From `read_golden`.
        files: The files of the artifact.

    Raises:
        ArtifactCorruptError, ImageReadError: An image or the logits do not belong to golden.json.
        EngineError: The engine failed during a run.
    """
    logits = None if golden.logits_tolerance is None else read_logits(files, len(golden.images))
    drafter, comparisons, drafted = model.drafter, list[ImageReplay](), list[ImageReplay]()
    for index, image in enumerate(golden.images):
        forms = each_form(files, (image.original, image.resized), model.manifest.image)
        model.drafter = None
        comparisons += [compare_image(model, form, name, golden, index, logits) for name, form in forms]
        model.drafter = drafter
        drafted += [compare_drafted(model, form, name, golden, index) for name, form in forms] if drafter else []
    differences = [each.logits_difference for each in comparisons if each.logits_difference is not None]
    return Replay(
        searches=golden.searches,
        captions=len(comparisons) * len(golden.searches),
        equal=sum(each.equal for each in comparisons),
        ties=tuple(tie for each in (*comparisons, *drafted) for tie in each.ties),
        differences=tuple(difference for each in (*comparisons, *drafted) for difference in each.differences),
        logits_difference=max(differences, default=None),
        logits_bound=logits_bound(model, golden),
        same_machine=machine_of(model) == golden.machine,
        drafted=len(drafted),
        drafted_equal=sum(each.equal for each in drafted),
    )
