"""Signatures of ONNX graphs: names, element types and axes of inputs and outputs.

A value is written as `float32[rows,4,past,8]`. A number is a fixed size; a named axis may have any size.
"""

from collections.abc import Mapping
from typing import TypeAlias

SPLIT, SINGLE, QUESTION, MATCHING = "split/1", "single/1", "question/1", "matching/1"
"""Contracts. SPLIT: an encoder, and a decoder that runs once per token. SINGLE: one graph with the whole loop. QUESTION: as SPLIT, and
between them a graph that runs once per question. MATCHING: an encoder of images, and an encoder of texts with or without images."""

Values: TypeAlias = dict[str, str]
"""Name → type and axes."""

Signature: TypeAlias = tuple[Values, Values]
"""Inputs and outputs of one graph."""


def signature_mismatch(actual: Mapping[str, str], expected: Mapping[str, str]) -> str | None:
    """Return the first difference between a graph's inputs or outputs and the expected ones, or None.

    A named axis matches every size, because exporters leave computed sizes symbolic.
    """
    if list(actual) != list(expected):
        return f"{', '.join(actual)} instead of {', '.join(expected)}"
    for name, value in actual.items():
        kind, axes = _parts(value)
        expected_kind, expected_axes = _parts(expected[name])
        fits = kind == expected_kind and len(axes) == len(expected_axes)
        if not fits or any(a.isdigit() and a != b for a, b in zip(axes, expected_axes, strict=True)):
            return f"{name}: {value} instead of {expected[name]}"
    return None


def _parts(value: str) -> tuple[str, list[str]]:
    """Split `float32[rows,4]` into its type and its axes."""
    kind, _, axes = value.removesuffix("]").partition("[")
    return kind, axes.split(",") if axes else []
