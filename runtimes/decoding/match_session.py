"""The protocol between a `Matcher` and an engine.

Axes: B images, R texts (K per image, K*B; the texts of an image are adjacent), T tokens, E width of an embedding.
"""

from typing import Protocol

from runtimes.decoding.session import Capability, EngineInfo, Float32, Inputs, Int64, State


class MatchSession(Protocol):
    """An encoder of images, and an encoder of texts of equal length, with or without images."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """See `runtimes.decoding.session.Session.capabilities`."""
        ...

    def encode(self, inputs: Inputs) -> tuple[State, Float32]:
        """Encode B inputs; return a state for `match`, and normalized embeddings f32[B,E]."""
        ...

    def embed_texts(self, token_ids: Int64) -> Float32:
        """Return normalized embeddings f32[R,E] of texts i64[R,T]."""
        ...

    def match(self, token_ids: Int64, state: State) -> Float32:
        """Return the probability f32[R] that each of the texts i64[R,T] describes its image of `state`."""
        ...

    def info(self) -> EngineInfo:
        """See `runtimes.decoding.session.Session.info`."""
        ...
