"""The protocols between the shared search and an engine.

Axes: B images, K hypotheses per image, R = B*K decoder rows (the rows of an image are adjacent), T new tokens, M requested positions,
V vocabulary, S pixels per side.
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
"""Encoder output per image and KV cache per row. The type belongs to the session; other code passes it on unchanged."""
Capability: TypeAlias = Literal["step", "score", "beams", "loop", "ask", "match"]
"""step: run token by token. score: return logits of given texts. beams: reorder rows. loop: run the whole greedy loop in one call.
ask: start texts from questions about encoded images. match: compare images with texts, see `runtimes.decoding.match_session`."""

FIRST_POSITION: Int64 = np.array([0], dtype=np.int64)
"""Position of the new token in a step that feeds one token."""

STEPWISE: frozenset[Capability] = frozenset({"step", "score", "beams"})
LOOP: frozenset[Capability] = frozenset({"loop"})
ASKING: frozenset[Capability] = STEPWISE | {"ask"}
MATCH: frozenset[Capability] = frozenset({"match"})


@dataclass(frozen=True, kw_only=True)
class EngineInfo:
    """The engine and the settings in use, which may differ from the requested ones."""

    runtime: str
    versions: dict[str, str]
    device: str
    providers: tuple[str, ...]
    """Execution providers of ONNX Runtime, or the quantized engine of torch, in order of preference."""
    threads: int
    precision: str


class Session(Protocol):
    """An encoder, and a decoder that the search calls once per token."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """The abilities of the session, see `Capability`."""
        ...

    def encode(self, inputs: Inputs) -> State:
        """Encode B inputs; return a state with the encoder output of each input and B decoder rows without tokens."""
        ...

    def step(self, token_ids: Int64, state: State, positions: Int64) -> tuple[Float32, State]:
        """Feed T new tokens to every row. The given state must not be used afterwards.

        Args:
            token_ids: i64[R,T].
            state: From `encode`, `step`, `select` or `crop`.
            positions: i64[M], indices into the T new tokens.

        Returns:
            Logits f32[R,M,V] at these positions, and the next state.
        """
        ...

    def select(self, state: State, rows: Int64, images: Int64) -> State:
        """Return a state with decoder rows i64[R'] and images i64[B'] in this order; an index may repeat. Consumes the given state."""
        ...

    def crop(self, state: State, length: int) -> State:
        """Keep the first `length` tokens of every row's KV cache. Consumes the given state."""
        ...

    def info(self) -> EngineInfo:
        """Return the versions, providers, threads and precision in use."""
        ...


class QuestionSession(Session, Protocol):
    """A session with the capability "ask". Its `encode` returns encoded images, which `ask` turns into states of the decoder."""

    def ask(self, encoded: State, images: Int64, question_ids: Int64) -> State:
        """Encode R questions of one length, and return the state from which their answers are generated.

        Args:
            encoded: From `encode`. It stays valid, so that questions of other lengths share it.
            images: i64[R], the image of each question, in ascending order.
            question_ids: i64[R,T], with the special tokens of the encoder.

        Returns:
            The state of R rows without tokens. For this state, the argument `images` of `select` has indices of questions.
        """
        ...


class LoopSession(Protocol):
    """A model that runs the whole greedy search in one call. It returns no logits, so it has neither beams nor scores."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """See `Session.capabilities`."""
        ...

    def caption(self, inputs: Inputs, prompt_ids: Int64, min_length: int, max_length: int) -> tuple[Int64, Float32]:
        """Caption B inputs that share a prompt.

        Args:
            inputs: See `Inputs`.
            prompt_ids: i64[T].
            min_length: Shortest caption in tokens, see `runtimes.artifact.generation.GenerationConfig`.
            max_length: Longest caption in tokens.

        Returns:
            Ids i64[B,L], prompt included, padded after the end token, L at most `max_length`; and the natural-log probability f32[B] of
            each image's generated tokens.
        """
        ...

    def info(self) -> EngineInfo:
        """See `Session.info`."""
        ...


def begin(session: Session, inputs: Inputs) -> State:
    """Return the state of B rows without tokens.

    Args:
        session: Any session that runs token by token.
        inputs: {"pixels": f32[B,3,S,S]}; with the capability "ask" also {"question_ids": i64[B,T]}, one question about each image.
    """
    if "ask" not in session.capabilities:
        return session.encode(inputs)
    encoded = session.encode({"pixels": inputs["pixels"]})
    return cast("QuestionSession", session).ask(encoded, np.arange(len(inputs["pixels"])), inputs["question_ids"])


def require(session: Session | LoopSession, *capabilities: Capability) -> Session:
    """Return the session as a stepwise one, after a check of its capabilities.

    Raises:
        RequestError: A capability is missing.
    """
    if missing := sorted(set(capabilities) - session.capabilities):
        raise RequestError(
            f"this artifact lacks the capability {', '.join(missing)} (it has: {', '.join(sorted(session.capabilities))}). "
            "An artifact with the whole loop in one graph captions greedily; use a split recipe for beams and scores."
        )
    return cast("Session", session)


class RecordingSession:
    """A stepwise session that runs each call within a context manager and stores the logits of the first step."""

    def __init__(self, session: Session, around: Callable[[str], AbstractContextManager[Any]] = lambda component: nullcontext()) -> None:
        """Wrap a session; `around` returns the context manager for "encoder", "question" or "decoder"."""
        self._session, self._around = session, around
        self.first_logits: Float32 | None = None
        """f32[V] of the first row; None before the first step."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """See `Session.capabilities`."""
        return self._session.capabilities

    def encode(self, inputs: Inputs) -> State:
        """See `Session.encode`."""
        with self._around("encoder"):
            return self._session.encode(inputs)

    def ask(self, encoded: State, images: Int64, question_ids: Int64) -> State:
        """See `QuestionSession.ask`."""
        with self._around("question"):
            return cast("QuestionSession", self._session).ask(encoded, images, question_ids)

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
    """The device of a session ran out of memory on this batch; a smaller batch may fit."""
