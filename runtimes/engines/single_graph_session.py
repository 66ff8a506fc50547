"""A `LoopSession` of contract `single/1` for any engine: one graph computes the whole greedy search."""

import numpy as np

from runtimes.decoding.session import LOOP, Capability, EngineInfo, Float32, Inputs, Int64
from runtimes.engines.encode import one_by_one
from runtimes.engines.engine import Engine


class SingleGraphSession:
    """Runs the graph "captioner", which contains encoder, decoder and greedy search, on an engine."""

    capabilities: frozenset[Capability] = LOOP

    def __init__(self, engine: Engine, *, pad_id: int, image_per_run: bool = False) -> None:
        """Wrap an engine.

        Args:
            engine: An engine with the graph "captioner".
            pad_id: Token id that pads rows after their end.
            image_per_run: See `encode`.
        """
        self._engine, self._pad_id, self._image_per_run = engine, pad_id, image_per_run

    def caption(self, inputs: Inputs, prompt_ids: Int64, min_length: int, max_length: int) -> tuple[Int64, Float32]:
        """See `LoopSession.caption`."""
        images = len(next(iter(inputs.values())))
        if not self._image_per_run or images == 1:
            return self._run(inputs, prompt_ids, min_length, max_length)
        runs = [self._run(single, prompt_ids, min_length, max_length) for single in one_by_one(inputs, images)]
        ids = np.full((images, max(rows.shape[1] for rows, _ in runs)), self._pad_id, np.int64)
        for image, (rows, _) in enumerate(runs):
            ids[image, : rows.shape[1]] = rows[0]
        return ids, np.concatenate([scores for _, scores in runs])

    def info(self) -> EngineInfo:
        """See `Session.info`."""
        return self._engine.info()

    def _run(self, inputs: Inputs, prompt_ids: Int64, min_length: int, max_length: int) -> tuple[Int64, Float32]:
        arrays = {**inputs, "prompt_ids": prompt_ids, "min_length": np.array(min_length), "max_length": np.array(max_length)}
        feeds = {name: self._engine.to_engine(array) for name, array in arrays.items()}
        outputs = self._engine.run("captioner", self._engine.bind("captioner", {}), feeds, ["token_ids", "log_probabilities"])
        return self._engine.to_numpy(outputs["token_ids"]), self._engine.to_numpy(outputs["log_probabilities"])
