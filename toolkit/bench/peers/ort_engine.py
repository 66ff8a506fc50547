"""Open graphs of the recompute layout on ONNX Runtime, with the engine class of the artifacts."""

from pathlib import Path

import onnxruntime

from runtimes.decoding.session import EngineInfo
from runtimes.engines.ort.open_graph import ERRORS
from runtimes.engines.ort.ort_engine import OrtEngine
from runtimes.tasks.captioner import Captioner
from toolkit.bench.peers.graph_session import open_graphs


def open_peer(path: Path, threads: int) -> tuple[Captioner, EngineInfo]:
    """Open the `encoder.onnx` and `decoder.onnx` of a prepared folder on the CPU, with ONNX Runtime's default settings."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = ERRORS
    sessions = {
        role: onnxruntime.InferenceSession(path / f"{role}.onnx", options, providers=["CPUExecutionProvider"])
        for role in ("encoder", "decoder")
    }
    return open_graphs(path, OrtEngine(sessions, device="cpu", memory="cpu", threads=threads, precision="fp32"))
