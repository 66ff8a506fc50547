"""Count n-grams for BLEU with one of three backends.

All backends return the same integers, so the choice does not change a score. HF `evaluate` is the best-known one; NLTK is used if
`evaluate` cannot download its script, and the toolkit's own backend if neither is installed. `pick_counter` returns the first backend that
counts a test image correctly, and logs why it skipped others.
"""

import logging
from collections import Counter as Multiset
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

from runtimes.errors import UnavailableError
from toolkit.metrics.bleu import Four, NgramCounts

logger = logging.getLogger(__name__)

Count = Callable[[list[str], list[list[str]]], NgramCounts]
"""Counts one image: (words of the hypothesis, words of each reference) → counts."""

COUNTERS: dict[str, str] = {
    "evaluate": "toolkit.metrics.hf_evaluate:load_counter",
    "nltk": "toolkit.metrics.ngrams:nltk_counter",
    "own": "toolkit.metrics.ngrams:own_counter",
}
"""Backend → "module:function" that returns its `Count`, in order of preference."""

_PROBE = (["a", "dog", "on", "a", "bed"], [["a", "dog", "on", "the", "bed", "now"], ["a", "dog", "a", "bed"]])
_PROBE_COUNTS = NgramCounts(matches=(5, 3, 1, 0), totals=(5, 4, 3, 2), hypothesis_length=5, reference_length=4)


@dataclass(frozen=True)
class NgramCounter:
    """A backend that works on this machine."""

    name: str
    """Its key in `COUNTERS`."""
    count: Count


def pick_counter(names: Sequence[str] = tuple(COUNTERS)) -> NgramCounter:
    """Return the first backend that works on this machine; log why the others do not.

    Args:
        names: Keys of `COUNTERS`, in order of preference.

    Returns:
        A backend that counts the probe correctly.

    Raises:
        LookupError: No backend works.
    """
    for name in names:
        module, _, function = COUNTERS[name].partition(":")
        try:
            count: Count = getattr(import_module(module), function)()
            counts = count(*_PROBE)
        except Exception as problem:  # a third-party library may raise anything
            level = (
                logging.INFO if isinstance(problem, ImportError | UnavailableError) else logging.WARNING
            )  # INFO: not installed, no network
            logger.log(level, "BLEU: cannot count n-grams with %s (%s)", name, " ".join(str(problem).split()))
            continue
        if counts == _PROBE_COUNTS:
            logger.info("BLEU: n-grams are counted with %s", name)
            return NgramCounter(name, count)
        logger.warning("BLEU: cannot count n-grams with %s (wrong counts: %s instead of %s)", name, counts, _PROBE_COUNTS)
    raise LookupError(f"no BLEU counter works among: {', '.join(names)}")


def closest_length(hypothesis: list[str], references: list[list[str]]) -> int:
    """Return the number of words of the reference closest in length to the hypothesis; of two equally close ones, the shorter."""
    return min((abs(len(reference) - len(hypothesis)), len(reference)) for reference in references)[1]


def possible_ngrams(length: int) -> Four:
    """Return the number of n-grams of 1, 2, 3 and 4 words in a caption of `length` words."""
    return length, max(0, length - 1), max(0, length - 2), max(0, length - 3)


def own_counter() -> Count:
    """Return the backend that needs no library."""

    def ngrams(words: list[str], n: int) -> Multiset[tuple[str, ...]]:
        return Multiset(zip(*(words[start:] for start in range(n)), strict=False))

    def count(hypothesis: list[str], references: list[list[str]]) -> NgramCounts:
        def matches(n: int) -> int:
            clip: Multiset[tuple[str, ...]] = Multiset()
            for reference in references:
                clip |= ngrams(reference, n)
            return (ngrams(hypothesis, n) & clip).total()

        return NgramCounts(
            matches=(matches(1), matches(2), matches(3), matches(4)),
            totals=possible_ngrams(len(hypothesis)),
            hypothesis_length=len(hypothesis),
            reference_length=closest_length(hypothesis, references),
        )

    return count


def nltk_counter() -> Count:
    """Return the backend that uses `nltk.translate.bleu_score`; its fractions are not reduced, so numerators are the counts."""
    from nltk.translate.bleu_score import closest_ref_length, modified_precision

    def count(hypothesis: list[str], references: list[list[str]]) -> NgramCounts:
        p1, p2, p3, p4 = (modified_precision(references, hypothesis, n) for n in range(1, 5))
        return NgramCounts(
            matches=(p1.numerator, p2.numerator, p3.numerator, p4.numerator),
            totals=possible_ngrams(len(hypothesis)),  # its denominators are 1 if there is no n-gram
            hypothesis_length=len(hypothesis),
            reference_length=closest_ref_length(references, len(hypothesis)),
        )

    return count
