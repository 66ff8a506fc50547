"""The result of an engine's `probe`: what its library supports on this machine."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Int8SelfTest:
    """Result of an INT8 matrix product whose elements all have the same known value."""

    expected: int
    actual: int

    @property
    def right(self) -> bool:
        """Whether the product is exact, so that no intermediate sum saturated."""
        return self.actual == self.expected


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What a library supports on this machine."""

    providers: tuple[str, ...]
    """Execution providers of onnxruntime, or quantized engines of torch, in the library's order."""
    cuda: bool
    """Whether the library can use a GPU."""
    product: Int8SelfTest | None
    """Result of the INT8 self-test; None for libraries other than onnxruntime."""
