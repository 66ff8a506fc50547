"""Count n-grams for BLEU: the words of a hypothesis and of its references go in, `NgramCounts` come out.

Three backends give the same whole numbers, so it does not matter to a score which one counts: HF `evaluate`, the one that readers
know; NLTK, where `evaluate` cannot fetch its script; and ours, where neither is installed. `pick_counter` takes the first that
counts one made-up image correctly, and says why the others do not.
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
"""Words of a hypothesis and of its references -> counts."""

COUNTERS: dict[str, str] = {
    "evaluate": "toolkit.metrics.hf_evaluate:load_counter",
    "nltk": "toolkit.metrics.ngrams:nltk_counter",
    "own": "toolkit.metrics.ngrams:own_counter",
}
"""Backend -> "module:function" that makes its `Count`; the first that works is taken."""

_PROBE = (["a", "dog", "on", "a", "bed"], [["a", "dog", "on", "the", "bed", "now"], ["a", "dog", "a", "bed"]])
_PROBE_COUNTS = NgramCounts(matches=(5, 3, 1, 0), totals=(5, 4, 3, 2), hypothesis_length=5, reference_length=4)


@dataclass(frozen=True)
class Counter:
    """A backend that works on this machine."""

    name: str
    """Its key in `COUNTERS`."""
    count: Count


def pick_counter(names: Sequence[str] = tuple(COUNTERS)) -> Counter:
    """Take the first backend that works here; each one that does not is logged with its reason.

    Args:
        names: keys of `COUNTERS`, best first.

    Returns:
        A backend that has counted the probe correctly.

    Raises:
        LookupError: none of the names works.
    """
    for name in names:
        module, _, function = COUNTERS[name].partition(":")
        try:
            count: Count = getattr(import_module(module), function)()
            got = count(*_PROBE)
        except Exception as problem:  # a foreign library, which fails in its own ways
            expected = isinstance(problem, ImportError | UnavailableError)  # not installed; no network
            logger.log(logging.INFO if expected else logging.WARNING, "BLEU counts: not by %s (%s)", name, " ".join(str(problem).split()))
            continue
        if got == _PROBE_COUNTS:
            logger.info("BLEU counts: by %s", name)
            return Counter(name, count)
        logger.warning("BLEU counts: not by %s (it miscounts: %s instead of %s)", name, got, _PROBE_COUNTS)
    raise LookupError(f"no BLEU counter works among: {', '.join(names)}")


def closest_length(hypothesis: list[str], references: list[list[str]]) -> int:
    """Find the length in words of the reference closest to the hypothesis; of two equally close ones, the shorter."""
    return min((abs(len(reference) - len(hypothesis)), len(reference)) for reference in references)[1]


def possible_ngrams(length: int) -> Four:
    """Say how many n-grams of 1, 2, 3, 4 words a caption of so many words has."""
    return length, max(0, length - 1), max(0, length - 2), max(0, length - 3)


def own_counter() -> Count:
    """Make the backend that needs nothing."""

    def ngrams(words: list[str], n: int) -> Multiset[tuple[str, ...]]:
        return Multiset(zip(*(words[start:] for start in range(n)), strict=False))

    def count(hypothesis: list[str], references: list[list[str]]) -> NgramCounts:
        def matches(n: int) -> int:
            most: Multiset[tuple[str, ...]] = Multiset()
            for reference in references:
                most |= ngrams(reference, n)
            return (ngrams(hypothesis, n) & most).total()

        return NgramCounts(
            matches=(matches(1), matches(2), matches(3), matches(4)),
            totals=possible_ngrams(len(hypothesis)),
            hypothesis_length=len(hypothesis),
            reference_length=closest_length(hypothesis, references),
        )

    return count


def nltk_counter() -> Count:
    """Make the backend over `nltk.translate.bleu_score`, whose fractions stay unreduced and so carry the counts."""
    from nltk.translate.bleu_score import closest_ref_length, modified_precision

    def count(hypothesis: list[str], references: list[list[str]]) -> NgramCounts:
        one, two, three, four = (modified_precision(references, hypothesis, n) for n in range(1, 5))
        return NgramCounts(
            matches=(one.numerator, two.numerator, three.numerator, four.numerator),
            totals=possible_ngrams(len(hypothesis)),  # its denominators say 1 where there is no n-gram
            hypothesis_length=len(hypothesis),
            reference_length=closest_ref_length(references, len(hypothesis)),
        )

    return count
