"""Benchmark requests to matchers: compare an image with texts, and rank all images and texts of the data set.

Axes: I images that can be read, T their texts, E width of an embedding.
"""

from collections.abc import Sequence

import numpy as np

from exporters.gate.retrieval import TOP
from runtimes.decoding.search import PhaseTimer
from runtimes.decoding.session import Float32
from runtimes.tasks.results import Match
from toolkit.bench.cases import Opened
from toolkit.bench.job import CaseJob, Sample
from toolkit.records.image_quality import Retrieval


class MatchRequests:
    """Compares each image with the same texts, by similarity and by the matching head: first references of images, evenly spaced."""

    def __init__(self, opened: Opened, job: CaseJob) -> None:
        self._model, self._job = opened.model, job
        firsts = [references[0] for references in job.references]
        count = min(job.texts or 1, len(firsts))
        self._texts = [firsts[len(firsts) * index // count] for index in range(count)]

    def run(self, samples: Sequence[int], timer: PhaseTimer | None = None) -> list[Match]:
        """See `Requests.run`."""
        images = [self._job.images[index] for index in samples]
        return list(self._model.stream(images, self._texts, batch_size=self._job.batch_size, timer=timer))

    def results(self, responses: Sequence[Match]) -> list[Sample]:
        """See `Requests.results`."""
        samples = [Sample(text="", without_prompt="", tokens=0, error=response.error) for response in responses]
        readable = [index for index, sample in enumerate(samples) if sample.error is None]
        if self._job.score and readable:
            for index, sample in zip(readable, self._ranked(readable), strict=True):
                samples[index] = sample
        return samples

    def _ranked(self, readable: Sequence[int]) -> list[Sample]:
        """Return the results of the images with these indices."""
        pairs = [(text, position) for position, index in enumerate(readable) for text in self._job.references[index]]
        texts, owners = [text for text, _ in pairs], np.array([position for _, position in pairs])
        of_images: Float32 = self._model.embed_images([self._job.images[index] for index in readable])
        of_texts: Float32 = self._model.embed_texts(texts)
        samples = []
        for position, index in enumerate(readable):
            own, to_texts = np.flatnonzero(owners == position), of_texts @ of_images[position]  # f32[T]
            to_images = of_images @ of_texts[own].T  # f32[I,own]
            best = np.argsort(-to_images, axis=0, kind="stable")[: max(TOP)]
            (match,) = self._model.stream([self._job.images[index]], [*self._job.references[index], *self._texts])
            retrieval = Retrieval(
                text_rank=int((to_texts[owners != position] > to_texts[own].max()).sum()),
                image_ranks=tuple((to_images > to_images[position]).sum(axis=0).tolist()),
                best_images=tuple(tuple(readable[each] for each in column) for column in best.T.tolist()),
                similarities=match.similarities,
                probabilities=match.probabilities,
            )
            text = texts[int(to_texts.argmax())]
            samples.append(Sample(text=text, without_prompt=text, tokens=0, error=None, retrieval=retrieval))
        return samples
