"""The closed set of errors a user can meet: what happened, where, what to do.

Every class is a `ToolkitError` and also the standard exception a caller would expect, so that code which knows only the
standard library still catches it, and has a `code` for programs, which stays the same while messages may change. Commands turn a
`ToolkitError` into one line and exit code 1; anything else is a bug of ours.
"""

import contextlib
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar


class ToolkitError(Exception):
    """Base of all errors that are the input's or the machine's fault, not ours."""

    code: ClassVar[str] = ""
    """What happened, as a word for programs; every class has its own."""


@contextlib.contextmanager
def translate_errors(error: Callable[[str], ToolkitError]) -> Iterator[None]:
    """Turn whatever a library raises in the body into one of our errors.

    Libraries promise no closed set: onnxruntime's exceptions have no common base, and tokenizers raises bare `Exception` and Rust's panics.
    Exceptions that are not the library's pass unchanged: those of a signal handler that runs meanwhile, and every other `BaseException`.

    Args:
        error: Makes our error from the first line of the library's.

    Raises:
        ToolkitError: From `error`, or one raised in the body, unchanged.
        MemoryError: The body ran out of memory: an `OutOfMemoryError`, or a subclass of `MemoryError` that the body chose, unchanged.
    """
    try:
        yield
    except ToolkitError:
        raise
    except MemoryError as failure:
        if type(failure) is not MemoryError:
            raise
        raise OutOfMemoryError from failure
    except BaseException as failure:
        if not (isinstance(failure, Exception) or type(failure).__name__ == RUST_PANIC) or _from_signal_handler(failure):
            raise
        raise error(first_line(failure)) from failure


RUST_PANIC = "PanicException"
"""Of pyo3, which makes a class of this name, a `BaseException`, in every Rust library."""


def _from_signal_handler(failure: BaseException) -> bool:
    """Return whether a Python signal handler raised it: one of the registered handlers is among the frames of its traceback."""
    handlers = filter(callable, map(signal.getsignal, signal.valid_signals()))
    codes = {getattr(each, "__code__", getattr(type(each).__call__, "__code__", None)) for each in handlers}
    return any(frame.f_code in codes for frame, _ in traceback.walk_tb(failure.__traceback__))


def first_line(failure: BaseException) -> str:
    """Return the first line that an exception says, printable; its kind if it says nothing."""
    text = next((line.strip() for line in str(failure).splitlines() if line.strip()), type(failure).__name__)
    return text if text.isprintable() else ascii(text)[1:-1]


class ArtifactMissingError(ToolkitError, FileNotFoundError):
    """There is no artifact at the path."""

    code = "ARTIFACT_MISSING"

    def __init__(self, path: Path) -> None:
        remedy = (
            f"Unpack a package with: toolkit unpack {path}"
            if path.is_file()
            else f"Make one with: toolkit export CHECKPOINT --output {path.parent}"
        )
        super().__init__(f"{path}: no artifact here (no manifest.json). {remedy}")


class ArtifactCorruptError(ToolkitError, ValueError):
    """A file of an artifact is not what its manifest declares."""

    code = "ARTIFACT_CORRUPT"

    def __init__(self, path: Path, problem: str) -> None:
        self.problem = problem
        super().__init__(f"{path}: {problem}. Export or copy the artifact again.")


class ArtifactCrashError(ToolkitError, RuntimeError):
    """Opening an artifact in a process of its own ended that process."""

    code = "ARTIFACT_CRASH"

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}. Do not open it outside of a process of its own; export or copy the artifact again.")


class GraphRefusedError(ToolkitError, ValueError):
    """A graph is what its manifest declares, byte for byte, and holds what no exporter of ours makes."""

    code = "GRAPH_REFUSED"

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: refused before it is run: {problem}. Export the artifact again with this toolkit.")


class ManifestError(ToolkitError, ValueError):
    """manifest.json cannot be read; all problems are named at once."""

    code = "MANIFEST_INVALID"

    def __init__(self, path: Path, problems: Iterable[str]) -> None:
        super().__init__(f"{path}: {'; '.join(problems)}. Export or copy the artifact again.")


class ManifestVersionError(ToolkitError, ValueError):
    """The artifact was written by a newer toolkit."""

    code = "MANIFEST_TOO_NEW"

    def __init__(self, path: Path, found: int, known: int) -> None:
        super().__init__(f"{path}: manifest schema {found} is newer than {known}, the newest that this toolkit reads. Update blip-toolkit.")


class ManifestTooOldError(ToolkitError, ValueError):
    """The artifact was written by an older toolkit."""

    code = "MANIFEST_TOO_OLD"

    def __init__(self, path: Path, found: int, known: int) -> None:
        super().__init__(
            f"{path}: manifest schema {found} is older than {known}, the only one that this toolkit reads. "
            "Export the artifact again with: toolkit export CHECKPOINT"
        )


class ArchiveError(ToolkitError, ValueError):
    """A package's archive is not as `toolkit package` writes it; nothing of it was kept."""

    code = "ARCHIVE_INVALID"

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}. Nothing of it was kept; copy or package it again.")


