"""Test GPTQ against the formula of optimal brain quantization, one weight after another, in FP64."""

import numpy as np
import pytest
import torch

from exporters.rounding.blocks import Blocks, quantize_blocks, round_to_nearest
from exporters.rounding.gptq import DAMPING, gptq_rounding, quantize_gptq

BLOCKS = Blocks(bits=4, size=32)


def normal(inputs: int, outputs: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(inputs, outputs)).astype(np.float32)


def correlated(rows: int, width: int) -> np.ndarray:
    """Return inputs f32[rows,width] whose neighbours are correlated."""
    return np.cumsum(normal(rows, width, seed=1), axis=1) + normal(rows, width, seed=2)


def gram(inputs: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(inputs.T @ inputs)


def values(codes: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Return the matrix f32[K,N] that codes and scales represent."""
    return ((codes.astype(np.float32) - 8) * scales[..., None]).reshape(len(codes), -1).T


def one_by_one(weight: np.ndarray, gram: np.ndarray, block: int) -> np.ndarray:
    """Return the rounded matrix. After each input, the inverse of the Gram matrix of all later inputs is computed anew."""
    left, rounded = weight.astype(np.float64), np.empty(weight.shape)
    damped = gram.astype(np.float64) + DAMPING * np.diag(gram).mean() * np.eye(len(gram))
    for k in range(len(weight)):
        if k % block == 0:
            group = left[k : k + block]
            largest = np.take_along_axis(group, np.abs(group).argmax(0)[None], 0)[0]
            scale = (-largest / 8).astype(np.float16).astype(np.float64)
        rounded[k] = np.clip(np.rint(left[k] / scale), -8, 7) * scale
        inverse = np.linalg.inv(damped[k:, k:])
        left[k + 1 :] -= np.outer(inverse[1:, 0], left[k] - rounded[k]) / inverse[0, 0]
    return rounded


@pytest.mark.parametrize("inputs", [32, 96])
def test_it_is_the_formula_applied_to_one_input_after_another(inputs):
    weight, matrix = normal(inputs, 7), gram(correlated(400, inputs))
    np.testing.assert_allclose(values(*quantize_gptq(weight, matrix, BLOCKS)), one_by_one(weight, matrix.numpy(), 32), rtol=1e-6)


def test_the_error_of_outputs_is_smaller_than_with_rounding_to_nearest():
    weight, inputs = normal(96, 40), correlated(400, 96)
    nearest, gptq = values(*quantize_blocks(weight, 4, 32)), values(*quantize_gptq(weight, gram(inputs), BLOCKS))
    errors = [np.square(inputs @ (matrix - weight)).sum() for matrix in (nearest, gptq)]
    assert errors[1] < 0.3 * errors[0]
    assert np.square(gptq - weight).sum() > np.square(nearest - weight).sum()


@pytest.mark.parametrize("matrix", [torch.eye(64), torch.zeros(64, 64), torch.diag(torch.arange(64.0))], ids=["equal", "zero", "diagonal"])
def test_with_uncorrelated_inputs_it_rounds_to_nearest(matrix):
    for result, expected in zip(quantize_gptq(normal(64, 9), matrix, BLOCKS), quantize_blocks(normal(64, 9), 4, 32), strict=True):
        np.testing.assert_array_equal(result, expected)
        assert result.dtype == expected.dtype


def test_weights_that_4_bits_store_without_loss_are_not_changed():
    """A fine-tuned checkpoint contains such weights."""
    weight = values(*quantize_blocks(normal(96, 12), 4, 32, (1.0, 0.91, 0.82)))
    np.testing.assert_array_equal(values(*quantize_gptq(weight, gram(correlated(50, 96)), BLOCKS)), weight)


def test_fewer_calibration_rows_than_inputs_are_enough():
    codes, scales = quantize_gptq(normal(96, 12), gram(correlated(10, 96)), BLOCKS)
    assert np.isfinite(scales).all()
    assert np.abs(values(codes, scales)).max() < 2 * np.abs(normal(96, 12)).max()


@pytest.mark.parametrize(("layer", "bits", "is_table"), [("other", 4, False), ("known", 8, False), ("known", 4, True)])
def test_other_layers_and_formats_and_the_word_embeddings_are_rounded_to_nearest(layer, bits, is_table):
    weight, blocks = normal(64, 9), Blocks(bits=bits, size=32)
    rounded = gptq_rounding({"known": gram(correlated(100, 64))})(layer, weight, blocks, is_table=is_table)
    for result, expected in zip(rounded, round_to_nearest(layer, weight, blocks, is_table=is_table), strict=True):
        np.testing.assert_array_equal(result, expected)
    assert not np.array_equal(rounded[0], gptq_rounding({"known": gram(correlated(100, 64))})("known", weight, BLOCKS, is_table=False)[0])
