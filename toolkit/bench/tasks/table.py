"""The table of tasks that the benchmark measures.

To add a task, add one entry to `BENCH_TASKS`, one to `toolkit.bench.tasks.requests.REQUESTS`, one to
`exporters.families.architectures.BASELINES`, and one to `toolkit.tables.words.WORDS`.
"""

from dataclasses import dataclass

from runtimes.errors import DatasetError, RequestError
from runtimes.tasks.registry import TASKS
from toolkit.bench.tasks.metrics import Metrics, answer_metrics, match_metrics
from toolkit.datasets import Dataset


@dataclass(frozen=True, kw_only=True)
class BenchTask:
    """What the benchmark does with artifacts of a task."""

    metrics: Metrics | None
    """Its metrics; None: those of captions, with the counter of n-grams that is installed."""
    options: frozenset[str]
    """Options of `toolkit bench` that not every task has."""
    texts: int | None = None
    """Number of texts that each image is compared with."""
    references: bool = False
    """Whether it needs reference texts even if only speed is measured."""


SEARCH = frozenset({"search", "tokens"})
BENCH_TASKS = {
    "caption": BenchTask(metrics=None, options=SEARCH | {"prompt", "profile", "no-draft"}),
    "vqa": BenchTask(metrics=answer_metrics, options=SEARCH),
    "matching": BenchTask(metrics=match_metrics, options=frozenset(), texts=8, references=True),
}
"""Task → entry."""


def check_options(task: str, given: frozenset[str]) -> None:
    """Check the options of a benchmark.

    Args:
        task: Task of the artifacts.
        given: Those of `BenchTask.options` that the user gave.

    Raises:
        RequestError: The task does not have one of them.
    """
    if other := sorted(given - BENCH_TASKS[task].options):
        shown = "options of the search" if other[0] == "search" else f"--{other[0]}"
        raise RequestError(f"these artifacts have the task '{task}', and {shown} is not for it; leave it out")


def check_samples(task: str, dataset: Dataset) -> None:
    """Check that a data set is one for a task.

    Raises:
        DatasetError: Its images have no questions or texts, and the task needs some, or the reverse.
    """
    asks = TASKS[task].asks
    if any((image.question is not None) != asks for image in dataset.images):
        remedy = "name a file of questions with --dataset" if asks else "name a file of captions with --dataset"
        raise DatasetError(dataset.name, f"{'has no questions' if asks else 'has questions'}, and the task is '{task}'; {remedy}")
    if BENCH_TASKS[task].references and not dataset.has_references:
        raise DatasetError(dataset.name, f"has images without texts, and the task is '{task}'; name a file of captions with --dataset")
