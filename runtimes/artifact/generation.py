"""How text is generated: the settings of a search. A manifest's `defaults` are one, and so is what a caller asks for."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """Settings with transformers' names and meanings. Lengths count the start token and the prompt."""

    num_beams: int = 1
    """1 is greedy search."""
    min_length: int = 0
    """The end token is not allowed while a text is shorter than this."""
    max_length: int = 20
    length_penalty: float = 1.0
    """A hypothesis' score is its log-probability divided by its generated length to this power."""

    def __post_init__(self) -> None:
        if self.num_beams < 1:
            raise ValueError("num_beams must be at least 1")
        if self.min_length < 0 or self.max_length < 2 or self.min_length > self.max_length:
            raise ValueError("lengths must satisfy 0 <= min_length <= max_length and max_length >= 2")
        if not -10 <= self.length_penalty <= 10:  # beyond, length ** length_penalty leaves float32
            raise ValueError("length_penalty must be between -10 and 10")
