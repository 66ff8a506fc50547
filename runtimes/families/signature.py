"""Signatures of ONNX graphs: names, element types and axes of inputs and outputs.

A value is spelled `float32[rows,4,past,8]`. A number is a fixed size; an axis with a name may have any size.
"""

from collections.abc import Mapping
from typing import TypeAlias

SPLIT, SINGLE = "split/1", "single/1"
"""Contracts: an encoder and a decoder that a runtime calls token by token; one graph with the whole loop."""

Values: TypeAlias = dict[str, str]
"""Name → type and axes."""

Signature: TypeAlias = tuple[Values, Values]
"""Inputs and outputs of one graph."""


def signature_mismatch(found: Mapping[str, str], wanted: Mapping[str, str]) -> str | None:
    """Return how a graph's inputs or outputs differ from the expected ones, or None.

    An axis may have a name where a size is expected: a graph need not state a size that it computes.
    """
    if list(found) != list(wanted):
        return f"{', '.join(found)} instead of {', '.join(wanted)}"
    for name, value in found.items():
        kind, axes = _parts(value)
        wanted_kind, wanted_axes = _parts(wanted[name])
        fits = kind == wanted_kind and len(axes) == len(wanted_axes)
        if not fits or any(a.isdigit() and a != b for a, b in zip(axes, wanted_axes, strict=True)):
            return f"{name}: {value} instead of {wanted[name]}"
    return None


def _parts(value: str) -> tuple[str, list[str]]:
    kind, _, axes = value.removesuffix("]").partition("[")
    return kind, axes.split(",") if axes else []
