"""ONNX Runtime session of contract `single/1`: the whole loop is one graph, so a batch is one run."""

import numpy as np

from runtimes.artifact.verified_files import Payload
from runtimes.decoding.session import Description, Float32, Int64
from runtimes.engines.ort.open_graph import describe, device_memory, open_graph


class OrtLoop:
    """BLIP's encoder, decoder and greedy search as one graph on an execution provider."""

    def __init__(self, payload: Payload, *, device: str, threads: int) -> None:
        self._device, self._threads, self._precision = device, threads, payload.artifact.manifest.target.precision
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
