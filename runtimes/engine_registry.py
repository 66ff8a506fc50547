"""The engines: one entry each. Every other table of engines is derived from this one.

Targets are "module:name" strings, so reading the registry imports no engine. To add an engine, write its session (and its builder, if
this toolkit exports for it) and add one entry to `ENGINES`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from runtimes.errors import UnknownNameError


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """What the toolkit knows about an engine without importing it."""

    name: str
    """The value of `runtime` in manifests and recipes."""
    library: str
    """Python package that must be importable."""
    distributions: tuple[str, ...]
    """Packages of an index that provide the library, the usual one first; at most one of them is installed."""
    extra: str
    """Of `pip install 'blip-toolkit[extra]'`."""
    rank: int
    """Order among engines that can run equal artifacts; lower is faster and needs less memory."""
    sessions: Mapping[str, str]
    """Contract of a manifest → function that makes a session from (payload, device, threads, options of the device)."""
    execution_providers: bool = False
    """It runs on every device of `runtimes.engines.ort.providers`; the others on "cpu" and "cuda" only."""
    builder: str | None = None
    """Module of exporters with `build` and `REQUIRES`; None: this toolkit exports nothing for it."""
    probe: str | None = None
    """Function that imports the library and returns its `runtimes.engines.offer.Offer` on this machine."""
    profiler: str | None = None
    """Class that implements `toolkit.bench.profiling.trace.Tracer`."""


VARIANTS = ("gpu", "openvino", "directml", "migraphx", "rocm", "qnn", "webgpu", "cann")
"""Builds of onnxruntime with other execution providers, each a package of its own."""

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
            sessions={"split/1": "runtimes.engines.pytorch.session:open_session"},
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
        UnknownNameError: There is none.
    """
    if name not in ENGINES:
        raise UnknownNameError("engine", name, ENGINES)
    return ENGINES[name]


def load_target(target: str) -> Any:  # noqa: ANN401 - a class or function
    """Import the function or class that a "module:name" string names."""
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)
