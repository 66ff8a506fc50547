"""Choose a format for each layer so that the cost is least for a given estimated drift: the Pareto frontier of all layers together.

For a price of drift, each layer takes the format with the least cost + price * drift. These are the assignments on the convex hull of the
frontier (Everett 1963, generalized Lagrange multipliers).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from exporters.recipe import Layer

Objective = Literal["size", "time"]
PRICES = 400
"""Prices of drift that are tried, equally spaced on a logarithmic scale."""
HALVINGS = 40
"""Steps of the bisection for the price of a byte."""


@dataclass(frozen=True, kw_only=True)
class FormatChoice:
    """A format of a layer with its estimates."""

    layer_format: Layer
    drift: float
    """Estimated drift in nat per token."""
    stored: int
    """Bytes of the layer."""
    seconds: float
    """Time of the layer per image."""


Assignment = dict[str, FormatChoice]
"""Layer → its choice."""


def frontier(choices: Mapping[str, Sequence[FormatChoice]], objective: Objective, layer_bytes: float) -> list[Assignment]:
    """Return the assignments on the frontier, from the least cost to the least estimated drift.

    Args:
        choices: Layer → its formats.
        objective: The cost: bytes, or seconds per image.
        layer_bytes: Limit on the sum of bytes, or infinity. If no assignment is within it, the result is empty.
    """
    names = list(choices)
    drift, stored, seconds = (
        [np.array([getattr(choice, key) for choice in choices[name]], dtype=np.float64) for name in names]
        for key in ("drift", "stored", "seconds")
    )
    if sum(each.min() for each in stored) > layer_bytes:
        return []
    # A time budget of 0 s must not make bytes free, so each cost has a small part of the other.
    scale = sum(each.max() for each in stored) / max(sum(each.max() for each in seconds), 1e-9)
    costs = [b + 1e-6 * scale * s if objective == "size" else scale * s + 1e-6 * b for b, s in zip(stored, seconds, strict=True)]
    largest = max(sum(each.max() for each in costs), 1e-9)

    def chosen(price: float) -> tuple[int, ...]:
        def with_bytes(byte_price: float) -> list[int]:
            return [int(np.argmin(c + price * d + byte_price * b)) for c, d, b in zip(costs, drift, stored, strict=True)]

        def total(indices: list[int]) -> float:
            return float(sum(b[index] for b, index in zip(stored, indices, strict=True)))

        indices = with_bytes(0)
        if total(indices) <= layer_bytes:
            return tuple(indices)
        low, high = 0.0, 1e6 * (1 + price)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if total(with_bytes(middle)) <= layer_bytes else (middle, high)
        return tuple(with_bytes(high))

    prices = largest * np.geomspace(1e-4, 1e10, PRICES)
    candidates = dict.fromkeys(chosen(price) for price in (0.0, *prices))
    ordered = sorted(candidates, key=lambda indices: -sum(d[index] for d, index in zip(drift, indices, strict=True)))
    return [{name: choices[name][index] for name, index in zip(names, indices, strict=True)} for indices in ordered]
