"""Sessions of artifacts on ONNX Runtime."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runtimes.artifact.verified_files import Payload
from runtimes.engines.ort.open_graph import OrtSettings, open_graph
from runtimes.engines.ort.ort_engine import OrtEngine
from runtimes.engines.ort.providers import PROVIDERS, Options
from runtimes.engines.step_session import StepSession

if TYPE_CHECKING:
    from runtimes.engines.single_graph_session import SingleGraphSession

RUN_SCALE = "DynamicQuantizeLinear"
"""Operator that computes one activation scale over everything in a run."""


class Profiling:
    """Where ONNX Runtime writes what every operator takes; see `OrtSettings`. For measuring only."""

    folder: Path | None = None


def open_step_session(payload: Payload, device: str, threads: int, options: Options) -> StepSession:
    """Open the graphs of contract `split/1`."""
    return StepSession(_engine(payload, ("encoder", "decoder"), device, threads, options), image_per_run=_image_per_run(payload, "encoder"))


def open_loop_session(payload: Payload, device: str, threads: int, options: Options) -> "SingleGraphSession":
    """Open the graph of contract `single/1`."""
    from runtimes.engines.single_graph_session import SingleGraphSession  # importing counts at every start of the others

    engine, pad_id = _engine(payload, ("captioner",), device, threads, options), payload.artifact.manifest.tokenizer.pad_id
    return SingleGraphSession(engine, pad_id=pad_id, image_per_run=_image_per_run(payload, "captioner"))


def _engine(payload: Payload, roles: Sequence[str], device: str, threads: int, options: Options) -> OrtEngine:
    settings = OrtSettings(device=device, threads=threads, options=options, profiles=Profiling.folder)
    sessions = {role: open_graph(payload, role, settings) for role in roles}
    precision = payload.artifact.manifest.target.precision
    return OrtEngine(sessions, device=device, memory=PROVIDERS[device].memory, threads=threads, precision=precision)


def _image_per_run(payload: Payload, role: str) -> bool:
    return any(RUN_SCALE in operators for operators in payload.artifact.manifest.graphs[role].operators.values())
