"""All errors that the toolkit raises on purpose. A message states what happened, where, and what to do.

Every class derives from `ToolkitError` and from a fitting exception of the standard library, and has a `code` for programs. Codes are
stable, messages may change. Commands print a `ToolkitError` as one line and exit with code 1. Any other exception is a bug of the toolkit.
"""

import contextlib
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, ClassVar


class ToolkitError(Exception):
    """Base of all errors that the input or the machine causes."""

    code: ClassVar[str] = ""
    """Name of the error for programs, unique to each class."""


@contextlib.contextmanager
def translate_errors(error: Callable[[str], ToolkitError]) -> Iterator[None]:
    """Convert every exception that a library raises in the body to a `ToolkitError`.

    All exceptions are caught, because libraries do not document theirs: those of onnxruntime have no common base class, and tokenizers
    raises `Exception` itself and Rust panics. Exceptions of a signal handler and all other `BaseException`s pass unchanged.

    Args:
        error: Returns the `ToolkitError` for the first line of the library's message.

    Raises:
        ToolkitError: The result of `error`, or a `ToolkitError` of the body, unchanged.
        MemoryError: `OutOfMemoryError` for a `MemoryError` of the body; a subclass of `MemoryError` unchanged.
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
"""Name of the exception class, a `BaseException`, that pyo3 defines in every Rust library."""


def _from_signal_handler(failure: BaseException) -> bool:
    """Return whether a registered Python signal handler is among the frames of the traceback."""
    handlers = filter(callable, map(signal.getsignal, signal.valid_signals()))
    codes = {getattr(each, "__code__", getattr(type(each).__call__, "__code__", None)) for each in handlers}
    return any(frame.f_code in codes for frame, _ in traceback.walk_tb(failure.__traceback__))


def first_line(failure: BaseException) -> str:
    """Return the first line of an exception's message, printable, or its class name if the message is empty."""
    text = next((line.strip() for line in str(failure).splitlines() if line.strip()), type(failure).__name__)
    return text if text.isprintable() else ascii(text)[1:-1]


class ArtifactMissingError(ToolkitError, FileNotFoundError):
    """The path is not an artifact."""

    code = "ARTIFACT_MISSING"

    def __init__(self, path: Path) -> None:
        problem = "no artifact here (no manifest.json)" if path.exists() else "no such file or folder"
        export = "Make an artifact with: toolkit export CHECKPOINT"
        remedy = f"Unpack a package with: toolkit unpack {path}" if path.is_file() else export
        super().__init__(f"{path}: {problem}. {remedy}")


class ArtifactCorruptError(ToolkitError, ValueError):
    """A file of an artifact differs from its manifest."""

    code = "ARTIFACT_CORRUPT"

    def __init__(self, path: Path, problem: str) -> None:
        self.problem = problem
        super().__init__(f"{path}: {problem}. Export or copy the artifact again.")


class ArtifactCrashError(ToolkitError, RuntimeError):
    """A subprocess crashed or exceeded its limits while it opened an artifact."""

    code = "ARTIFACT_CRASH"

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}. Open it only in a subprocess; export or copy the artifact again.")


class GraphRefusedError(ToolkitError, ValueError):
    """A graph matches its manifest entry, but contains an operator or attribute that no exporter of the toolkit writes."""

    code = "GRAPH_REFUSED"

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: refused before it is run: {problem}. Export the artifact again with this toolkit.")


class ManifestError(ToolkitError, ValueError):
    """manifest.json is invalid. The message lists every problem."""

    code = "MANIFEST_INVALID"

    def __init__(self, path: Path, problems: Iterable[str]) -> None:
        super().__init__(f"{path}: {'; '.join(problems)}. Export or copy the artifact again.")


class ManifestVersionError(ToolkitError, ValueError):
    """The artifact was written by a newer toolkit."""

    code = "MANIFEST_TOO_NEW"

    def __init__(self, path: Path, schema: int, known: int) -> None:
        super().__init__(
            f"{path}: manifest schema {schema} is newer than {known}, the newest that this toolkit reads. Update blip-toolkit."
        )


