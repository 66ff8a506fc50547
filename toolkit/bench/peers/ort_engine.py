"""ONNX Runtime as an engine for the recompute layout; values stay in the runtime's memory from step to step, as in our own session."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from runtimes.captioner import Captioner
from runtimes.decoding.session import Description
from toolkit.bench.peers.graph_session import open_graphs

ERRORS = 3
"""onnxruntime's log level."""


def open_peer(path: Path, threads: int) -> tuple[Captioner, Description]:
    """Open a prepared folder with `encoder.onnx` and `decoder.onnx`."""
    return open_graphs(path, OrtEngine(path, threads))


class OrtEngine:
    """Two sessions on the CPU; see `Engine`."""

    def __init__(self, path: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = ERRORS
        self._threads = threads
        self._sessions = {
            role: onnxruntime.InferenceSession(path / f"{role}.onnx", options, providers=["CPUExecutionProvider"])
            for role in ("encoder", "decoder")
        }

    def inputs(self, role: str) -> list[str]:
        """See `Engine.inputs`."""
        return [value.name for value in self._sessions[role].get_inputs()]

    def outputs(self, role: str) -> list[str]:
        """See `Engine.outputs`."""
        return [value.name for value in self._sessions[role].get_outputs()]

    def run(self, role: str, feeds: dict[str, Any]) -> dict[str, Any]:
        """See `Engine.run`."""
        binding = self._sessions[role].io_binding()
        for name, value in feeds.items():
            binding.bind_ortvalue_input(name, value)
        names = self.outputs(role)
        for name in names:
            binding.bind_output(name, "cpu")
        self._sessions[role].run_with_iobinding(binding)
        return dict(zip(names, binding.get_outputs(), strict=True))

    def value(self, array: Any) -> Any:  # noqa: ANN401
        """See `Engine.value`."""
        return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))

    def array(self, value: Any) -> Any:  # noqa: ANN401
        """See `Engine.array`."""
        return value.numpy()

    def describe(self) -> Description:
        """See `Engine.describe`."""
        return Description(
            runtime="ort",
            versions={"onnxruntime": onnxruntime.__version__, "numpy": np.__version__},
            device="cpu",
            providers=("CPUExecutionProvider",),
            threads=self._threads,
            precision="fp32",
        )
