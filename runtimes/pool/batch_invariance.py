"""Whether the captions of an artifact depend on the number of images per run."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from runtimes.decoding.drafts.drafter import MAX_LEARNING_TOLERANCE
from runtimes.host.facts import read_host

if TYPE_CHECKING:
    from runtimes.pool.job import Request
    from runtimes.tasks.text_generator import TextGenerator

EQUAL_BLOCKS = {"qint8": 64, "qint4": 32}
"""Number format → largest block with which a row alone and among others has equal bits (decision 44)."""


def is_batch_invariant(captioner: "TextGenerator[Any, Any]", request: "Request") -> bool:
    """Return whether captions are the same for each batch size.

    They are not if activations of several rows share a scale, as in `pytorch-int8`, or if products add up in an order that depends on the
    number of rows. Drafts serve one image per run: with a quantized decoder, captions with and without them differ by rounding.
    """
    manifest = captioner.manifest
    beams = request.num_beams or manifest.defaults.num_beams
    if captioner.drafter is not None and beams == 1 and captioner.drafter.tolerance > MAX_LEARNING_TOLERANCE:
        return False
    components: Mapping[str, Any] = manifest.recipe.get("components", {})
    decoder = components.get("decoder", components.get("*", {}))
    formats = [decoder, *decoder.get("layers", {}).values()]
    return manifest.runtime == "ort" and all(map(_equal_rows, formats))


def _equal_rows(layer: Mapping[str, Any]) -> bool:
    """Return whether a layer's products give a row the same bits in every batch; see `exporters.recipe.Layer` for the fields."""
    weights, block = layer.get("weights", "fp32"), layer.get("block_size")
    if weights == "fp32":
        return True
    if weights == "qint4" and "avx512" not in read_host().cpu_features:
        return False  # measured with AVX2; ARM is not measured
    return weights in EQUAL_BLOCKS and block is not None and block <= EQUAL_BLOCKS[weights]
