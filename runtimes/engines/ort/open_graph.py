"""One ONNX graph of an artifact, opened with ONNX Runtime: a payload and a role go in, a session comes out, or an error of ours."""

from pathlib import Path
from typing import Any

import onnxruntime

from runtimes.artifact.verified_files import Payload
from runtimes.engines.ort.graph_check import check_graph
from runtimes.errors import ArtifactCorruptError, UnavailableError, translate_errors

PROVIDERS = {"cpu": ("CPUExecutionProvider",), "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider")}
ERRORS = 3
"""onnxruntime's log level: its warnings speak of its own graph rewriting."""


def open_graph(payload: Payload, role: str, device: str, threads: int, profiles: Path | None = None) -> Any:  # noqa: ANN401 - untyped
    """Make a session of a graph's own bytes; its weights are mapped from the one file beside it, which is checked before.

    Args:
        payload: Of the artifact.
        role: Of the graph.
        device: A key of `PROVIDERS`.
        threads: CPU threads.
        profiles: Folder where onnxruntime writes what every operator takes, when the session ends; it slows every run.

    Raises:
        UnavailableError: onnxruntime cannot use the device here.
        ArtifactCorruptError, GraphRefusedError: The graph cannot be loaded, or is none of ours.
    """
    if PROVIDERS[device][0] not in onnxruntime.get_available_providers():
        raise UnavailableError(
            f"onnxruntime has no {PROVIDERS[device][0]} here; available: {', '.join(onnxruntime.get_available_providers())}. "
            "For CUDA: pip install 'blip-toolkit[ort-gpu]' in place of [ort]."
        )
    graph, path, weights = payload.read(role), payload.artifact.path_of(role), payload.mappable(f"{role}-weights")
    check_graph(path, graph, role, payload.artifact.manifest, {weights.name: payload.artifact.manifest.files[weights.name].bytes})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = ERRORS
    options.enable_mem_pattern = False  # it plans one block for a run's activations and keeps it beside the arena: 21 MB on BLIP-base
    # Two sessions have threads of their own: those that spin after a run take a core from the other (README on speed).
    options.add_session_config_entry("session.force_spinning_stop", "1")
    folder = path.parent.resolve()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    if profiles is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profiles / path.stem)
    with translate_errors(lambda problem: ArtifactCorruptError(path, f"onnxruntime {onnxruntime.__version__} cannot load it: {problem}")):
        if not weights.resolve().is_relative_to(folder):  # onnxruntime follows no link out of the folder; from memory it copies
            in_memory = payload.mapped(f"{role}-weights")
            options.add_external_initializers_from_files_in_memory([weights.name], [in_memory], [len(in_memory)])
        # Its fallback would retry on other providers and print; we choose the provider and report errors ourselves.
        session = onnxruntime.InferenceSession(graph, options, providers=list(PROVIDERS[device]), enable_fallback=0)
    if session.get_providers()[0] != PROVIDERS[device][0]:
        raise UnavailableError(f"onnxruntime could not start {PROVIDERS[device][0]}; it fell back to {session.get_providers()[0]}")
    return session
