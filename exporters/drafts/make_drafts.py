"""Make the draft table of an artifact and measure it."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from exporters.drafts.measure import caption_all, measure_step_costs, measure_tolerance
from exporters.drafts.predictions import make_predictions
from exporters.drafts.sources import DraftSources, read_images
from runtimes.decoding.drafts.draft_table import read_table, write_table
from runtimes.decoding.drafts.drafter import Drafter, DraftSpec
from runtimes.errors import RequestError
from runtimes.tasks.captioner import Captioner

TOLERANCE_IMAGES = 24
MIN_TOKENS_PER_STEP = 1.1
"""Below it, drafts are off by default: a step with a draft takes longer, and with small margins many choices are repeated."""


def make_drafts(captioner: Captioner, sources: DraftSources, gate_images: Sequence[Path]) -> tuple[bytes, DraftSpec]:
    """Return the content of the table's file and its entry in the manifest.

    Args:
        captioner: Captioner of the artifact, without drafts. It captions the images of `sources` greedily.
        sources: Images and texts that the table is made from.
        gate_images: Images to compare the captions with and without drafts.

    Raises:
        RequestError: There is neither a text nor an image that can be read.
    """
    manifest = captioner.manifest
    config, eos_id = replace(manifest.defaults.deterministic(), num_beams=1), manifest.tokenizer.eos_id
    without = caption_all(captioner, gate_images, config)
    captions = caption_all(captioner, read_images(sources.images), config).token_ids
    texts = [*captions, *(captioner.text_ids(text) for text in sources.texts)]
    if not texts:
        raise RequestError("a draft table needs images that can be read, or texts: use --draft-images, --draft-text or --no-draft")
    content = write_table(make_predictions(texts, eos_id))
    costs = measure_step_costs(captioner, max(texts, key=len))
    captioned = zip(read_images(sources.images or gate_images), captions or without.token_ids, strict=True)
    tolerance = measure_tolerance(captioner, islice(captioned, TOLERANCE_IMAGES))
    captioner.drafter = Drafter(read_table(content, manifest.model.vocabulary), costs, eos_id, tolerance=tolerance)
    drafted = caption_all(captioner, gate_images, config)
    captioner.drafter = None
    tokens_per_step = round(drafted.tokens / max(drafted.steps, 1), 3)
    same = sum(ids == expected for ids, expected in zip(drafted.token_ids, without.token_ids, strict=True))
    spec = DraftSpec(
        step_costs=costs,
        tolerance=tolerance,
        default=same == len(without.token_ids) and tokens_per_step >= MIN_TOKENS_PER_STEP,
        same_captions=same,
        tokens_per_step=tokens_per_step,
    )
    return content, spec
