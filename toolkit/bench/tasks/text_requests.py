"""Benchmark requests to models that generate texts: captions, or answers to questions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runtimes.decoding.scoring import sequence_log_probability
from runtimes.decoding.search import PhaseTimer
from runtimes.tasks.results import GeneratedText
from toolkit.bench.cases import Opened
from toolkit.bench.distributions import Distributions
from toolkit.bench.job import CaseJob, Sample, prompt_tokens


class TextRequests:
    """Generates one text per sample, and scores its references by teacher forcing."""

    def __init__(self, opened: Opened, job: CaseJob) -> None:
        self._opened, self._model, self._job = opened, opened.model, job
        self._questions = job.questions or (None,) * len(job.images)
        self._decoding = {**job.decoding(opened.model), "batch_size": job.batch_size}
        self._distributions = Distributions(Path(job.distributions)) if job.distributions else None

    def run(self, samples: Sequence[int], timer: PhaseTimer | None = None) -> list[GeneratedText]:
        """See `Requests.run`."""
        images, questions = ([values[index] for index in samples] for values in (self._job.images, self._questions))
        texts: list[GeneratedText] = self._model.generate(images, questions, timer=timer, **self._decoding)
        return texts

    def results(self, responses: Sequence[GeneratedText]) -> list[Sample]:
        """See `Requests.results`."""
        return [self._result(index, text) for index, text in enumerate(responses)]

    def _result(self, index: int, text: GeneratedText) -> Sample:
        prompt = self._job.prompt
        scored = self._job.score and any(self._job.references) and self._opened.scores and text.error is None
        return Sample(
            text=text.text,
            without_prompt=self._model.strip_prompt(text, prompt),
            tokens=max(0, len(text.token_ids) - prompt_tokens(self._model, prompt)),
            error=text.error,
            **self._scores(index) if scored else {},
        )

    def _scores(self, index: int) -> dict[str, Any]:
        """Return the fields of `Sample` with the scores of the references."""
        references = self._job.references[index]
        rows = self._model.reference_log_probabilities(self._job.images[index], self._questions[index], references)
        ids = [self._model.text_ids(reference) for reference in references]
        divergence = None
        if self._distributions is not None and self._job.stores_distributions:
            self._distributions.store(index, rows)
        elif self._distributions is not None:
            divergence = self._distributions.divergence(index, rows)
        return {
            "log_probability": sum(sequence_log_probability(row, sequence) for row, sequence in zip(rows, ids, strict=True)),
            "scored_tokens": sum(len(sequence) - 1 for sequence in ids),
            "kl_divergence": divergence,
        }
