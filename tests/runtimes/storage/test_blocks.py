"""Files are read in blocks of bounded size."""

import io

import pytest

from runtimes.storage.blocks import BLOCK_BYTES, read_blocks


@pytest.mark.parametrize(
    ("length", "start", "size", "blocks"),
    [
        (0, 0, None, []),
        (5, 0, None, [5]),
        (BLOCK_BYTES, 0, None, [BLOCK_BYTES]),
        (2 * BLOCK_BYTES + 3, 1, None, [BLOCK_BYTES, BLOCK_BYTES, 2]),
        (2 * BLOCK_BYTES, 2, BLOCK_BYTES + 7, [BLOCK_BYTES, 7]),
        (5, 2, 100, [3]),
        (5, 2, 0, []),
        (5, 2, -3, []),
    ],
)
def test_blocks_are_those_of_the_range(length, start, size, blocks):
    content = bytes(number % 251 for number in range(length))
    stream = io.BytesIO(content)
    stream.seek(start)
    read = list(read_blocks(stream, size))
    assert list(map(len, read)) == blocks
    assert b"".join(read) == content[start : start + sum(blocks)]
