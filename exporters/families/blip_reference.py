"""transformers' own BLIP models that generate texts, in FP32, and the reference run of a model of transformers on the gate's images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from exporters.families.hf_text_model import HfTextModel, Weights
from exporters.gate.gate import Reference
from exporters.gate.labelled_image import LabelledImage
from runtimes.artifact.generation import GenerationConfig
from runtimes.decoding.scoring import sequence_log_probability
from runtimes.decoding.session import Float32
from runtimes.images.reading import ImageInput
from runtimes.tasks.results import GeneratedText

MAX_MARGIN_NAT = 1e6
"""Margin of a token if all others are banned, in place of infinity, which JSON does not have."""


class HfCaptioner(HfTextModel):
    """transformers' `BlipForConditionalGeneration`."""

    MODEL = "BlipForConditionalGeneration"

    def caption(self, images: Sequence[ImageInput], prompt: str | None = None, **arguments: Any) -> list[GeneratedText]:  # noqa: ANN401
        """Caption images; see `HfTextModel.generate`."""
        return self.generate(images, [None] * len(images), prompt=prompt, **arguments)

    def score(self, images: Sequence[ImageInput], *, captions: Sequence[Sequence[str]]) -> list[Float32]:
        """Return the teacher-forced log-probabilities f32[K] of each image's K captions; see `Captioner.score`."""
        scores = []
        for image, references in zip(images, captions, strict=True):
            rows = self.token_log_probabilities(image, captions=references)
            ids = [self.text_ids(caption) for caption in references]
            values = [sequence_log_probability(row, sequence) for row, sequence in zip(rows, ids, strict=True)]
            scores.append(np.array(values, dtype=np.float32))
        return scores

    def token_log_probabilities(self, image: ImageInput, *, captions: Sequence[str]) -> list[Float32]:
        """Return the teacher-forced log-probabilities f32[T,V] of each caption; see `Captioner.token_log_probabilities`."""
        return self.reference_log_probabilities(image, None, captions)


class HfAnswerer(HfTextModel):
    """transformers' `BlipForQuestionAnswering`."""

    MODEL = "BlipForQuestionAnswering"

    def _states(self, image: ImageInput, question: str | None) -> torch.Tensor:
        ids = self._tokenizer([question], return_tensors="pt").input_ids.to(self._device)
        return self.model.text_encoder(input_ids=ids, encoder_hidden_states=super()._states(image, None)).last_hidden_state


def versions() -> dict[str, str]:
    """Return the versions of the libraries that the baseline uses."""
    return {"transformers": transformers.__version__, "torch": torch.__version__, "numpy": np.__version__}


def run_reference(
    model: type[HfTextModel],
    directory: Path,
    images: Sequence[LabelledImage],
    defaults: GenerationConfig,
    threads: int,
    *,
    tied: bool,
    weights: Weights | None = None,
) -> Reference:
    """Run a model of transformers on the gate's images; see `FamilyAdapter.reference`."""
    reference = model(directory, threads, tied=tied, weights=weights)
    ids, margins, scores = [], [], []
    for image in images:
        text, margin = text_with_margins(reference, image.path, image.question, defaults.deterministic())
        ids.append(tuple(text))
        margins.append(tuple(margin))
        rows = reference.reference_log_probabilities(image.path, image.question, image.texts)
        sequences = map(reference.text_ids, image.texts)
        scores.append(tuple(sequence_log_probability(row, sequence) for row, sequence in zip(rows, sequences, strict=True)))
    return Reference(
        transformers=transformers.__version__, token_ids=tuple(ids), margins_nat=tuple(margins), log_probabilities=tuple(scores)
    )


def greedy_with_margins(captioner: HfTextModel, image: ImageInput, text: str | None = None) -> tuple[list[int], list[float]]:
    """Generate a text greedily with transformers; see `text_with_margins`."""
    return text_with_margins(captioner, image, text, GenerationConfig())


def text_with_margins(model: HfTextModel, image: ImageInput, text: str | None, config: GenerationConfig) -> tuple[list[int], list[float]]:
    """Generate a text with transformers from an image and a prompt or question.

    Args:
        model: The model of transformers.
        image: The image.
        text: Prompt or question; None for neither.
        config: Settings of the search.

    Returns:
        Token ids, and for each generated token the margin: log-probability of the best token minus that of the second, in nat. Beam search
        has no margin per token, so its list is empty.
    """
    output = model.output(model._pixels(image), [text], config, scores=config.num_beams == 1)
    ids = model._trim(output.sequences[0].tolist())
    if config.num_beams > 1:
        return ids, []
    best_two = [torch.topk(scores[0], 2).values for scores in output.scores]
    return ids, [min(float(pair[0] - pair[1]), MAX_MARGIN_NAT) for pair in best_two]
