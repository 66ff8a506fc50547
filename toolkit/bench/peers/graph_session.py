"""Make captioners of prepared peers, which run BLIP's graphs in one of two layouts.

The layouts differ in the decoder's inputs besides `token_ids` and `past_*`:

    toolkit    cross K/V per image, shared by the rows of an image; `positions` of the logits to return
    recompute  `encoder_hidden_states` f32[R,N,D] per row, from which each step computes cross K/V; logits of all positions

Axes as in `runtimes.decoding.session`.
"""

from pathlib import Path

import numpy as np

from runtimes.decoding.session import EngineInfo, Float32, Int64
from runtimes.decoding.tokenizer import CaptionTokenizer
from runtimes.engines.engine import Engine
from runtimes.engines.step_session import StepSession, StepState
from runtimes.tasks.captioner import Captioner
from toolkit.bench.peers.folder import TOKENIZER_NAME, read_folder

HIDDEN = "encoder_hidden_states"


class RecomputeSession(StepSession):
    """A session for the recompute layout, whose encoder output belongs to a row, not to an image."""

    def step(self, token_ids: Int64, state: StepState, positions: Int64) -> tuple[Float32, StepState]:
        """See `Session.step`."""
        logits, state = self._decode({"token_ids": token_ids}, state)
        return np.ascontiguousarray(logits[:, positions]), state

    def select(self, state: StepState, rows: Int64, images: Int64) -> StepState:
        """See `Session.select`."""
        return super().select(state, rows, rows)


def open_graphs(path: Path, engine: Engine) -> tuple[Captioner, EngineInfo]:
    """Return the captioner of a prepared peer whose graphs are open in `engine`."""
    manifest = read_folder(path).manifest
    kind = RecomputeSession if HIDDEN in engine.signature("decoder").inputs else StepSession
    return Captioner(kind(engine), CaptionTokenizer((path / TOKENIZER_NAME).read_bytes(), manifest.tokenizer), manifest), engine.info()
