"""The requests of a load test: good ones, and one in a hundred each that is bad, too large, or hangs up."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["good", "bad", "oversized", "hang up"]
SHARE = 0.01
"""Of each kind that is not good."""


@dataclass(frozen=True)
class Planned:
    """A request."""

    kind: Kind
    image: int
    """Index of its image."""
    cut: float
    """Hang up: share of the body that is sent; above 1, all of it and a part of the answer's time."""


def plan(count: int, images: int, share: float = SHARE) -> list[Planned]:
    """Return the same requests in each run, in random order, with exactly this share of each kind that is not good."""
    rng = random.Random(0)
    few = round(share * count)
    kinds: Sequence[Kind] = (*["bad"] * few, *["oversized"] * few, *["hang up"] * few, *["good"] * (count - 3 * few))
    return [Planned(kind, rng.randrange(images), rng.uniform(0, 2)) for kind in rng.sample(kinds, count)]
