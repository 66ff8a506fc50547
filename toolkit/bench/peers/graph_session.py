"""A `Session` over any engine and either layout of BLIP's graphs; what differs between engines is in `Engine`.

Layouts, told apart by what the encoder gives and what the decoder takes besides `token_ids` and `past_*`:

    ours       cross K/V per picture, shared by the rows of a picture; `positions` of wanted logits
    recompute  `encoder_hidden_states` f32[R,N,D] per row, from which each step makes cross K/V; logits of all positions

Axes as in `runtimes.decoding.session`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from runtimes.captioner import Captioner
from runtimes.decoding.session import Description, Float32, Int64
from runtimes.decoding.tokenizer import Tokens
from runtimes.families.blip import BlipSpec
from toolkit.bench.peers.folder import TOKENIZER_NAME, read_folder

HIDDEN = "encoder_hidden_states"


class Engine(Protocol):
    """What runs an encoder and a decoder graph. Values are the engine's own tensors."""

    def inputs(self, role: str) -> list[str]:
        """Names of a graph's inputs."""
        ...

    def outputs(self, role: str) -> list[str]:
        """Names of a graph's outputs."""
        ...

    def run(self, role: str, feeds: dict[str, Any]) -> dict[str, Any]:
        """Run a graph; its outputs stay valid until the same graph has run twice more."""
        ...

    def value(self, array: Any) -> Any:  # noqa: ANN401
        """Array → the engine's tensor."""
        ...

    def array(self, value: Any) -> Any:  # noqa: ANN401
        """The engine's tensor → array of its own memory."""
        ...

    def describe(self) -> Description:
        """See `Session.describe`."""
        ...


@dataclass
class GraphState:
    """What the encoder gave, and the cache per row: name of the decoder's input → the engine's tensor."""

    image: dict[str, Any]
    past: dict[str, Any]


class GraphSession:
    """BLIP's two graphs on an engine."""

    def __init__(self, engine: Engine, heads: int, head_width: int) -> None:
        self._engine = engine
        self._empty_shape = (heads, 0, head_width)
        names = engine.inputs("decoder")
        self._past = [name for name in names if name.startswith("past_")]
        self._positions = "positions" in names
        self._per_row = HIDDEN in names

    def encode(self, pixels: Float32) -> GraphState:
        """See `Session.encode`."""
        image = self._engine.run("encoder", {"pixels": self._engine.value(pixels)})
        empty = self._engine.value(np.zeros((len(pixels), *self._empty_shape), dtype=np.float32))
        return GraphState(image, dict.fromkeys(self._past, empty))

    def step(self, token_ids: Int64, state: GraphState, positions: Int64) -> tuple[Float32, GraphState]:
        """See `Session.step`."""
        feeds = {"token_ids": self._engine.value(token_ids), **state.image, **state.past}
        if self._positions:
            feeds["positions"] = self._engine.value(positions)
        outputs = self._engine.run("decoder", feeds)
        logits = self._engine.array(outputs["logits"])
        if not self._positions:
            logits = np.ascontiguousarray(logits[:, positions])
        return logits, GraphState(state.image, {name: outputs[name.replace("past_", "present_", 1)] for name in self._past})

    def select(self, state: GraphState, rows: Int64, images: Int64) -> GraphState:
        """See `Session.select`."""
        wanted = np.repeat(images, len(rows) // len(images)) if self._per_row else images
        return GraphState(self._take(state.image, wanted), self._take(state.past, rows))

    def describe(self) -> Description:
        """See `Session.describe`."""
        return self._engine.describe()

    def _take(self, values: dict[str, Any], indices: Int64) -> dict[str, Any]:
        arrays = {name: self._engine.array(value) for name, value in values.items()}
        return {name: self._engine.value(np.ascontiguousarray(array[indices])) for name, array in arrays.items()}


def open_graphs(path: Path, engine: Engine) -> tuple[Captioner, Description]:
    """Return the captioner of a prepared peer whose graphs an engine has opened."""
    manifest = read_folder(path).manifest
    shape = manifest.model
    assert isinstance(shape, BlipSpec)
    session = GraphSession(engine, shape.text_heads, shape.head_width)
    return Captioner(session, Tokens((path / TOKENIZER_NAME).read_bytes(), manifest.tokenizer), manifest), engine.describe()
