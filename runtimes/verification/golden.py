"""Golden captions: what an artifact said of a few pictures where it was packaged. A captioner goes in; how it differs here comes out.

What a package holds of them, next to the artifact's own files, each declared in its manifest:

- `golden.json` (role "golden"): a `Golden`, below.
- `golden-logits.f32` (role "golden-logits"): f32[P,V] little-endian, row p the logits of the token after [DEC] for picture p.
- per picture `golden-NAME.jpg`, the file as it is shipped, for the whole way from bytes to words; and `golden-NAME.png`, the same picture
  as RGB of exactly `image.width_px` x `image.height_px`, resized with `image.resample` and not yet rescaled or normalized. A runtime that
  resizes otherwise (a browser, a camera's hardware) starts from the PNG and must get the same ids.

Every search starts with `tokenizer.bos_id` alone, has no shortest length, length penalty 1, and one picture per run.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from runtimes.artifact import json_dataclass
from runtimes.artifact.folder import Artifact
from runtimes.artifact.generation import GenerationConfig
from runtimes.captioner import Captioner
from runtimes.decoding.search import LAST, Hypothesis, generate, log_softmax
from runtimes.decoding.session import Float32, RecordingSession
from runtimes.errors import ArtifactCorruptError
from runtimes.host.facts import read_host
from runtimes.images.reading import preprocess, read_image

SCHEMA = 1
FILE, LOGITS = "golden.json", "golden-logits.f32"
ROLE, LOGITS_ROLE = "golden", "golden-logits"
MAX_BYTES = 1 << 20
"""Of golden.json."""
SAME_MACHINE_TOLERANCE = 1e-3
"""Largest difference of a logit where CPU features and versions are those of the recording machine; only threads may differ."""
SEARCHES = (1, 3)
"""Beams of the searches that are recorded: greedy, and a beam search."""


@dataclass(frozen=True, kw_only=True)
class GoldenCaption:
    """A caption as it was found."""

    beams: int
    token_ids: tuple[int, ...]
    """All ids, [DEC] and the end token included."""
    text: str
    score: float
    """See `Caption.score`."""
    margins_nat: tuple[float, ...]
    """Per generated token, after the ones before it: log-probability of the best token over that of the second."""


@dataclass(frozen=True, kw_only=True)
class GoldenPicture:
    """A picture and what was said of it."""

    original: str
    """File name of the picture as shipped."""
    resized: str
    """File name of the RGB PNG."""
    captions: tuple[GoldenCaption, ...]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where captions were found: on another such machine they are the same to the last bit, elsewhere within the bounds."""

    cpu_features: tuple[str, ...]
    versions: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Golden:
    """golden.json."""

    schema: int
    max_length: int
    """Longest caption, in tokens with [DEC]."""
    tie_nat: float
    """A caption may differ from where the recorded margin is below this."""
    logits_tolerance: float
    """Largest difference of a logit that another machine may make."""
    machine: Machine
    pictures: tuple[GoldenPicture, ...]

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise ValueError(f"schema {self.schema} is not {SCHEMA}, which this toolkit reads")
        if not (0 <= self.tie_nat <= 1 and 0 <= self.logits_tolerance <= 10):
            raise ValueError("bounds as wide as these forgive anything")
        if not self.pictures or any(not picture.captions for picture in self.pictures):
            raise ValueError("there are no captions")
        if any(len(caption.margins_nat) != len(caption.token_ids) - 1 for picture in self.pictures for caption in picture.captions):
            raise ValueError("every token after the first needs its margin")


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What an artifact does with one picture."""

    logits: Float32
    """f32[V], of the token after [DEC]."""
    hypotheses: tuple[Hypothesis, ...]
    """One per search of `SEARCHES`."""


def observe(captioner: Captioner, pixels: Float32, max_length: int) -> Observed:
    """Caption one picture, pixels f32[3,S,S], with every search."""
    session, spec, found = RecordingSession(captioner.stepwise_session), captioner.manifest.tokenizer, []
    for beams in SEARCHES:
        decoding = GenerationConfig(num_beams=beams, max_length=max_length)
        state = session.encode({"pixels": pixels[None]})
        found += generate(session, state, 1, captioner.tokens.prompt_ids(None), spec, decoding, lambda phase, seconds: None)
    assert session.first_logits is not None
    return Observed(logits=session.first_logits, hypotheses=tuple(found))


def follow(captioner: Captioner, pixels: Float32, token_ids: Sequence[int]) -> tuple[list[float], float]:
    """Feed a caption token by token, as greedy search does.

    Returns:
        Margins of the two best tokens after each but the last, nat; and the caption's log-probability per generated token.
    """
    state, margins, total = captioner.stepwise_session.encode({"pixels": pixels[None]}), [], 0.0
    for fed, wanted in pairwise(token_ids):
        logits, state = captioner.stepwise_session.step(np.array([[fed]], np.int64), state, LAST)
        probabilities = log_softmax(logits[0, 0])
        second, best = np.partition(probabilities, -2)[-2:]
        margins.append(float(best - second))
        total += float(probabilities[wanted])
    return margins, total / len(margins)


def differs(captioner: Captioner, pixels: Float32, recorded: GoldenCaption, found: Hypothesis, tie_nat: float) -> tuple[bool, str | None]:
    """Compare a caption with the recorded one.

    At the first difference it is a tie if the recorded margin is below the bound. A beam search weighs whole captions besides, so there
    it is also one if the recorded caption is as likely here as the one that was found.

    Returns:
        Whether it is a tie, and what differs; None if nothing does.
    """
    mine, other = found.token_ids, recorded.token_ids
    if mine == other:
        return False, None
    position = next((i for i, (a, b) in enumerate(zip(mine, other, strict=False)) if a != b), min(len(mine), len(other)))
    margin = recorded.margins_nat[position - 1] if 1 <= position <= len(recorded.margins_nat) else float("inf")
    text = captioner.tokens.text(mine)
    problem = f"with {recorded.beams} beams says {text!r}, not {recorded.text!r} (token {position}, margin {margin:.4f} nat)"
    if recorded.beams > 1 and margin >= tie_nat:
        margin = abs(found.score - follow(captioner, pixels, other)[1])
    return margin < tie_nat, problem


@dataclass(frozen=True, kw_only=True)
class Replay:
    """What golden captions showed."""

    captions: int
    """Compared, over pictures, searches and the two forms of a picture."""
    equal: int
    ties: tuple[str, ...]
    differences: tuple[str, ...]
    """What is no tie; empty where the artifact is right."""
    logits_difference: float
    """Largest one."""
    logits_bound: float
    same_machine: bool
    """Whether this machine has the CPU features and versions of the one that recorded them."""


def machine_of(captioner: Captioner) -> Machine:
    """Return what decides how this machine rounds."""
    return Machine(cpu_features=tuple(sorted(read_host().cpu_features)), versions=captioner.session.info().versions)


def read_golden(artifact: Artifact) -> Golden | None:
    """Return an artifact's golden captions, or None if it holds none.

    Raises:
        ArtifactCorruptError: They cannot be read, or name files that the manifest does not declare.
    """
    names = {entry.role: name for name, entry in artifact.manifest.files.items()}
    if ROLE not in names:
        return None
    path = artifact.path / names[ROLE]
    content = _content(artifact, names[ROLE])
    try:
        parsed = json.loads(content) if len(content) <= MAX_BYTES else {}
    except (ValueError, RecursionError) as error:
        raise ArtifactCorruptError(path, f"is not JSON ({error})") from error
    golden, problems = json_dataclass.from_json(Golden, parsed)
    if golden is None:
        raise ArtifactCorruptError(path, "; ".join(problems))
    named = {LOGITS, *(name for picture in golden.pictures for name in (picture.original, picture.resized))}
    if missing := sorted(named - set(artifact.manifest.files)):
        raise ArtifactCorruptError(path, f"needs {', '.join(missing)}, which the manifest does not declare")
    return golden


def replay(captioner: Captioner, golden: Golden, artifact: Artifact) -> Replay:
    """Caption the golden pictures of an artifact with a captioner.

    The picture as shipped and the resized one are both read; where they give the same pixels, as they should, the model runs once.

    Raises:
        ArtifactCorruptError, ImageReadError: A picture or the logits are not what golden.json means.
    """
    same_machine = machine_of(captioner) == golden.machine
    bound = min(SAME_MACHINE_TOLERANCE, golden.logits_tolerance) if same_machine else golden.logits_tolerance
    logits = _logits(artifact, golden)
    compared = equal = 0
    largest = 0.0
    ties: list[str] = []
    differences: list[str] = []
    for picture, expected in zip(golden.pictures, logits, strict=True):
        forms = [(name, _pixels(captioner, artifact, name)) for name in (picture.original, picture.resized)]
        if np.array_equal(forms[0][1], forms[1][1]):
            forms = [(f"{picture.original} and {picture.resized}", forms[0][1])]
        for name, pixels in forms:
            observed = observe(captioner, pixels, golden.max_length)
            difference = float(np.abs(observed.logits - expected).max())
            largest = max(largest, difference)
            if not difference <= bound:  # also when it is not a number
                differences.append(f"{name}: logits differ by {difference:.4g}, {bound:.4g} is allowed")
            for recorded, found in zip(picture.captions, observed.hypotheses, strict=True):
                compared += 1
                tie, problem = differs(captioner, pixels, recorded, found, golden.tie_nat)
                if problem is None:
                    equal += 1
                else:
                    (ties if tie else differences).append(f"{name}: {problem}")
    return Replay(
        captions=compared,
        equal=equal,
        ties=tuple(ties),
        differences=tuple(differences),
        logits_difference=largest,
        logits_bound=bound,
        same_machine=same_machine,
    )


def _pixels(captioner: Captioner, artifact: Artifact, name: str) -> Float32:
    spec = captioner.manifest.image
    image = read_image(_content(artifact, name), name)
    if name.endswith(".png") and image.size != (spec.width_px, spec.height_px):
        raise ArtifactCorruptError(artifact.path / name, f"is {image.width}x{image.height}, not {spec.width_px}x{spec.height_px}")
    return preprocess(image, spec)


def _logits(artifact: Artifact, golden: Golden) -> Float32:
    content, vocabulary = _content(artifact, LOGITS), artifact.manifest.model.vocabulary
    if len(content) != 4 * len(golden.pictures) * vocabulary:
        raise ArtifactCorruptError(artifact.path / LOGITS, f"is not f32[{len(golden.pictures)},{vocabulary}]")
    return np.frombuffer(content, "<f4").reshape(len(golden.pictures), vocabulary)


def _content(artifact: Artifact, name: str) -> bytes:
    """Read a declared file whole and check the very bytes that are returned."""
    entry, path = artifact.manifest.files[name], artifact.path / name
    try:
        with path.open("rb") as stream:
            content = stream.read(entry.bytes + 1)
    except OSError as error:
        raise ArtifactCorruptError(path, f"cannot be read ({error.strerror})") from error
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise ArtifactCorruptError(path, "is not what the manifest declares")
    return content
