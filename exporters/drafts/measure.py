"""Measure what drafts need to be worth their time: the time of steps with several tokens, and the captions with and without drafts."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from time import process_time

import numpy as np

from runtimes.artifact.generation import GenerationConfig
from runtimes.decoding.session import Float32, Int64, Session, State
from runtimes.images.reading import ImageInput, Images, preprocess, read_image
from runtimes.tasks.captioner import Captioner

LENGTHS = range(1, 7)
"""Numbers of tokens per step that are timed; the last one is the token before a draft and the longest draft."""
ROUNDS = 20


def measure_step_costs(captioner: Captioner, ids: Sequence[int]) -> tuple[float, ...]:
    """Return the time of a step that feeds 1, 2, ... tokens of one image, relative to one token and rounded to hundredths.

    A step with a draft includes the cut of the cache. CPU time of all threads is measured, and the least of several rounds counts, because
    wall time would include other processes. T tokens take at most T steps, so no cost is above that.

    Args:
        captioner: The artifact's captioner.
        ids: Token ids of a text; they are repeated if they are few.
    """
    session, spec = captioner.stepwise_session, captioner.manifest.image
    state = session.encode({"pixels": np.zeros((1, 3, spec.height_px, spec.width_px), np.float32)})
    text = np.resize(np.array(ids, np.int64), (1, min(2 * max(LENGTHS), captioner.manifest.model.max_positions)))
    lengths = [length for length in LENGTHS if length < text.shape[1]]
    before = text.shape[1] - max(lengths)
    _, state = session.step(text[:, :before], state, _last(before))
    seconds: dict[int, float] = dict.fromkeys(lengths, float("inf"))
    for _ in range(ROUNDS):
        for length in lengths:
            started = process_time()
            _, state = session.step(text[:, before : before + length], state, np.arange(length, dtype=np.int64))
            stepped = process_time()
            state = session.crop(state, before)
            seconds[length] = min(seconds[length], (process_time() if length > 1 else stepped) - started)
    costs = (min(float(length), max(1.0, round(seconds[length] / max(seconds[1], 1e-6), 2))) for length in lengths)
    return tuple(accumulate(costs, max))


def measure_tolerance(captioner: Captioner, captioned: Iterable[tuple[ImageInput, Sequence[int]]]) -> float:
    """Return `DraftSpec.tolerance`, measured on images with the token ids of their captions, and rounded to two digits.

    Each caption is fed token by token, and then two and three tokens at a time.
    """
    session, spec = captioner.stepwise_session, captioner.manifest.image
    differences = []
    for image, token_ids in captioned:
        state, ids = session.encode({"pixels": preprocess(read_image(image), spec)[None]}), np.array([token_ids[:-1]], np.int64)
        single, *batched = (_margins(session, state, ids, count) for count in (1, 2, 3))
        differences += [np.abs(single - other) for other in batched]
    return float(f"{np.quantile(np.concatenate(differences), 0.99):.2g}")


def _margins(session: Session, state: State, ids: Int64, count: int) -> Float32:
    """Return the margin f32[T] after each token of ids i64[1,T], with `count` tokens per step."""
    logits = []
    for start in range(0, ids.shape[1], count):
        part = ids[:, start : start + count]
        step_logits, state = session.step(part, state, np.arange(part.shape[1], dtype=np.int64))
        logits.append(step_logits[0])
    best_two = np.partition(np.concatenate(logits), -2, axis=-1)[:, -2:]
    return np.asarray(best_two[:, 1] - best_two[:, 0])


def _last(count: int) -> Int64:
    return np.array([count - 1], dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class Captions:
    """Captions of several images."""

    token_ids: tuple[tuple[int, ...], ...]
    steps: int
    """Number of steps of the decoder."""
    tokens: int
    """Number of generated tokens."""


def caption_all(captioner: Captioner, images: Images, config: GenerationConfig) -> Captions:
    """Caption images one by one; images that cannot be read have no entry."""
    phases: Counter[str] = Counter()
    captions = captioner.caption(images, generation_config=config, timer=lambda phase, seconds: phases.update([phase]))
    ids = tuple(caption.token_ids for caption in captions if caption.error is None)
    return Captions(token_ids=ids, steps=phases["step"], tokens=phases["first_token"] + phases["token"])
