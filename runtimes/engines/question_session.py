"""A `QuestionSession` of contract `question/1` for any engine: an encoder graph, a question graph, and a decoder graph with a KV cache.

The encoder runs once per image and the question graph once per question. Axes as in `runtimes.engines.step_session`; Q questions.
"""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from runtimes.decoding.session import ASKING, Capability, Inputs, Int64
from runtimes.engines.encode import copy_rows
from runtimes.engines.engine import Engine, Value
from runtimes.engines.question_rows import question_runs
from runtimes.engines.step_session import StepSession, StepState, keeps_all


@dataclass(frozen=True)
class EncodedImages:
    """Outputs of the encoder, inputs of the question graph: f[B,H,N,Dh] by name."""

    images: int
    values: dict[str, Value]


class EngineQuestionSession(StepSession):
    """Runs the graphs "encoder", "question" and "decoder" on an engine."""

    capabilities: frozenset[Capability] = ASKING

    def __init__(self, engine: Engine, *, image_per_run: bool = False, question_per_run: bool = False) -> None:
        """Wrap an engine.

        Args:
            engine: An engine with the three graphs.
            image_per_run: See `StepSession`.
            question_per_run: The same for questions: one per run.
        """
        super().__init__(engine, image_per_run=image_per_run)
        self._question_per_run = question_per_run
        self._cross = list(engine.signature("question").outputs)

    def encode(self, inputs: Inputs) -> EncodedImages:  # type: ignore[override]  # both types are `State` to callers
        """See `QuestionSession.ask`: encoded images have no rows of the decoder yet."""
        images, encoded = self._run_encoder(inputs)
        return EncodedImages(images, encoded)

    def ask(self, encoded: EncodedImages, images: Int64, question_ids: Int64) -> StepState:
        """See `QuestionSession.ask`."""
        runs = list(question_runs(images, one_by_one=self._question_per_run))
        if len(runs) == 1:
            return self._start(len(images), self._ask(encoded, runs[0][0], question_ids))
        stacked: dict[str, NDArray[Any]] = {}
        for chosen, questions in runs:
            copy_rows(self._engine, self._ask(encoded, chosen, question_ids[questions]), stacked, questions, len(images))
        return self._start(len(images), {name: self._engine.to_engine(array) for name, array in stacked.items()})

    def _ask(self, encoded: EncodedImages, images: Int64, question_ids: Int64) -> dict[str, Value]:
        """Run the question graph on i64[R,T]; the questions of each image are adjacent, and each image has as many."""
        values = encoded.values
        if not keeps_all(images, encoded.images):
            values = {name: self._engine.take(value, images) for name, value in values.items()}
        feeds = {"question_ids": self._engine.to_engine(question_ids), **values}
        return self._engine.run("question", self._engine.bind("question", {}), feeds, self._cross)
