"""Log-probabilities of tokens equal transformers': of the logits in greedy search, of the transition scores in beam search."""

import pytest
import torch

from exporters.families.blip_reference import HfCaptioner
from runtimes.loading import load

SETTINGS = [
    {},
    {"repetition_penalty": 1.4, "no_repeat_ngram_size": 2},
    {"num_beams": 3},
    {"num_beams": 3, "repetition_penalty": 1.4, "no_repeat_ngram_size": 2, "min_length": 8},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("recipe", ["onnx-fp32", "pytorch-fp32"])
def test_log_probabilities_equal_transformers(tiny_checkpoint, tiny_artifacts, drawn_images, recipe, settings):
    reference, captioner = HfCaptioner(tiny_checkpoint, threads=1), load(tiny_artifacts[recipe], device="cpu")
    for image in drawn_images[:4]:
        with torch.inference_mode():
            output = reference.model.generate(
                pixel_values=reference._pixels(image.path),
                **{"max_length": 16, "do_sample": False, **settings},
                return_dict_in_generate=True,
                output_scores=True,
                output_logits=True,
            )
        (caption,) = captioner.caption(image.path, log_probabilities=True, max_length=16, **settings)
        assert list(caption.token_ids) == reference._trim(output.sequences[0].tolist())
        if "num_beams" in settings:
            expected = reference.model.text_decoder.compute_transition_scores(output.sequences, output.scores, output.beam_indices)
        else:
            expected = reference.model.text_decoder.compute_transition_scores(output.sequences, output.logits, normalize_logits=True)
        assert caption.log_probabilities == pytest.approx(expected[0, : len(caption.log_probabilities)].tolist(), abs=1e-4)
