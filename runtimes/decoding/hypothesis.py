"""Captions as token ids with log-probabilities: while they are generated, and finished."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from runtimes.decoding.session import Float32, Int64


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """A finished caption: its ids from the start token to the end token or the length limit, and its score."""

    token_ids: tuple[int, ...]
    score: float
    """Natural-log probability of the generated tokens / generated length ** length_penalty."""
    log_probabilities: tuple[float, ...] = ()
    """Natural-log probability of each generated token; empty for a `LoopSession`, which returns their sum only."""
    alternatives: tuple["Hypothesis", ...] = ()
    """Further hypotheses of the image, see `GenerationConfig.num_return_sequences`."""


class Texts:
    """The token ids and log-probabilities of R captions while a greedy search or sampling extends them."""

    def __init__(self, prompts: Sequence[Sequence[int]]) -> None:
        """Start R captions with their prompts, which have the same length."""
        self.ids = [list(prompt) for prompt in prompts]
        self.log_probabilities: list[list[float]] = [[] for _ in prompts]
        self._totals = np.zeros(len(prompts), dtype=np.float32)
        self._prompt = len(prompts[0])

    def append(self, rows: Int64, tokens: Int64, log_probabilities: Float32) -> None:
        """Append a token to some captions.

        Args:
            rows: i64[n], indices of the captions.
            tokens: i64[n].
            log_probabilities: f32[n], of these tokens.
        """
        self._totals[rows] += log_probabilities
        for row, token, value in zip(rows.tolist(), tokens.tolist(), log_probabilities.tolist(), strict=True):
            self.ids[row].append(token)
            self.log_probabilities[row].append(value)

    def hypotheses(self, length_penalty: float) -> list[Hypothesis]:
        """Return the captions. Ids after the last token with a log-probability are padding."""
        return [
            Hypothesis(
                token_ids=tuple(ids[: self._prompt + len(values)]),
                score=float(total) / len(values) ** length_penalty,
                log_probabilities=tuple(values),
            )
            for ids, values, total in zip(self.ids, self.log_probabilities, self._totals, strict=True)
        ]


def with_alternatives(hypotheses: Sequence[Hypothesis]) -> Hypothesis:
    """Return the first hypothesis of an image with the others as its alternatives."""
    return replace(hypotheses[0], alternatives=tuple(hypotheses[1:]))
