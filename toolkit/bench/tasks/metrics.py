"""The metrics of each task that need the reference texts: from the results of a case to fields of `ImageQuality`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from exporters.gate.labelled_image import LabelledImage
from toolkit.bench.job import Sample
from toolkit.metrics.captions import score_captions
from toolkit.metrics.ngrams import NgramCounter
from toolkit.metrics.vqa_accuracy import vqa_accuracy

Metrics = Callable[[Sequence[Sample], Sequence[LabelledImage]], Sequence[Mapping[str, Any]]]
"""(results, samples of the data set) → fields of each sample's `toolkit.records.image_quality.ImageQuality`."""


def caption_metrics(counter: NgramCounter) -> Metrics:
    """Return the function that computes BLEU's counts, CIDEr-D and ROUGE-L, with a counter of n-grams."""

    def metrics(samples: Sequence[Sample], images: Sequence[LabelledImage]) -> list[Mapping[str, Any]]:
        scores = score_captions([sample.without_prompt for sample in samples], [image.texts for image in images], counter.count)
        return [
            {
                "matches": score.ngrams.matches,
                "totals": score.ngrams.totals,
                "hypothesis_length": score.ngrams.hypothesis_length,
                "reference_length": score.ngrams.reference_length,
                "cider": score.cider,
                "rouge_l": score.rouge_l,
            }
            for score in scores
        ]

    return metrics


def answer_metrics(samples: Sequence[Sample], images: Sequence[LabelledImage]) -> list[Mapping[str, Any]]:
    """Return the accuracy of each answer."""
    return [{"vqa_accuracy": vqa_accuracy(sample.text, image.texts)} for sample, image in zip(samples, images, strict=True)]


def match_metrics(samples: Sequence[Sample], images: Sequence[LabelledImage]) -> list[Mapping[str, Any]]:
    """Return no fields: the worker ranks images and texts."""
    return [{} for _ in images]
