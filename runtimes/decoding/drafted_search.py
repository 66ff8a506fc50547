"""Greedy search of one image with drafts: a step verifies several drafted tokens, and the model's own next token is chosen after them.

The tokens are those of greedy search without drafts, because each one is chosen from the model's logits after the same text. The products
of a step with several tokens are rounded differently than those of one token, and INT8 activations magnify this. So a choice between two
tokens with almost equal logits is repeated in a step of its own. Source: Leviathan et al. 2023, for a temperature of 0.

Axes: T fed tokens, M positions, V vocabulary.
"""

from collections.abc import Iterator

import numpy as np

from runtimes.artifact.generation import GenerationConfig
from runtimes.artifact.manifest import TokenizerSpec
from runtimes.decoding.drafts.drafter import Drafter
from runtimes.decoding.hypothesis import Texts
from runtimes.decoding.log_softmax import log_sum_exp
from runtimes.decoding.processors import process, processors_of
from runtimes.decoding.session import Float32, Session, State

ROW = np.array([0], dtype=np.int64)


def drafted_search(
    session: Session, state: State, texts: Texts, spec: TokenizerSpec, config: GenerationConfig, drafter: Drafter
) -> Iterator[int]:
    """Extend one text by greedy search, and yield the number of new tokens after each step, which may be 0.

    Args:
        session: A session with the capability "step".
        state: From `session.encode` of one image.
        texts: One text, its prompt.
        spec: Ids of the special tokens.
        config: Settings of the search.
        drafter: Its drafts are verified.
    """
    ids, start, cached, decided = texts.ids[0], len(texts.ids[0]), 0, True
    processors, max_length = processors_of(config, spec.eos_id, start), config.max_length_after(start)
    while True:
        draft = drafter.propose(ids, max_length - len(ids) - 1) if decided else []
        fed, before = [*ids[cached:], *draft], len(ids)
        positions = np.arange(len(fed) - len(draft) - 1, len(fed), dtype=np.int64)
        logits, state = session.step(np.array([fed], dtype=np.int64), state, positions)
        for position in range(len(positions)):
            scores = logits[:, position]
            chosen_from = scores
            if processors:  # the log-probability is the model's own, so its logits stay
                chosen_from = scores.copy()
                process(processors, [ids], chosen_from)
            best = chosen_from.argmax(axis=-1)
            decided = not (draft and _margin(chosen_from[0], int(best[0])) < drafter.tolerance)
            if not decided:
                break
            texts.append(ROW, best, scores[ROW, best] - log_sum_exp(scores))
            if best[0] == spec.eos_id or len(ids) == max_length:
                yield len(ids) - before
                return
            if position == len(draft) or best[0] != draft[position]:
                break
        yield len(ids) - before
        cached = len(ids) - 1 if len(ids) > start else 0  # the last token is fed next, and the whole prompt at once
        if cached < before + len(draft):
            state = session.crop(state, cached)


def _margin(scores: Float32, best: int) -> float:
    """Return the difference between the largest and the second largest of scores f32[V]."""
    top = scores[best]
    scores[best] = -np.inf
    second = scores.max()
    scores[best] = top
    return float(top - second)
