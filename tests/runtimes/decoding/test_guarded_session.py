"""Failures inside a session become errors of the engine."""

import numpy as np
import pytest

from runtimes.artifact.generation import GenerationConfig
from runtimes.decoding.guarded_session import guarded
from runtimes.decoding.search import generate
from runtimes.errors import EngineError
from tests.runtimes.decoding.test_search import BOS, SPEC, ScriptedSession


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("num_beams", [1, 2])
def test_logits_that_are_not_finite(num_beams, value):
    session = ScriptedSession(lambda image, tokens: {4: 0.5, 5: value})
    with pytest.raises(EngineError, match=r"broken-artifact.*not finite"):
        generate(
            guarded(session, "broken-artifact"),
            session.start(1),
            np.array([[BOS]]),
            SPEC,
            GenerationConfig(num_beams=num_beams, max_length=6),
            lambda phase, seconds: None,
        )
