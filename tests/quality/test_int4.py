"""Test the comparison of roundings: GPTQ keeps more of the FP32 model's distributions than the rounding before it."""

import numpy as np
import pytest

from exporters.checkpoint.checkpoint import open_checkpoint
from exporters.rounding.blocks import Blocks
from tests.quality.int4 import BEFORE, CHOSEN, decoders, hqq, k_quant, measure, nearest, rows_of


def normal(inputs, outputs):
    return np.random.default_rng(0).normal(size=(inputs, outputs)).astype(np.float32)


def error(codes, scales, weight):
    return np.square(((codes.astype(np.float32) - 8) * scales[..., None]).reshape(len(codes), -1).T - weight).sum()


def test_errors_of_weights_are_smaller_than_with_rounding_to_nearest():
    weight, blocks = normal(96, 16), Blocks(bits=4, size=32)
    least = error(*nearest("", weight, blocks, is_table=False), weight)
    assert error(*k_quant("", weight, blocks, is_table=False), weight) < least
    assert np.square(hqq(weight, 32) - weight).sum() < least


@pytest.mark.full
def test_gptq_in_blocks_of_32_reduces_the_divergence_by_40_percent(mini_checkpoint, tmp_path):
    checkpoint = open_checkpoint(str(mini_checkpoint))
    files = decoders(checkpoint, tmp_path, [BEFORE, CHOSEN])
    before, chosen = rows_of(measure(checkpoint, files, "sample"), files, "confirmation")
    assert (before["kl_factor"], chosen["default"]) == (1, True)
    assert chosen["kl_factor"] < 0.6
    assert chosen["bytes"] < 1.1 * before["bytes"]
