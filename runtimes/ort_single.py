"""ONNX Runtime session of contract `single/1`: the whole loop is one graph, so a batch is one run. See `runtimes.session.WholeLoop`."""

import numpy as np

from runtimes.memory import returning_freed_memory
from runtimes.ort_graph import describe, device_memory, open_graph
from runtimes.payload import Payload
from runtimes.session import Description, Float32, Int64


class OrtLoop:
    """BLIP's encoder, decoder and greedy search as one graph on an execution provider."""

    def __init__(self, payload: Payload, *, device: str, threads: int) -> None:
        self._device, self._threads, self._precision = device, threads, payload.artifact.manifest.target.precision
        with returning_freed_memory():
            self._session = open_graph(payload, "captioner", device, threads)

    @classmethod
    def open(cls, payload: Payload, device: str, threads: int) -> "OrtLoop":
        """Open an artifact's graph."""
        return cls(payload, device=device, threads=threads)

    def caption(self, pixels: Float32, prompt_ids: Int64, min_length: int, max_length: int) -> tuple[Int64, Float32]:
        """See `WholeLoop.caption`."""
        lengths = {"min_length": np.array(min_length), "max_length": np.array(max_length)}
        with device_memory():
            ids, scores = self._session.run(["token_ids", "log_probabilities"], {"pixels": pixels, "prompt_ids": prompt_ids, **lengths})
        return ids, scores

    def describe(self) -> Description:
        """See `Session.describe`."""
        return describe(self._session, self._precision, self._device, self._threads)
