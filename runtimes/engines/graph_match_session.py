"""A `MatchSession` of contract `matching/1` for any engine: a graph that encodes images, and one that encodes texts.

Axes as in `runtimes.decoding.match_session`, and H heads, N vision tokens, Dh width of a head.
"""

from typing import TypeAlias

import numpy as np

from runtimes.decoding.session import MATCH, Capability, EngineInfo, Float32, Inputs, Int64
from runtimes.engines.encode import encode
from runtimes.engines.engine import Bound, Engine

MatchState: TypeAlias = Bound
"""Cross-attention key and value f[B,H,N,Dh] per layer of the text encoder, bound to the graph "text"."""


class GraphMatchSession:
    """Runs the graphs "encoder" and "text" on an engine."""

    capabilities: frozenset[Capability] = MATCH

    def __init__(self, engine: Engine, *, image_per_run: bool = False) -> None:
        """Wrap an engine.

        Args:
            engine: An engine with the graphs "encoder" and "text".
            image_per_run: See `encode`.
        """
        self._engine, self._image_per_run = engine, image_per_run
        self._outputs = list(engine.signature("encoder").outputs)
        cross = {name: spec for name, spec in engine.signature("text").inputs.items() if name.startswith("cross_")}
        first = next(iter(cross.values()))
        no_image = engine.to_engine(np.zeros((1, first.shape[1] or 0, 1, first.shape[3] or 0), first.dtype))
        self._no_image: MatchState = engine.bind("text", dict.fromkeys(cross, no_image))

    def encode(self, inputs: Inputs) -> tuple[MatchState, Float32]:
        """See `MatchSession.encode`."""
        cross = encode(self._engine, inputs, self._outputs, image_per_run=self._image_per_run)
        embeddings = cross.pop("image_embeddings")
        # A copy: the array of a value from `Engine.to_engine` may share its memory.
        return self._engine.bind("text", cross), np.array(self._engine.to_numpy(embeddings))

    def embed_texts(self, token_ids: Int64) -> Float32:
        """See `MatchSession.embed_texts`."""
        return self._run(token_ids, self._no_image, 0, "text_embeddings")

    def match(self, token_ids: Int64, state: MatchState) -> Float32:
        """See `MatchSession.match`."""
        return self._run(token_ids, state, 1, "probabilities")

    def info(self) -> EngineInfo:
        """See `Session.info`."""
        return self._engine.info()

    def _run(self, token_ids: Int64, cross: MatchState, with_image: int, output: str) -> Float32:
        feeds = {"token_ids": self._engine.to_engine(token_ids), "with_image": self._engine.to_engine(np.array(with_image))}
        return self._engine.to_numpy(self._engine.run("text", cross, feeds, [output])[output])
