"""Open one ONNX graph of an artifact with ONNX Runtime on an execution provider."""

import logging
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import onnxruntime

from runtimes.artifact.verified_files import VerifiedFiles
from runtimes.engines.ort.graph_check import check_graph
from runtimes.engines.ort.providers import PROVIDERS, Options, Provider, cache_folder, chain
from runtimes.errors import ArtifactCorruptError, ToolkitError, UnavailableError, translate_errors

logger = logging.getLogger(__name__)

ERRORS = 3
"""Log level of onnxruntime. Its warnings are about its own graph optimizations."""
FLOOR = (1, 27)
"""Older versions have known vulnerabilities: a damaged INT8 graph reads beyond a bias (onnxruntime#28499), and before 1.24.3 external data
allows path traversal. `pyproject.toml` requires this version, but distributions for some execution providers are older."""


@dataclass(frozen=True, kw_only=True)
class OrtSettings:
    """Settings of a session."""

    device: str
    """A key of `PROVIDERS`."""
    threads: int
    """CPU threads within an operator."""
    options: Options = field(default_factory=dict)
    """Options of the device's provider, which replace defaults."""
    profiles: Path | None = None
    """Folder where onnxruntime writes the time of every operator at the end of a session. Profiling slows every run."""


def open_graph(files: VerifiedFiles, role: str, settings: OrtSettings) -> Any:  # noqa: ANN401 - onnxruntime is untyped
    """Open an InferenceSession of a graph. Its weights are memory-mapped from their file after the file was verified.

    Args:
        files: Files of the artifact.
        role: Role of the graph.
        settings: Device, threads and options.

    Raises:
        UnavailableError: onnxruntime lacks the provider, or the provider cannot load the graph or runs none of its nodes.
        GraphRefusedError: The graph does not match its manifest, or contains something that the exporters do not write.
        ArtifactCorruptError: onnxruntime cannot load the graph.
    """
    device, manifest = settings.device, files.artifact.manifest
    _check_available(PROVIDERS[device])
    _warn_below_floor(onnxruntime.__version__)
    graph, path, weights = files.read(role), files.artifact.path_of(role), files.path_for_mmap(f"{role}-weights")
    check_graph(path, graph, role, manifest, {weights.name: manifest.files[weights.name].bytes})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.log_severity_level = ERRORS
    options.enable_mem_pattern = False  # it allocates a second block for a run's activations beside the arena: 21 MB with BLIP-base
    # Encoder and decoder session have their own threads. Threads that spin after a run would slow the other session.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    folder = path.parent.resolve()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    if settings.profiles is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(settings.profiles / path.stem)
    if device != "cpu":
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    providers = chain(device, settings.options, threads=settings.threads, precision=manifest.target.precision)
    if "{cache}" in PROVIDERS[device].options.values() and str(cache_folder(device)) in providers[0][1].values():
        cache_folder(device).mkdir(mode=0o700, parents=True, exist_ok=True)

    def failed(problem: str) -> ToolkitError:
        if device == "cpu":
            return ArtifactCorruptError(path, f"onnxruntime {onnxruntime.__version__} cannot load it: {problem}")
        return UnavailableError(f"{PROVIDERS[device].name} cannot load {path.name}: {problem}. It needs {PROVIDERS[device].needs}.")

    with translate_errors(failed):
        if not weights.resolve().is_relative_to(folder):  # onnxruntime follows no link out of the folder; this copies
            in_memory = files.mapped(f"{role}-weights")
            options.add_external_initializers_from_files_in_memory([weights.name], [in_memory], [len(in_memory)])
        # The fallback would retry with other providers and print. Here a failure must raise.
        session = onnxruntime.InferenceSession(graph, options, providers=providers, enable_fallback=0)
    if device != "cpu":
        _check_used(session, PROVIDERS[device], path)
    return session


def _check_available(provider: Provider) -> None:
    """Raise UnavailableError if this build of onnxruntime lacks the provider."""
    available = onnxruntime.get_available_providers()
    if provider.name not in available:
        raise UnavailableError(
            f"onnxruntime has no {provider.name} here; it has: {', '.join(available)}. "
            f"Install {provider.distribution} in place of the onnxruntime package that is installed; it needs {provider.needs}."
        )


def _check_used(session: Any, provider: Provider, path: Path) -> None:  # noqa: ANN401
    """Raise UnavailableError if the provider runs no node.

    onnxruntime silently uses the CPU if a provider cannot start or supports no node.
    """
    if session.get_providers()[0] != provider.name:
        raise UnavailableError(
            f"onnxruntime could not start {provider.name}; it fell back to {session.get_providers()[0]}. It needs {provider.needs}."
        )
    used = {part.ep_name: len(part.get_nodes()) for part in session.get_provider_graph_assignment_info()}
    if provider.name not in used:
        raise UnavailableError(f"{provider.name} runs no node of {path.name}; they would all run on {', '.join(sorted(used))}")


@cache
def _warn_below_floor(version: str) -> None:
    """Log a warning, once per process, if the version is below `FLOOR`."""
    if tuple(int(part) for part in version.split(".")[:2]) < FLOOR:
        logger.warning(
            "onnxruntime %s is below %s, the lowest version without known vulnerabilities: open only artifacts whose sender you trust",
            version,
            ".".join(map(str, FLOOR)),
        )
