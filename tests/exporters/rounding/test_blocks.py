"""Test rounding in blocks: codes and scales computed by hand."""

import numpy as np
import pytest

from exporters.rounding.blocks import SHRINK, quantize_blocks


def normal(inputs: int, outputs: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(inputs, outputs)).astype(np.float32)


def exact(bits: int, inputs: int, outputs: int, block: int) -> np.ndarray:
    """Return a matrix that blocks store without loss: quarters of integers, with ±2**(bits-1) in every block, and one block of zeros."""
    half = 1 << (bits - 1)
    random = np.random.default_rng(bits)
    integers = random.integers(1 - half, half, (outputs, inputs // block, block))
    integers[..., random.integers(0, block)] = -half
    integers *= random.choice([-1, 1], (outputs, inputs // block, 1))  # there is one more negative code, so the sign is in the scale
    integers[0, 0] = 0
    return (integers.reshape(outputs, inputs).T / 4).astype(np.float32)


def test_8_bits_of_a_hand_made_matrix():
    """Two blocks of 4 inputs; columns are outputs. The largest value gets the code -128, so its scale has the opposite sign."""
    weight = np.array(
        [
            [64.0, -128.0, 0.0],  # scales -0.5, 1, 0
            [-64.0, 127.0, 0.0],  # +128 does not exist and becomes 127
            [0.75, 2.5, 0.0],  # -1.5 and 2.5 are rounded to even
            [-63.5, -1.0, 0.0],
            [0.0, 0.5, -0.25],  # scales 0.0625, 1/128 * -1, 1/512
            [-8.0, 1.0, 0.125],
            [4.0, -1.0, 0.0],
            [-0.0625, 0.0, 0.25],  # its magnitude equals that of the first value, which is used
        ],
        dtype=np.float32,
    )
    codes, scales = quantize_blocks(weight, 8, 4)
    assert codes.dtype == np.uint8
    assert (codes.astype(int) - 128).tolist() == [
        [[-128, 127, -2, 127], [0, -128, 64, -1]],
        [[-128, 127, 2, -1], [-64, -128, 127, 0]],
        [[0, 0, 0, 0], [-128, 64, 0, 127]],
    ]
    assert scales.tolist() == [[-0.5, 0.0625], [1.0, -1 / 128], [0.0, 1 / 512]]


def test_4_bits_of_a_hand_made_matrix():
    weight = np.array([[8.0, -4.0], [-8.0, 3.5], [2.5, 0.25], [1.0, 4.0]], dtype=np.float32)
    codes, scales = quantize_blocks(weight, 4, 4)
    assert codes.tolist() == [[[0, 15, 6, 7]], [[0, 15, 8, 15]]]  # -2.5 and 0.5 are rounded to even; +8 does not exist
    assert scales.tolist() == [[-1.0], [0.5]]


@pytest.mark.parametrize("bits", [4, 8])
def test_exact_values_are_stored_without_loss(bits):
    weight = exact(bits, 96, 5, 32)
    codes, scales = quantize_blocks(weight, bits, 32)
    values = (codes.astype(np.float64) - 2 ** (bits - 1)) * scales[..., None]
    np.testing.assert_array_equal(values.reshape(5, 96).T, weight)
    assert (scales < 0).any()
    assert (scales > 0).any()


def test_a_narrower_range_is_used_if_its_squared_error_is_smaller():
    """The block is one 8 and fifteen 3.5. A scale of 1 has the squared error 3.75 (0.5 for each 3.5).

    A scale of 0.91 has 0.81 (0.14 for each 3.5 and 0.72 for the 8). Scales of 0.94 and 0.88 have 1.24 and 0.93.
    """
    weight = np.array([[8.0]] + 15 * [[3.5]], dtype=np.float32)
    codes, scales = quantize_blocks(weight, 4, 16)
    assert (codes.tolist(), scales.tolist()) == ([[[0, *15 * [4]]]], [[-1.0]])
    codes, scales = quantize_blocks(weight, 4, 16, (1.0, 0.94, 0.91, 0.88))
    assert codes.tolist() == [[[0, *15 * [4]]]]
    assert scales.tolist() == [[float(np.float16(-0.91))]]  # the scale is rounded to FP16 before codes are computed


def test_every_block_uses_the_range_with_the_least_squared_error():
    weight = normal(256, 24, seed=3)
    weight[:32, 0] = 0
    _, scales = quantize_blocks(weight, 4, 32, SHRINK)
    used = []
    for output in range(24):
        for number in range(8):
            block = [float(value) for value in weight[32 * number : 32 * number + 32, output]]
            largest = max(block, key=abs)
            errors = []
            for part in SHRINK:
                scale = float(np.float16(np.float32(-part * largest / 8))) or 1.0
                errors.append(sum((min(max(round(value / scale), -8), 7) * scale - value) ** 2 for value in block))
            used.append(SHRINK[errors.index(min(errors))])
            assert scales[output, number] == pytest.approx(-used[-1] * largest / 8, rel=2**-11)
    assert len(set(used)) > 3  # the best range differs between blocks