class DigestError(ToolkitError, ValueError):
    """An artifact is complete, and not the one whose digest was given."""

    code = "DIGEST_DIFFERS"

    def __init__(self, path: Path, found: str, wanted: str) -> None:
        super().__init__(f"{path}: sha256 of its manifest.json is {found}, not {wanted}. Do not use it; ask the sender for its digest.")


class GoldenError(ToolkitError, ValueError):
    """On this machine an artifact captions otherwise than where it was packaged, or it holds no proof that it does not."""

    code = "GOLDEN_DIFFERS"

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}. Do not use it here: compare `toolkit doctor` of both machines, take a portable recipe.")


class UnknownNameError(ToolkitError, KeyError):
    """A recipe, runtime or dataset by that name is not known."""

    code = "NAME_UNKNOWN"

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        super().__init__(f"unknown {kind} '{name}'; known: {', '.join(sorted(known))}")

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would show the repr


class MissingDependencyError(ToolkitError, ImportError):
    """A package that this step needs is not installed."""

    code = "DEPENDENCY_MISSING"

    def __init__(self, package: str, needed_for: str, extra: str) -> None:
        super().__init__(f"{package} is needed for {needed_for}: pip install 'blip-toolkit[{extra}]'")


class UnavailableError(ToolkitError, RuntimeError):
    """An engine, provider or device that was asked for by name cannot be had on this machine."""

    code = "UNAVAILABLE"


class EngineError(ToolkitError, RuntimeError):
    """An engine failed in midst of a run, with an artifact that it had loaded."""

    code = "ENGINE_FAILED"

    def __init__(self, artifact: str, problem: str) -> None:
        super().__init__(
            f"{artifact}: its engine failed while it ran: {problem}. Try again; `toolkit doctor {artifact}` checks engine and artifact."
        )


class OutOfMemoryError(ToolkitError, MemoryError):
    """This machine has not the memory that a step needs."""

    code = "OUT_OF_MEMORY"

    def __init__(self, what: str = "this artifact") -> None:
        super().__init__(f"not enough memory for {what}. Take a smaller artifact or batch, or a machine with more.")


class ImageReadError(ToolkitError, ValueError):
    """An image cannot be read."""

    code = "IMAGE_UNREADABLE"

    def __init__(self, source: str, problem: str) -> None:
        super().__init__(f"{source}: {problem}")


class ImageCrashError(ToolkitError, RuntimeError):
    """Reading or captioning an image ends the process that does it, also when it is the only one."""

    code = "IMAGE_CRASH"

    def __init__(self, source: str, death: str) -> None:
        super().__init__(f"{source}: ended the process that captioned it, twice, the second time alone ({death})")


class CheckpointError(ToolkitError, ValueError):
    """A checkpoint is missing, unreadable or of a family that cannot be exported."""

    code = "CHECKPOINT_UNUSABLE"

    def __init__(self, source: str, problem: str) -> None:
        super().__init__(f"{source}: {problem}")


class RecipeError(ToolkitError, ValueError):
    """A recipe file says something that no exporter understands."""

    code = "RECIPE_INVALID"


class GateError(ToolkitError, ValueError):
    """An exported artifact differs from its checkpoint by more than its recipe allows; nothing was written."""

    code = "GATE_FAILED"


class ExportError(ToolkitError, ValueError):
    """Several recipes of one export failed."""

    code = "EXPORT_FAILED"

    def __init__(self, failures: Sequence[ToolkitError]) -> None:
        super().__init__(f"{len(failures)} recipes failed: " + "; ".join(map(str, failures)))
        self.failures = tuple(failures)
        """One error per recipe, in the order of the recipes."""


class OutputExistsError(ToolkitError, FileExistsError):
    """The output is there already."""

    code = "OUTPUT_EXISTS"

    def __init__(self, path: Path, remedy: str = "Use --overwrite to replace it.") -> None:
        super().__init__(f"{path}: exists already; nothing was changed. {remedy}")


class OutputError(ToolkitError, OSError):
    """The output cannot be written (no room, no permission, in use)."""

    code = "OUTPUT_UNWRITABLE"

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: cannot write: {problem}. Nothing was changed.")


class RequestError(ToolkitError, ValueError):
    """A caption, benchmark or report request that cannot be carried out as asked."""

    code = "REQUEST_INVALID"


class DatasetError(ToolkitError, ValueError):
    """A set of images or captions cannot be used."""

    code = "DATASET_UNUSABLE"

    def __init__(self, source: str, problem: str) -> None:
        super().__init__(f"{source}: {problem}")


class RecordError(ToolkitError, ValueError):
    """A file of benchmark records cannot be read."""

    code = "RECORD_UNREADABLE"

    def __init__(self, source: str, problem: str) -> None:
        super().__init__(f"{source}: {problem}")


def error_from_code(code: str, message: str) -> ToolkitError:
    """Return the error that another process raised, from its code and its message; an unknown code gives a plain `ToolkitError` with it."""
    kinds = [ToolkitError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    kind = next((kind for kind in kinds if kind.code == code), ToolkitError)
    base: Any = kind.__base__  # whose layout it has; its own arguments are in the message
    error: ToolkitError = base.__new__(kind)
    error.args = (message,)
    if kind.code != code:
        vars(error)["code"] = code  # of another version of the toolkit
    return error
