"""A `Session` of contract `split/1` over any engine: an encoder graph, and a decoder graph that has a cache.

Tensors stay the engine's between runs, so cross-attention K/V is neither copied nor seen by Python.
Axes as in `runtimes.decoding.session`; H heads, P past tokens, N vision tokens, Dh width of a head.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtimes.decoding.session import STEPWISE, Capability, EngineInfo, Float32, Inputs, Int64
from runtimes.engines.engine import Bound, Engine, Value


@dataclass(frozen=True)
class StepState:
    """What the encoder gave per image, bound to the decoder once, and the cache per row [R,H,P,Dh]; both by name of a decoder input."""

    images: int
    rows: int
    encoded: dict[str, Value]
    bound: Bound
    past: dict[str, Value]


class StepSession:
    """An encoder and a decoder on an engine."""

    capabilities: frozenset[Capability] = STEPWISE

    def __init__(self, engine: Engine, *, image_per_run: bool = False) -> None:
        """Look the graphs' names up.

        Args:
            engine: Has the graphs "encoder" and "decoder".
            image_per_run: Encode one image per run, because the encoder computes activation scales over everything in a run: an image's
                caption must not depend on the images beside it.
        """
        self._engine, self._image_per_run = engine, image_per_run
        self._encoded = list(engine.signature("encoder").outputs)
        inputs = engine.signature("decoder").inputs
        self._present = {name: name.replace("past_", "present_", 1) for name in inputs if name.startswith("past_")}
        first = inputs[next(iter(self._present))]
        self._cache_type, self._cache_shape = first.dtype, (first.shape[1] or 0, 0, first.shape[3] or 0)

    def encode(self, inputs: Inputs) -> StepState:
        """See `Session.encode`."""
        images = len(next(iter(inputs.values())))
        encoded = self._encode_each(inputs, images) if self._image_per_run and images > 1 else self._encode_all(inputs)
        empty = self._engine.to_engine(np.zeros((images, *self._cache_shape), self._cache_type))
        return StepState(images, images, encoded, self._engine.bind("decoder", encoded), dict.fromkeys(self._present, empty))

    def step(self, token_ids: Int64, state: StepState, positions: Int64) -> tuple[Float32, StepState]:
        """See `Session.step`."""
        return self._decode({"token_ids": token_ids, "positions": positions}, state)

    def select(self, state: StepState, rows: Int64, images: Int64) -> StepState:
        """See `Session.select`."""
        if not _keeps_all(rows, state.rows):
            past = {name: self._engine.take(value, rows) for name, value in state.past.items()}
            state = replace(state, rows=len(rows), past=past)
        if not _keeps_all(images, state.images):
            encoded = {name: self._engine.take(value, images) for name, value in state.encoded.items()}
            state = replace(state, images=len(images), encoded=encoded, bound=self._engine.bind("decoder", encoded))
        return state

    def crop(self, state: StepState, length: int) -> StepState:
        """See `Session.crop`."""
        return replace(state, past={name: self._engine.crop(value, length) for name, value in state.past.items()})

    def info(self) -> EngineInfo:
        """See `Session.info`."""
        return self._engine.info()

    def _decode(self, inputs: Inputs, state: StepState) -> tuple[Float32, StepState]:
        feeds = {**{name: self._engine.to_engine(array) for name, array in inputs.items()}, **state.past}
        outputs = self._engine.run("decoder", state.bound, feeds, ["logits", *self._present.values()])
        past = {name: outputs[present] for name, present in self._present.items()}
        return self._engine.to_numpy(outputs["logits"]), replace(state, past=past)

    def _encode_all(self, inputs: Inputs) -> dict[str, Value]:
        feeds = {name: self._engine.to_engine(array) for name, array in inputs.items()}
        return self._engine.run("encoder", self._engine.bind("encoder", {}), feeds, self._encoded)

    def _encode_each(self, inputs: Inputs, images: int) -> dict[str, Value]:
        """Encode image by image into arrays for all of them; no more than one image's outputs exist twice."""
        stacked: dict[str, NDArray[Any]] = {}
        for image, single in enumerate(one_by_one(inputs, images)):
            for name, value in self._encode_all(single).items():
                array = self._engine.to_numpy(value)
                if not image:
                    stacked[name] = np.empty((images, *array.shape[1:]), array.dtype)
                stacked[name][image] = array[0]
        return {name: self._engine.to_engine(array) for name, array in stacked.items()}


def one_by_one(inputs: Inputs, images: int) -> Iterator[Inputs]:
    """Yield the inputs of each image, with a first axis of 1."""
    for image in range(images):
        yield {name: array[image : image + 1] for name, array in inputs.items()}


def _keeps_all(indices: Int64, count: int) -> bool:
    """Whether i64[n] names every one of `count` entries in order."""
    return np.array_equal(indices, np.arange(count))
