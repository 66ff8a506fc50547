"""Open one ONNX graph of an artifact with ONNX Runtime on an execution provider."""

import logging
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import onnxruntime

from runtimes.artifact.verified_files import Payload
from runtimes.engines.ort.graph_check import check_graph
from runtimes.engines.ort.providers import PROVIDERS, Options, Provider, cache_folder, chain
from runtimes.errors import ArtifactCorruptError, ToolkitError, UnavailableError, translate_errors

logger = logging.getLogger(__name__)

ERRORS = 3
"""onnxruntime's log level: its warnings speak of its own graph rewriting."""
FLOOR = (1, 27)
"""Versions below have known holes: a damaged INT8 graph reads beyond a bias (onnxruntime#28499), and before 1.24.3 models escape their
folder. `pyproject.toml` requires it; packages of single providers may be older."""


@dataclass(frozen=True, kw_only=True)
class OrtSettings:
    """How sessions are opened."""

    device: str
    """A key of `PROVIDERS`."""
    threads: int
    options: Options = field(default_factory=dict)
    """Of the device's provider."""
    profiles: Path | None = None
    """Folder where onnxruntime writes what every operator takes, when a session ends; it slows every run."""


def open_graph(payload: Payload, role: str, settings: OrtSettings) -> Any:  # noqa: ANN401 - onnxruntime is untyped
    """Make a session of a graph's own bytes; its weights are mapped from the one file beside it, which is checked before.

    Raises:
        UnavailableError: onnxruntime lacks the provider, or the provider cannot load the graph or runs none of its nodes.
        ArtifactCorruptError, GraphRefusedError: The graph cannot be loaded, or is none of ours.
    """
    device, manifest = settings.device, payload.artifact.manifest
    _check_available(PROVIDERS[device])
    _warn_below_floor(onnxruntime.__version__)
    graph, path, weights = payload.read(role), payload.artifact.path_of(role), payload.mappable(f"{role}-weights")
    check_graph(path, graph, role, manifest, {weights.name: manifest.files[weights.name].bytes})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.log_severity_level = ERRORS
    options.enable_mem_pattern = False  # it plans one block for a run's activations and keeps it beside the arena: 21 MB on BLIP-base
    # Two sessions have threads of their own: those that spin after a run take a core from the other (README on speed).
    options.add_session_config_entry("session.force_spinning_stop", "1")
    folder = path.parent.resolve()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    if settings.profiles is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(settings.profiles / path.stem)
    if device != "cpu":
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    providers = chain(device, settings.options, threads=settings.threads, precision=manifest.target.precision)
    if str(cache_folder(device)) in providers[0][1].values():
        cache_folder(device).mkdir(mode=0o700, parents=True, exist_ok=True)

    def failed(problem: str) -> ToolkitError:
        if device == "cpu":
            return ArtifactCorruptError(path, f"onnxruntime {onnxruntime.__version__} cannot load it: {problem}")
        return UnavailableError(f"{PROVIDERS[device].name} cannot load {path.name}: {problem}. It needs {PROVIDERS[device].needs}.")

    with translate_errors(failed):
        if not weights.resolve().is_relative_to(folder):  # onnxruntime follows no link out of the folder; from memory it copies
            in_memory = payload.mapped(f"{role}-weights")
            options.add_external_initializers_from_files_in_memory([weights.name], [in_memory], [len(in_memory)])
        # Its fallback would retry on other providers and print; we choose the provider and report errors ourselves.
        session = onnxruntime.InferenceSession(graph, options, providers=providers, enable_fallback=0)
    if device != "cpu":
        _check_used(session, PROVIDERS[device], path)
    return session


def _check_available(provider: Provider) -> None:
    available = onnxruntime.get_available_providers()
    if provider.name not in available:
        raise UnavailableError(
            f"onnxruntime has no {provider.name} here; it has: {', '.join(available)}. "
            f"Install {provider.distribution} in place of the onnxruntime package that is installed; it needs {provider.needs}."
        )


def _check_used(session: Any, provider: Provider, path: Path) -> None:  # noqa: ANN401
    """See that a provider took nodes of the graph: one that cannot start, or that supports none, leaves all of them to the CPU."""
    if session.get_providers()[0] != provider.name:
        raise UnavailableError(
            f"onnxruntime could not start {provider.name}; it fell back to {session.get_providers()[0]}. It needs {provider.needs}."
        )
    used = {part.ep_name: len(part.get_nodes()) for part in session.get_provider_graph_assignment_info()}
    if provider.name not in used:
        raise UnavailableError(f"{provider.name} runs no node of {path.name}; they would all run on {', '.join(sorted(used))}")


@cache
def _warn_below_floor(version: str) -> None:
    """Warn once in a process of a version that has known holes."""
    if tuple(int(part) for part in version.split(".")[:2]) < FLOOR:
        logger.warning(
            "onnxruntime %s is below %s, the lowest version without known holes: open only artifacts whose sender you trust",
            version,
            ".".join(map(str, FLOOR)),
        )
