"""The interface between a benchmark worker and the models of a task."""

from collections.abc import Sequence
from typing import Any, Protocol

from runtimes.decoding.search import PhaseTimer
from toolkit.bench.job import Sample

REQUESTS = {
    "caption": "toolkit.bench.tasks.text_requests:TextRequests",
    "vqa": "toolkit.bench.tasks.text_requests:TextRequests",
    "matching": "toolkit.bench.tasks.match_requests:MatchRequests",
}
"""Task → "module:class" of its `Requests`. Workers import this module and no metrics, because their start and memory are measured."""


class Requests(Protocol):
    """Runs a model on the samples of a job. Classes are made with the `Opened` case and the `CaseJob`."""

    def run(self, samples: Sequence[int], timer: PhaseTimer | None = None) -> Sequence[Any]:
        """Run the model on samples, by their indices, and return one response for each. This call is timed.

        Args:
            samples: Indices into the job's images; one run of the model.
            timer: Called with the phases and their seconds.

        Returns:
            Responses; an attribute `error` is the message of a sample that failed, or None.
        """
        ...

    def results(self, responses: Sequence[Any]) -> list[Sample]:
        """Return the results of all samples, with scores if the job has references that shall be scored. This call is not timed.

        Args:
            responses: Those of all samples of the job, in order.
        """
        ...
