"""What a runtime must provide: the numeric functions of BLIP captioning, or the whole loop in one. Everything else is shared.

Axes: B images, K hypotheses per image, R = B*K decoder rows (rows of an image are neighbours), T new tokens, M wanted positions,
V vocabulary, S pixels.
"""

from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Float32: TypeAlias = NDArray[np.float32]
Int64: TypeAlias = NDArray[np.int64]
State: TypeAlias = Any
"""A runtime's own value: cross-attention K/V per image and the cache per row. Only the session that made it looks inside."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """What is really in use, as opposed to asked for."""

    runtime: str
    versions: dict[str, str]
    device: str
    providers: tuple[str, ...]
    """Execution providers or quantized engine, first used first."""
    threads: int
    precision: str


class Session(Protocol):
    """The seam between shared decoding and a runtime."""

    def encode(self, pixels: Float32) -> State:
        """Run the vision tower on pixels f32[B,3,S,S]; the state holds cross-attention K/V per layer, once per image, and B empty rows."""
        ...

    def step(self, token_ids: Int64, state: State, positions: Int64) -> tuple[Float32, State]:
        """Feed token_ids i64[R,T]; return logits f32[R,M,V] at positions i64[M] of the T new ones, and the next state. Consumes state."""
        ...

    def select(self, state: State, rows: Int64, images: Int64) -> State:
        """Keep decoder rows i64[R'] (beam parents, finished rows dropped) and images i64[B'], in this order. Consumes state."""
        ...

    def describe(self) -> Description:
        """Library versions, providers, threads and precision really in use."""
        ...


@runtime_checkable
class WholeLoop(Protocol):
    """The seam to a runtime that searches itself, greedily, in one run: there are no logits to look at, so no beams and no scores."""

    def caption(self, pixels: Float32, prompt_ids: Int64, min_length: int, max_length: int) -> tuple[Int64, Float32]:
        """Caption pixels f32[B,3,S,S] from prompt_ids i64[T]; lengths as `runtimes.artifact.generation.GenerationConfig` counts them.

        Returns:
            Ids i64[B,L], prompt included, filled up behind the end token, L at most `max_length`; and f32[B], the natural-log probability
            of each picture's generated tokens.
        """
        ...

    def describe(self) -> Description:
        """See `Session.describe`."""
        ...


class DeviceMemoryError(MemoryError):
    """A session's device ran out of memory on this batch; a smaller one may fit."""
