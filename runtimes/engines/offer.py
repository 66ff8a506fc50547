"""What an engine's library offers on this machine, as its `probe` reports it."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Int8SelfTest:
    """Result of one integer product whose every element is a known sum."""

    expected: int
    found: int

    @property
    def right(self) -> bool:
        """Whether nothing saturated."""
        return self.found == self.expected


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What a library can use here."""

    providers: tuple[str, ...]
    """Execution providers of onnxruntime, quantized engines of torch, in the library's order."""
    cuda: bool
    """It can use a GPU here."""
    product: Int8SelfTest | None
    """The self-test of integer products; of onnxruntime only."""
