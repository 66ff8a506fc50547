"""Open the sessions of an artifact with ONNX Runtime."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from runtimes.artifact.verified_files import VerifiedFiles
from runtimes.engines.ort.open_graph import OrtSettings, open_graph
from runtimes.engines.ort.ort_engine import OrtEngine
from runtimes.engines.ort.providers import PROVIDERS, Options
from runtimes.engines.step_session import StepSession

if TYPE_CHECKING:
    from runtimes.engines.graph_match_session import GraphMatchSession
    from runtimes.engines.question_session import EngineQuestionSession
    from runtimes.engines.single_graph_session import SingleGraphSession

RUN_SCALE = "DynamicQuantizeLinear"
"""Operator that computes one activation scale over all images of a run."""


class Profiling:
    """Process-wide switch for ONNX Runtime's profiles, for measurements only."""

    folder: Path | None = None
    """See `OrtSettings.profiles`."""


def open_step_session(files: VerifiedFiles, device: str, threads: int, options: Options) -> StepSession:
    """Open the encoder and decoder of an artifact of contract `split/1`; see `open_graph` for the errors."""
    return StepSession(_engine(files, ("encoder", "decoder"), device, threads, options), image_per_run=_image_per_run(files, "encoder"))


def open_question_session(files: VerifiedFiles, device: str, threads: int, options: Options) -> "EngineQuestionSession":
    """Open the graphs of an artifact of contract `question/1`; see `open_graph` for the errors."""
    from runtimes.engines.question_session import EngineQuestionSession  # imported here because it would slow the start of other artifacts

    return EngineQuestionSession(
        _engine(files, ("encoder", "question", "decoder"), device, threads, options),
        image_per_run=_image_per_run(files, "encoder"),
        question_per_run=_image_per_run(files, "question"),
    )


def open_match_session(files: VerifiedFiles, device: str, threads: int, options: Options) -> "GraphMatchSession":
    """Open the graphs of an artifact of contract `matching/1`; see `open_graph` for the errors."""
    from runtimes.engines.graph_match_session import GraphMatchSession  # as above

    return GraphMatchSession(_engine(files, ("encoder", "text"), device, threads, options), image_per_run=_image_per_run(files, "encoder"))


def open_loop_session(files: VerifiedFiles, device: str, threads: int, options: Options) -> "SingleGraphSession":
    """Open the graph of an artifact of contract `single/1`; see `open_graph` for the errors."""
    from runtimes.engines.single_graph_session import SingleGraphSession  # as above

    engine, pad_id = _engine(files, ("captioner",), device, threads, options), files.artifact.manifest.tokenizer.pad_id
    return SingleGraphSession(engine, pad_id=pad_id, image_per_run=_image_per_run(files, "captioner"))


def _engine(files: VerifiedFiles, roles: Sequence[str], device: str, threads: int, options: Options) -> OrtEngine:
    settings = OrtSettings(device=device, threads=threads, options=options, profiles=Profiling.folder)
    # onnxruntime packs weights on one thread, and without Python's lock. Other providers may share state between sessions that they open.
    with ThreadPoolExecutor(len(roles) if device == "cpu" else 1, thread_name_prefix="open") as pool:
        sessions = dict(zip(roles, pool.map(lambda role: open_graph(files, role, settings), roles), strict=True))
    precision = files.artifact.manifest.target.precision
    return OrtEngine(sessions, device=device, memory=PROVIDERS[device].memory, threads=threads, precision=precision)


def _image_per_run(files: VerifiedFiles, role: str) -> bool:
    """Return whether a graph's activation scales depend on all images of a run."""
    return any(RUN_SCALE in operators for operators in files.artifact.manifest.graphs[role].operators.values())