class ManifestTooOldError(ToolkitError, ValueError):
    """The artifact was written by an older toolkit."""

    code = "MANIFEST_TOO_OLD"

    def __init__(self, path: Path, schema: int, known: int) -> None:
        remedy = "Export the artifact again with: toolkit export CHECKPOINT"
        super().__init__(f"{path}: manifest schema {schema} is older than {known}, the only one that this toolkit reads. {remedy}")


class ArchiveError(ToolkitError, ValueError):
    """An archive differs from what `toolkit package` writes. No file of it was kept."""

    code = "ARCHIVE_INVALID"

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}. No file of it was kept; copy or package it again.")


class DigestError(ToolkitError, ValueError):
    """The digest of an artifact differs from the given one."""

    code = "DIGEST_DIFFERS"

    def __init__(self, path: Path, digest: str, expected: str) -> None:
        super().__init__(f"{path}: sha256 of its manifest.json is {digest}, not {expected}. Do not use it; ask the sender for its digest.")


class GoldenError(ToolkitError, ValueError):
    """The captions on this machine differ from the golden captions, or the artifact has none."""

    code = "GOLDEN_DIFFERS"

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}. Do not use it here: compare `toolkit doctor` of both machines, or use a portable recipe.")


class UnknownNameError(ToolkitError, KeyError):
    """No recipe, runtime or dataset has this name."""

    code = "NAME_UNKNOWN"

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        super().__init__(f"unknown {kind} '{name}'; known: {', '.join(sorted(known))}")

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError.__str__ returns the repr


class MissingDependencyError(ToolkitError, ImportError):
    """A package that this step needs is not installed."""

    code = "DEPENDENCY_MISSING"

    def __init__(self, package: str, needed_for: str, extra: str) -> None:
        super().__init__(f"{package} is needed for {needed_for}: pip install 'blip-toolkit[{extra}]'")


class UnavailableError(ToolkitError, RuntimeError):
    """A requested engine, execution provider or device does not work on this machine."""

    code = "UNAVAILABLE"


class EngineError(ToolkitError, RuntimeError):
    """An engine failed during a run."""

    code = "ENGINE_FAILED"

    def __init__(self, artifact: str, problem: str) -> None:
        super().__init__(f"{artifact}: its engine failed: {problem}. Try again; `toolkit doctor {artifact}` checks engine and artifact.")


class OutOfMemoryError(ToolkitError, MemoryError):
    """The machine has too little memory."""

    code = "OUT_OF_MEMORY"

    def __init__(self, what: str = "this artifact") -> None:
        super().__init__(f"not enough memory for {what}. Use a smaller artifact or batch, or a machine with more memory.")


class ImageReadError(ToolkitError, ValueError):
    """An image cannot be read."""

    code = "IMAGE_UNREADABLE"

    def __init__(self, source: str, problem: str) -> None:
        super().__init__(f"{source}: {problem}")


class ImageTooLargeError(ImageReadError, ValueError):
    """An image has more pixels than `max_pixels` allows."""

    code = "IMAGE_TOO_LARGE"


class ImageChangedError(ToolkitError, ValueError):
    """The bytes of an image have changed since the inputs were listed."""

    code = "IMAGE_CHANGED"

    def __init__(self, source: str) -> None:
        super().__init__(f"{source}: has changed since it was listed; restore it, or list it again with --extend")


class EnvironmentFailedError(ToolkitError, OSError):
    """The machine failed while an image was read: memory, file descriptors, disk or network share. The image may be intact."""

    code = "ENVIRONMENT_FAILED"

    def __init__(self, source: str, problem: str) -> None:
        super().__init__(
            f"{source}: cannot be read now: {problem}. The machine is the cause, not the image; correct it and try again (--resume)."
        )


class ImageCrashError(ToolkitError, RuntimeError):
    """The process that captioned an image crashed twice, the second time with this image alone."""

    code = "IMAGE_CRASH"

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"{source}: the process that captioned it crashed twice, the second time with this image alone ({reason})")


