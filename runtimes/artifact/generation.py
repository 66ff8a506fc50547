"""The settings of a search: the `defaults` of a manifest, overridden by the arguments of a caller."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """Settings of greedy or beam search, with the names and meanings of transformers. Lengths include the start token and the prompt."""

    num_beams: int = 1
    """1 is greedy search."""
    min_length: int = 0
    """The end token is excluded while a text has fewer tokens."""
    max_length: int = 20
    length_penalty: float = 1.0
    """The score of a hypothesis is its log-probability / generated length ** length_penalty."""

    def __post_init__(self) -> None:
        if self.num_beams < 1:
            raise ValueError("num_beams must be at least 1")
        if self.min_length < 0 or self.max_length < 2 or self.min_length > self.max_length:
            raise ValueError("lengths must satisfy 0 <= min_length <= max_length and max_length >= 2")
        if not -10 <= self.length_penalty <= 10:  # larger exponents overflow float32
            raise ValueError("length_penalty must be between -10 and 10")
