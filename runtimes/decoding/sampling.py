"""Sampling: each token is drawn at random from its processed probabilities."""

from collections.abc import Iterator, Sequence

import numpy as np

from runtimes.artifact.generation import GenerationConfig
from runtimes.artifact.manifest import TokenizerSpec
from runtimes.decoding.hypothesis import Texts
from runtimes.decoding.log_softmax import log_sum_exp
from runtimes.decoding.processors import process, processors_of
from runtimes.decoding.session import FIRST_POSITION, Float32, Session, State


def sample(
    session: Session, state: State, logits: Float32, texts: Texts, spec: TokenizerSpec, config: GenerationConfig, image_keys: Sequence[int]
) -> Iterator[int]:
    """Draw `num_return_sequences` captions per image, and yield 1 after each token.

    The rows of an image stay together, so a row that ended is padded with the end token.

    Args:
        session: A session with the capability "step".
        state: The state after the prompts of B images.
        logits: f32[B,V] of the first token.
        texts: The captions with their prompts, those of an image adjacent.
        spec: Ids of the special tokens.
        config: Settings of the search.
        image_keys: A number per image that determines its random numbers, together with the seed.
    """
    count, images, start = config.num_return_sequences, len(logits), len(texts.ids[0])
    if count > 1:
        rows = np.repeat(np.arange(images), count)
        state, logits = session.select(state, rows, np.arange(images)), logits[rows]
    # A row has its own generator, so that its caption does not depend on other rows, on the batch or on where others end.
    seeds = [None if config.seed is None else [config.seed, key, number] for key in image_keys for number in range(count)]
    generators = [np.random.default_rng(seed) for seed in seeds]
    ended, active = np.zeros(images * count, dtype=bool), np.arange(images)
    processors, max_length = processors_of(config, spec.eos_id, start), config.max_length_after(start)
    for length in range(start + 1, max_length + 1):
        rows = (active[:, None] * count + np.arange(count)).ravel()
        processed = logits.copy()
        process(processors, [texts.ids[row] for row in rows], processed)
        tokens = np.array([spec.eos_id if ended[row] else _draw(processed[i], generators[row]) for i, row in enumerate(rows)])
        live, log_probabilities = ~ended[rows], logits[np.arange(len(rows)), tokens] - log_sum_exp(logits)
        texts.append(rows[live], tokens[live], log_probabilities[live])
        for row in rows[~live]:
            texts.ids[row].append(spec.eos_id)
        ended[rows] |= tokens == spec.eos_id
        yield 1
        running = np.flatnonzero(~ended.reshape(-1, count)[active].all(axis=1))
        if len(running) == 0 or length == max_length:
            return
        if len(running) < len(active):
            state = session.select(state, (running[:, None] * count + np.arange(count)).ravel(), running)
            active, tokens = active[running], tokens.reshape(-1, count)[running].ravel()
        step_logits, state = session.step(tokens[:, None].astype(np.int64), state, FIRST_POSITION)
        logits = step_logits[:, 0]


# The annotation is text, because numpy imports `numpy.random` when it is first used.
def _draw(scores: Float32, generator: "np.random.Generator") -> int:
    """Return a token drawn from the softmax of scores f32[V]."""
    cumulative = np.exp((scores - scores.max()).astype(np.float64)).cumsum()
    return int(np.searchsorted(cumulative, generator.random() * cumulative[-1], side="right"))