class ImageTimeoutError(ToolkitError, TimeoutError):
    """An image exceeded the time limit twice, the second time when it was captioned alone."""

    code = "IMAGE_TIMEOUT"

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"{source}: {reason}, the second time with this image alone; use a longer --timeout or leave the image out")


class CheckpointError(ToolkitError, ValueError):
    """A checkpoint is missing, unreadable or of a family that cannot be exported."""

    code = "CHECKPOINT_UNUSABLE"

    def __init__(self, source: str, problem: str) -> None:
        super().__init__(f"{source}: {problem}")


class RecipeError(ToolkitError, ValueError):
    """A recipe file is invalid."""

    code = "RECIPE_INVALID"


class GateError(ToolkitError, ValueError):
    """An exported artifact differs from its checkpoint by more than its recipe allows; nothing was written."""

    code = "GATE_FAILED"


class BudgetError(ToolkitError, ValueError):
    """No choice of number formats for the layers of a checkpoint meets the budget."""

    code = "BUDGET_NOT_MET"


class ExportError(ToolkitError, ValueError):
    """Several recipes of one export failed."""

    code = "EXPORT_FAILED"

    def __init__(self, failures: Sequence[ToolkitError]) -> None:
        super().__init__(f"{len(failures)} recipes failed: " + "; ".join(map(str, failures)))
        self.failures = tuple(failures)
        """One error per recipe, in the order of the recipes."""


class OutputExistsError(ToolkitError, FileExistsError):
    """The output exists already."""

    code = "OUTPUT_EXISTS"

    def __init__(self, path: Path | str, remedy: str = "Use --overwrite to replace it.") -> None:
        super().__init__(f"{path}: exists already; nothing was changed. {remedy}")


class OutputError(ToolkitError, OSError):
    """The output cannot be written: no disk space, no permission, or another process writes it."""

    code = "OUTPUT_UNWRITABLE"

    def __init__(self, path: Path | str, problem: str) -> None:
        super().__init__(f"{path}: cannot write: {problem}. Nothing was changed.")


class RequestError(ToolkitError, ValueError):
    """An argument of a request is invalid, or arguments contradict each other."""

    code = "REQUEST_INVALID"


class DatasetError(ToolkitError, ValueError):
    """A set of images or captions cannot be used."""

    code = "DATASET_UNUSABLE"

    def __init__(self, source: str, problem: str) -> None:
        super().__init__(f"{source}: {problem}")


class TooManyErrorsError(ToolkitError, RuntimeError):
    """More images of a data set failed than are allowed."""

    code = "TOO_MANY_ERRORS"

    def __init__(self, errors: int, limit: int | None) -> None:
        problem = f"all of the first {errors:,} images failed" if limit is None else f"{errors:,} images failed, and {limit:,} are allowed"
        cure = "Correct the inputs or the settings, and run the command again"
        super().__init__(f"stopped: {problem}. {cure}{', or go on with --max-errors 100%' if limit is None else ''}")


class RecordError(ToolkitError, ValueError):
    """A file of benchmark records cannot be read."""

    code = "RECORD_UNREADABLE"

    def __init__(self, source: str, problem: str) -> None:
        super().__init__(f"{source}: {problem}")


def check_count(name: str, value: object, least: int = 1) -> None:
    """Check an argument that counts something.

    Raises:
        RequestError: It is not an integer, or below `least`.
    """
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise RequestError(f"{name} must be an integer, not {value!r}")
    if value < least:
        raise RequestError(f"{name} must {f'be at least {least}' if least else 'not be negative'}")


def error_from_code(code: str, message: str) -> ToolkitError:
    """Return the error that another process raised, from its code and message; for an unknown code, a `ToolkitError` with that code."""
    kinds = [ToolkitError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    kind = next((kind for kind in kinds if kind.code == code), ToolkitError)
    base: Any = kind.__base__  # __init__ is not called: the message already contains its arguments
    error: ToolkitError = base.__new__(kind)
    error.args = (message,)
    if kind.code != code:
        vars(error)["code"] = code  # a code of another version of the toolkit
    return error
