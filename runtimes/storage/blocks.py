"""Read files in blocks, so that the memory does not depend on their size."""

from collections.abc import Iterator
from typing import BinaryIO

BLOCK_BYTES = 1 << 20


def read_blocks(stream: BinaryIO, size: int | None = None) -> Iterator[bytes]:
    """Yield the bytes of a stream from its position on, at most `BLOCK_BYTES` at once.

    Args:
        stream: An open file.
        size: Number of bytes; fewer are yielded if the stream ends before. None: up to its end.

    Raises:
        OSError: The stream cannot be read.
    """
    left = size
    while (left is None or left > 0) and (block := stream.read(BLOCK_BYTES if left is None else min(left, BLOCK_BYTES))):
        yield block
        left = None if left is None else left - len(block)
