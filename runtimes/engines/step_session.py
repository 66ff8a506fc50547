"""A `Session` of contract `split/1` for any engine: an encoder graph, and a decoder graph with a KV cache.

Outputs stay tensors of the engine between runs, so keys and values of cross-attention are not copied to Python.
Axes as in `runtimes.decoding.session`, and H heads, P past tokens, N vision tokens, Dh width of a head.
"""

from dataclasses import dataclass, replace

import numpy as np

from runtimes.decoding.session import STEPWISE, Capability, EngineInfo, Float32, Inputs, Int64
from runtimes.engines.encode import encode
from runtimes.engines.engine import Bound, Engine, Value


@dataclass(frozen=True)
class StepState:
    """State of the search: outputs of the encoder and the KV cache."""

    images: int
    rows: int
    encoded: dict[str, Value]
    """Decoder input → output of the encoder per image, f[B,H,N,Dh]."""
    bound: Bound
    """`encoded`, bound to the decoder graph."""
    past: dict[str, Value]
    """Decoder input → cache per row, f[R,H,P,Dh]."""


class StepSession:
    """Runs the graphs "encoder" and "decoder" on an engine."""

    capabilities: frozenset[Capability] = STEPWISE

    def __init__(self, engine: Engine, *, image_per_run: bool = False) -> None:
        """Wrap an engine.

        Args:
            engine: An engine with the graphs "encoder" and "decoder".
            image_per_run: See `encode`.
        """
        self._engine, self._image_per_run = engine, image_per_run
        self._encoded = list(engine.signature("encoder").outputs)
        inputs = engine.signature("decoder").inputs
        self._present = {name: name.replace("past_", "present_", 1) for name in inputs if name.startswith("past_")}
        first = inputs[next(iter(self._present))]
        self._cache_type, self._cache_shape = first.dtype, (first.shape[1] or 0, 0, first.shape[3] or 0)

    def encode(self, inputs: Inputs) -> StepState:
        """See `Session.encode`."""
        return self._start(*self._run_encoder(inputs))

    def step(self, token_ids: Int64, state: StepState, positions: Int64) -> tuple[Float32, StepState]:
        """See `Session.step`."""
        return self._decode({"token_ids": token_ids, "positions": positions}, state)

    def select(self, state: StepState, rows: Int64, images: Int64) -> StepState:
        """See `Session.select`."""
        if not keeps_all(rows, state.rows):
            past = {name: self._engine.take(value, rows) for name, value in state.past.items()}
            state = replace(state, rows=len(rows), past=past)
        if not keeps_all(images, state.images):
            encoded = {name: self._engine.take(value, images) for name, value in state.encoded.items()}
            state = replace(state, images=len(images), encoded=encoded, bound=self._engine.bind("decoder", encoded))
        return state

    def crop(self, state: StepState, length: int) -> StepState:
        """See `Session.crop`."""
        return replace(state, past={name: self._engine.crop(value, length) for name, value in state.past.items()})

    def info(self) -> EngineInfo:
        """See `Session.info`."""
        return self._engine.info()

    def _run_encoder(self, inputs: Inputs) -> tuple[int, dict[str, Value]]:
        """Return the number of images and the outputs of the encoder."""
        return len(next(iter(inputs.values()))), encode(self._engine, inputs, self._encoded, image_per_run=self._image_per_run)

    def _start(self, sources: int, cross: dict[str, Value]) -> StepState:
        """Return the state of one row without tokens for each source of cross-attention."""
        empty = self._engine.to_engine(np.zeros((sources, *self._cache_shape), self._cache_type))
        return StepState(sources, sources, cross, self._engine.bind("decoder", cross), dict.fromkeys(self._present, empty))

    def _decode(self, inputs: Inputs, state: StepState) -> tuple[Float32, StepState]:
        feeds = {**{name: self._engine.to_engine(array) for name, array in inputs.items()}, **state.past}
        outputs = self._engine.run("decoder", state.bound, feeds, ["logits", *self._present.values()])
        past = {name: outputs[present] for name, present in self._present.items()}
        return self._engine.to_numpy(outputs["logits"]), replace(state, past=past)


def keeps_all(indices: Int64, count: int) -> bool:
    """Return whether `indices` i64[n] are 0, 1, ... `count` - 1."""
    return np.array_equal(indices, np.arange(count))
