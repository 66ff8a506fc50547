"""The registry of engines, the libraries that run artifacts. All other tables of engines are derived from it.

Functions and classes are given as "module:name" strings, so importing this module imports no engine. To add an engine, write its session
(and its builder, if the toolkit should export for it), and add one entry to `ENGINES`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from runtimes.errors import MissingDependencyError, UnknownNameError


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """Description of an engine, for use without importing its library."""

    name: str
    """Value of `runtime` in manifests and recipes."""
    library: str
    """Name of the Python package to import."""
    distributions: tuple[str, ...]
    """Distribution packages that contain the library, the usual one first. At most one of them can be installed."""
    extra: str
    """Name of the extra in `pip install 'blip-toolkit[extra]'`."""
    rank: int
    """Preference among engines that can run equal artifacts: the lowest rank is used, being the fastest and smallest in memory."""
    sessions: Mapping[str, str]
    """Contract of a manifest → function (files, device, threads, provider options) that opens a session."""
    execution_providers: bool = False
    """Whether it runs on all devices of `runtimes.engines.ort.providers`; if not, on "cpu" and "cuda" only."""
    builder: str | None = None
    """Module in `exporters` with `build` and `REQUIRES`; None if the toolkit does not export for this engine."""
    probe: str | None = None
    """Function that imports the library and returns its `runtimes.engines.offer.Offer` on this machine."""
    profiler: str | None = None
    """Class that implements `toolkit.bench.profiling.trace.Tracer`."""


VARIANTS = ("gpu", "openvino", "directml", "migraphx", "rocm", "qnn", "webgpu", "cann")
"""Suffixes of the distribution packages `onnxruntime-<suffix>`, builds with other execution providers."""

ENGINES: dict[str, EngineSpec] = {
    spec.name: spec
    for spec in (
        EngineSpec(
            name="ort",
            library="onnxruntime",
            distributions=("onnxruntime", *(f"onnxruntime-{name}" for name in VARIANTS)),
            extra="ort",
            rank=0,
            sessions={
                "split/1": "runtimes.engines.ort.session:open_step_session",
                "single/1": "runtimes.engines.ort.session:open_loop_session",
                "question/1": "runtimes.engines.ort.session:open_question_session",
                "matching/1": "runtimes.engines.ort.session:open_match_session",
            },
            execution_providers=True,
            builder="exporters.onnx.build",
            probe="runtimes.engines.ort.probe:probe",
            profiler="toolkit.bench.profiling.ort_trace:OrtTracer",
        ),
        EngineSpec(
            name="torch",
            library="torch",
            distributions=("torch",),
            extra="torch",
            rank=1,
            sessions={
                "split/1": "runtimes.engines.pytorch.session:open_session",
                "question/1": "runtimes.engines.pytorch.question_session:open_session",
                "matching/1": "runtimes.engines.pytorch.match_session:open_session",
            },
            builder="exporters.pytorch.build",
            probe="runtimes.engines.pytorch.probe:probe",
            profiler="toolkit.bench.profiling.torch_trace:TorchTracer",
        ),
    )
}
"""Engine name → entry."""


def find_engine(name: str) -> EngineSpec:
    """Return the entry of an engine.

    Raises:
        UnknownNameError: The registry has no engine of this name.
    """
    if name not in ENGINES:
        raise UnknownNameError("engine", name, ENGINES)
    return ENGINES[name]


def load_target(target: str) -> Any:  # noqa: ANN401 - a class or function
    """Import and return the function or class of a "module:name" string."""
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)


def missing_library(artifact: str, runtime: str, package: str | None = None) -> MissingDependencyError:
    """Return the error of an artifact whose engine, or a package that the engine needs, is not installed."""
    engine = ENGINES[runtime]
    return MissingDependencyError(package or engine.library, f"{artifact} (runtime '{runtime}')", engine.extra)
