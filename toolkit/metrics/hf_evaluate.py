"""Count n-grams for BLEU with the "bleu" script of HF `evaluate`.

`evaluate.load("bleu")` downloads a script from the Hugging Face hub, or takes it from its cache, and executes it. Without a network this
fails in seconds; behind a firewall that drops packets it waits for minutes. The import takes seconds and 400 MB. Therefore `evaluate` runs
in a worker process with a time limit; this process imports nothing of it and keeps its environment variables.

The precisions of a single image, multiplied by its numbers of n-grams, are integer counts. The script's brevity penalty is not used,
because it takes the shortest reference, but COCO takes the closest.
"""

import importlib.util
import weakref
from contextlib import ExitStack
from typing import Any

from runtimes.errors import MissingDependencyError, UnavailableError
from runtimes.workers.parent import Worker
from toolkit.metrics.bleu import NgramCounts
from toolkit.metrics.hf_evaluate_worker import NgramRequest
from toolkit.metrics.ngrams import Count, closest_length, possible_ngrams

LIMIT_S = 20.0
"""Long enough for a cold import on a busy two-core machine and a download of 10 kB."""


def load_counter(source: str = "bleu", limit_s: float = LIMIT_S) -> Count:
    """Return the backend that uses the "bleu" script of HF `evaluate`.

    Args:
        source: Name on the hub, or absolute path of a folder that contains a script of the same name.
        limit_s: Time limit in seconds for loading the script, and for each image.

    Returns:
        A function that counts one image. Its child process ends when the function is deleted.

    Raises:
        MissingDependencyError: `evaluate` is not installed.
        UnavailableError: The script does not load, or not in time.
    """
    if importlib.util.find_spec("evaluate") is None:
        raise MissingDependencyError("evaluate", "BLEU counts by HF evaluate", "eval")
    with ExitStack() as stack:
        worker = stack.enter_context(Worker("toolkit.metrics.hf_evaluate_worker", seconds=limit_s))
        _ask(worker, NgramRequest(source=source))
        closing = stack.pop_all()

    def count(hypothesis: list[str], references: list[list[str]]) -> NgramCounts:
        if not hypothesis:  # its precision is undefined, and older versions of the script divide by its length
            return counts_of_precisions([0.0] * 4, 0, hypothesis, references)
        result = _ask(worker, NgramRequest(source=source, hypothesis=tuple(hypothesis), references=tuple(map(tuple, references))))
        return counts_of_precisions(result["precisions"], result["words"], hypothesis, references)

    weakref.finalize(count, closing.close)
    return count


def _ask(worker: Worker, request: NgramRequest) -> Any:  # noqa: ANN401 - JSON values
    list(worker.request(request))
    if worker.result is None:
        raise UnavailableError(f"HF evaluate: {worker.exit_reason}")
    return worker.result


def counts_of_precisions(precisions: list[float], scored_words: int, hypothesis: list[str], references: list[list[str]]) -> NgramCounts:
    """Convert the script's precisions of one image to counts.

    Args:
        precisions: Matching n-grams divided by n-grams, for n = 1, 2, 3, 4.
        scored_words: Number of words of the hypothesis that the script scored.
        hypothesis: The words of the hypothesis.
        references: The words of each reference.

    Raises:
        ValueError: The products are not integers, so the script tokenized differently or smoothed.
    """
    totals = possible_ngrams(len(hypothesis))
    products = [precision * total for precision, total in zip(precisions, totals, strict=True)]
    count1, count2, count3, count4 = (round(product) for product in products)
    if scored_words != len(hypothesis) or any(abs(product - round(product)) > 1e-6 for product in products):
        raise ValueError(f"precisions {precisions} of {scored_words} words do not match counts of {len(hypothesis)} words")
    return NgramCounts(
        matches=(count1, count2, count3, count4),
        totals=totals,
        hypothesis_length=len(hypothesis),
        reference_length=closest_length(hypothesis, references),
    )
