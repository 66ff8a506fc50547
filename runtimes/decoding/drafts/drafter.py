"""Propose the next tokens of a caption, for greedy search to verify in one step of the decoder.

One step that feeds several tokens takes little more time than one that feeds one token, because both read all weights once. A drafted token
that the model would have chosen saves a step; a wrong one costs the time of its position. Sources: Leviathan et al. 2023 (speculative
decoding); Saxena 2023 and Fu et al. 2024 (drafts from n-grams).
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from runtimes.decoding.drafts.ngrams import ContextCounts, Prediction, Predictions, longest_match

MIN_CONFIDENCE = 0.4
"""No draft is longer than the tokens that are all right with this probability: below it, a draft saves less time than timing noise."""
MAX_DRAFT = 8
MAX_LEARNING_TOLERANCE = 1e-3
"""Learning is allowed up to this `DraftSpec.tolerance`, which rounding in FP32 does not reach. Above it, a caption could depend on the
captions before it."""


@dataclass(frozen=True, kw_only=True)
class DraftSpec:
    """The entry `drafts` of a manifest's `optional`: how an artifact uses its draft table."""

    step_costs: tuple[float, ...]
    """Time of a step that feeds 1, 2, ... tokens, relative to one token, measured at export. Its length limits a draft."""
    tolerance: float
    """Difference between margins (logit of the best token minus that of the second) in steps that feed several tokens and in those that
    feed one, measured at export: 99 % are below. With a smaller margin, the token is chosen again in a step of its own."""
    default: bool
    """Whether greedy search uses drafts if the caller does not choose: on the gate's images, they save steps and change no caption."""
    same_captions: int
    """Number of the gate's images whose caption is the same with and without drafts."""
    tokens_per_step: float
    """Generated tokens per step of the decoder, on the gate's images."""

    def __post_init__(self) -> None:
        """Check the costs; raise ValueError."""
        if not 1 <= len(self.step_costs) <= MAX_DRAFT + 1 or not all(1 <= cost <= 1e6 for cost in self.step_costs):
            raise ValueError(f"step_costs must be 1 to {MAX_DRAFT + 1} numbers of at least 1")
        if not 0 <= self.tolerance <= 1e6:
            raise ValueError("tolerance must not be negative")


class Drafter:
    """Drafts tokens from predictions, and may learn from finished captions. Several threads may use it."""

    def __init__(
        self, predictions: Predictions, step_costs: Sequence[float], eos_id: int, *, tolerance: float = 0.0, learning: bool = False
    ) -> None:
        """Wrap predictions.

        Args:
            predictions: From `read_table`.
            step_costs: See `DraftSpec.step_costs`.
            eos_id: Id of the end token, which is not drafted: the logits before it suffice.
            tolerance: See `DraftSpec.tolerance`.
            learning: Learn from each finished caption.
        """
        self._predictions: dict[tuple[int, ...], Prediction] = dict(predictions)
        self.step_costs, self.tolerance, self._eos = tuple(step_costs), tolerance, eos_id
        self._counts = ContextCounts(predictions) if learning else None
        self._lock = threading.Lock()

    def propose(self, ids: Sequence[int], limit: int) -> list[int]:
        """Return the draft with the most expected tokens per time; it is empty if one token per step is best.

        Args:
            ids: Tokens of the caption so far.
            limit: Largest number of drafted tokens.
        """
        draft: list[int] = []
        length, best_rate, all_right, expected = 0, 1.0, 1.0, 1.0
        text = list(ids)
        for cost in self.step_costs[1 : 1 + limit]:
            prediction = longest_match(self._predictions, text)
            if prediction is None or prediction[0] == self._eos:
                break
            all_right *= prediction[1]
            if all_right < MIN_CONFIDENCE:
                break
            text.append(prediction[0])
            draft.append(prediction[0])
            expected += all_right
            if expected / cost > best_rate:
                length, best_rate = len(draft), expected / cost
        return draft[:length]

    def learn(self, ids: Sequence[int], start: int) -> None:
        """Count the tokens of a finished caption after its prompt of `start` tokens, if this drafter learns."""
        if self._counts is None:
            return
        with self._lock:
            for context in self._counts.add(ids, start):
                prediction = self._counts.predict(context)
                if prediction is not None:
                    self._predictions[context] = prediction
