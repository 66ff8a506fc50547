"""Predict the next token from the last tokens, by counts of n-grams with interpolated absolute discounting.

Source of the estimator: Ney, Essen, Kneser 1994, "On structuring probabilistic dependences in stochastic language modelling". The discount
of a context size is n1 / (n1 + 2 n2), where n1 and n2 are the numbers of n-grams that occur once and twice. So a context of text without
regularity gets a confidence near that of its shorter contexts, even if it was followed by one token only.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

MAX_CONTEXT = 3
"""Largest number of tokens in a context."""
MAX_CONTEXTS = 20_000
"""Default of the largest number of contexts in `ContextCounts`, about 8 MB."""

Context: TypeAlias = tuple[int, ...]
"""1 to `MAX_CONTEXT` consecutive token ids."""
Prediction: TypeAlias = tuple[int, float]
"""Token id and confidence: the estimated probability that the model chooses this token after the context."""
Predictions: TypeAlias = Mapping[Context, Prediction]


def longest_match(predictions: Predictions, ids: Sequence[int]) -> Prediction | None:
    """Return the prediction for the longest context that ends a text, or None."""
    for size in range(min(MAX_CONTEXT, len(ids)), 0, -1):
        prediction = predictions.get(tuple(ids[-size:]))
        if prediction is not None:
            return prediction
    return None


class _Followers:
    """The tokens that followed one context."""

    __slots__ = ("best", "counts", "total")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.total, self.best = 0, -1

    def add(self, token: int) -> int:
        """Count a token; return its count."""
        count = self.counts[token] = self.counts.get(token, 0) + 1
        self.total += 1
        if count > self.counts.get(self.best, 0):
            self.best = token
        return count


class ContextCounts:
    """Counts of the token after each context in the texts added so far."""

    def __init__(self, prior: Predictions | None = None, max_contexts: int = MAX_CONTEXTS) -> None:
        """Start without texts.

        Args:
            prior: Predictions from other texts. That of a context takes the place of its shorter context's.
            max_contexts: Largest number of contexts; further ones are not counted.
        """
        self._prior, self._max_contexts = prior or {}, max_contexts
        self._followers: dict[Context, _Followers] = {}
        self._once, self._twice = [0] * (MAX_CONTEXT + 1), [0] * (MAX_CONTEXT + 1)

    def __iter__(self) -> Iterator[tuple[Context, int]]:
        """Yield each context with its number of occurrences."""
        return ((context, followers.total) for context, followers in self._followers.items())

    def add(self, ids: Sequence[int], start: int = 1) -> list[Context]:
        """Count the tokens of a text from index `start`; return the contexts before them."""
        contexts = []
        for position in range(start, len(ids)):
            for size in range(1, min(MAX_CONTEXT, position) + 1):
                context = tuple(ids[position - size : position])
                followers = self._followers.get(context)
                if followers is None:
                    if len(self._followers) >= self._max_contexts:
                        continue
                    followers = self._followers[context] = _Followers()
                count = followers.add(ids[position])
                self._once[size] += (count == 1) - (count == 2)
                self._twice[size] += (count == 2) - (count == 3)
                contexts.append(context)
        return contexts

    def predict(self, context: Context) -> Prediction | None:
        """Return the most probable token after a context; None if neither the context nor its end was counted."""
        followers, shorter = self._followers.get(context), self._shorter(context)
        if followers is None:
            return shorter
        candidates = {followers.best} if shorter is None else {followers.best, shorter[0]}
        confidence, token = max((self._probability(token, context), -token) for token in candidates)
        return -token, confidence

    def _shorter(self, context: Context) -> Prediction | None:
        return self._prior.get(context) or (self.predict(context[1:]) if len(context) > 1 else None)

    def _probability(self, token: int, context: Context) -> float:
        """Return the estimated probability of a token. That of an uncounted token after one uncounted token is 0, a lower bound."""
        if not context:
            return 0.0
        prior = self._prior.get(context)
        lower = self._probability(token, context[1:]) if prior is None else prior[1] * (prior[0] == token)
        followers = self._followers.get(context)
        if followers is None:
            return lower
        discount = self._discount(len(context))
        counted = max(followers.counts.get(token, 0) - discount, 0.0)
        return (counted + discount * len(followers.counts) * lower) / followers.total

    def _discount(self, size: int) -> float:
        """Return the discount of contexts of this size; it is 1 before any n-gram has occurred twice."""
        return (self._once[size] + 1) / (self._once[size] + 2 * self._twice[size] + 1)
