"""The size of a run: what a request asks for that determines the time of an image."""

from typing import Final, NamedTuple

TOKEN_STEP: Final = 16
"""Requests with a `min_length` of 1 to 16 are of one size, those with 17 to 32 of the next, and so on."""
MOST_TOKENS: Final = 512
"""BLIP's positions. The model refuses a longer `min_length`."""


class RunSize(NamedTuple):
    """Rows of the decoder and least length of an image. Most texts end by themselves, so a greatest length says little."""

    rows: int = 1
    """Rows of the decoder, or texts."""
    tokens: int = 0
    """Least number of tokens, rounded up to a multiple of `TOKEN_STEP`, at most `MOST_TOKENS`."""

    @classmethod
    def of(cls, rows: int, least_tokens: int) -> "RunSize":
        """Return the size of a run."""
        return cls(rows, -(-max(0, min(least_tokens, MOST_TOKENS)) // TOKEN_STEP) * TOKEN_STEP)
