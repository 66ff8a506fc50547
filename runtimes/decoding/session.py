"""What captioning needs of an engine: the protocols between shared decoding and whatever runs a model.

Axes: B images, K hypotheses per image, R = B*K decoder rows (rows of an image are neighbours), T new tokens, M wanted positions,
V vocabulary, S pixels.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from runtimes.errors import RequestError

Float32: TypeAlias = NDArray[np.float32]
Int64: TypeAlias = NDArray[np.int64]
Inputs: TypeAlias = Mapping[str, NDArray[Any]]
"""Name → array whose first axis is B, for example {"pixels": f32[B,3,S,S]}."""
State: TypeAlias = Any
"""A session's own value: what the encoder computed per image and the cache per row. Only the session that made it looks inside."""
Capability: TypeAlias = Literal["step", "score", "beams", "loop"]
"""Run token by token; return logits of given captions; reorder rows; run the whole greedy loop in one call."""

STEPWISE: frozenset[Capability] = frozenset({"step", "score", "beams"})
LOOP: frozenset[Capability] = frozenset({"loop"})


@dataclass(frozen=True, kw_only=True)
class EngineInfo:
    """What is really in use, as opposed to what was requested."""

    runtime: str
    versions: dict[str, str]
    device: str
    providers: tuple[str, ...]
    """Execution providers or quantized engine, first used first."""
    threads: int
    precision: str


class Session(Protocol):
    """An encoder and a decoder that the search calls token by token."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What the session can do."""
        ...

    def encode(self, inputs: Inputs) -> State:
        """Encode B inputs; the state holds what the decoder attends to, once per input, and B rows without tokens."""
        ...

    def step(self, token_ids: Int64, state: State, positions: Int64) -> tuple[Float32, State]:
        """Feed token_ids i64[R,T]; return logits f32[R,M,V] at positions i64[M] of the T new ones, and the next state. Consumes state."""
        ...

    def select(self, state: State, rows: Int64, images: Int64) -> State:
        """Keep decoder rows i64[R'] (beam parents, finished rows dropped) and images i64[B'], in this order. Consumes state."""
        ...

    def crop(self, state: State, length: int) -> State:
        """Keep the first `length` tokens of every row's cache. Consumes state."""
        ...

    def info(self) -> EngineInfo:
        """Return library versions, providers, threads and precision really in use."""
        ...


class LoopSession(Protocol):
    """A model that searches greedily by itself, in one run: there are no logits, so no beams and no scores."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """See `Session.capabilities`."""
        ...

    def caption(self, inputs: Inputs, prompt_ids: Int64, min_length: int, max_length: int) -> tuple[Int64, Float32]:
        """Caption B inputs from prompt_ids i64[T]; lengths as `runtimes.artifact.generation.GenerationConfig` counts them.

        Returns:
            Ids i64[B,L], prompt included, filled up behind the end token, L at most `max_length`; and f32[B], the natural-log probability
            of each image's generated tokens.
        """
        ...

    def info(self) -> EngineInfo:
        """See `Session.info`."""
        ...


def require(session: Session | LoopSession, *wanted: Capability) -> Session:
    """Return a session that has capabilities which only stepwise sessions have.

    Raises:
        RequestError: It lacks one.
    """
    if missing := sorted(set(wanted) - session.capabilities):
        raise RequestError(
            f"this artifact cannot do what was asked: it has no {', '.join(missing)} (it has: {', '.join(sorted(session.capabilities))}). "
            "An artifact that holds its whole loop in one graph captions greedily; use a split recipe for beams and scores."
        )
    return cast("Session", session)


class RecordingSession:
    """A stepwise session that runs each call inside a context and keeps the logits of the first step."""

    def __init__(self, session: Session, around: Callable[[str], AbstractContextManager[Any]] = lambda component: nullcontext()) -> None:
        """Wrap a session; `around` makes the context from "encoder" or "decoder"."""
        self._session, self._around = session, around
        self.first_logits: Float32 | None = None
        """f32[V] of the first row, after the first step."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """See `Session.capabilities`."""
        return self._session.capabilities

    def encode(self, inputs: Inputs) -> State:
        """See `Session.encode`."""
        with self._around("encoder"):
            return self._session.encode(inputs)

    def step(self, token_ids: Int64, state: State, positions: Int64) -> tuple[Float32, State]:
        """See `Session.step`."""
        with self._around("decoder"):
            logits, state = self._session.step(token_ids, state, positions)
        if self.first_logits is None:
            self.first_logits = logits[0, 0].copy()
        return logits, state

    def select(self, state: State, rows: Int64, images: Int64) -> State:
        """See `Session.select`."""
        return self._session.select(state, rows, images)

    def crop(self, state: State, length: int) -> State:
        """See `Session.crop`."""
        return self._session.crop(state, length)

    def info(self) -> EngineInfo:
        """See `Session.info`."""
        return self._session.info()


class DeviceMemoryError(MemoryError):
    """A session's device ran out of memory on this batch; a smaller one may fit."""
