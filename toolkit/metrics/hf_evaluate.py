"""The HF `evaluate` backend of BLEU counts: a hypothesis and its references go to its "bleu" script, counts come back.

`evaluate.load("bleu")` runs a script that it fetches from the Hugging Face hub (or finds in its cache), and trusts it. Without a
network that fails in seconds; behind a firewall that drops packets it waits for minutes. The import alone takes seconds and 400 MB.
So `evaluate` runs in a worker process, which is killed when it is late, and nothing of it, no environment variable, no import,
touches this one.

The precisions of a single image times its n-grams are whole counts. The script's brevity penalty is not used: it takes the
shortest reference, COCO the closest.
"""

import importlib.util
import weakref
from contextlib import ExitStack
from typing import Any

from runtimes.errors import MissingDependencyError, UnavailableError
from runtimes.workers.parent import Worker
from toolkit.metrics.bleu import NgramCounts
from toolkit.metrics.hf_evaluate_worker import Question
from toolkit.metrics.ngrams import Count, closest_length, possible_ngrams

LIMIT_S = 20.0
"""Enough for a cold import on a busy two-core machine and a download of 10 kB."""


def load_counter(source: str = "bleu", limit_s: float = LIMIT_S) -> Count:
    """Make the backend over the "bleu" script of HF `evaluate`.

    Args:
        source: name on the hub, or absolute path of a folder that holds a script of the same name.
        limit_s: longest wait for the script to load, and then for one answer, in seconds.

    Returns:
        A function that counts one image. Its child process ends with it.

    Raises:
        MissingDependencyError: `evaluate` is not installed.
        UnavailableError: the script cannot be had in time, or does not load.
    """
    if importlib.util.find_spec("evaluate") is None:
        raise MissingDependencyError("evaluate", "BLEU counts by HF evaluate", "eval")
    with ExitStack() as stack:
        worker = stack.enter_context(Worker("toolkit.metrics.hf_evaluate_worker", seconds=limit_s))
        _answer(worker, Question(source=source))
        closing = stack.pop_all()

    def count(hypothesis: list[str], references: list[list[str]]) -> NgramCounts:
        if not hypothesis:  # no precision is defined, and older versions of the script divide by its length
            return counts_of_precisions([0.0] * 4, 0, hypothesis, references)
        answer = _answer(worker, Question(source=source, hypothesis=tuple(hypothesis), references=tuple(map(tuple, references))))
        return counts_of_precisions(answer["precisions"], answer["words"], hypothesis, references)

    weakref.finalize(count, closing.close)
    return count


def _answer(worker: Worker, question: Question) -> Any:  # noqa: ANN401 - JSON values
    list(worker.request(question))
    if worker.result is None:
        raise UnavailableError(f"HF evaluate: {worker.exit_reason}")
    return worker.result


def counts_of_precisions(precisions: list[float], scored_words: int, hypothesis: list[str], references: list[list[str]]) -> NgramCounts:
    """Turn the script's precisions for one image back into whole counts.

    Args:
        precisions: matching n-grams / n-grams, for n = 1, 2, 3, 4.
        scored_words: length of the hypothesis as the script saw it.
        hypothesis: the words that were scored.
        references: the references' words.

    Raises:
        ValueError: these are no counts over these words, so the script cut the text differently or smoothed.
    """
    totals = possible_ngrams(len(hypothesis))
    products = [precision * total for precision, total in zip(precisions, totals, strict=True)]
    one, two, three, four = (round(product) for product in products)
    if scored_words != len(hypothesis) or any(abs(product - round(product)) > 1e-6 for product in products):
        raise ValueError(f"precisions {precisions} over {scored_words} words are no counts over {len(hypothesis)} words")
    return NgramCounts(
        matches=(one, two, three, four),
        totals=totals,
        hypothesis_length=len(hypothesis),
        reference_length=closest_length(hypothesis, references),
    )
