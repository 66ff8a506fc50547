"""The classes of errors: every class has its own code, and exceptions of libraries are converted to one of them."""

import inspect
import re
import signal
from pathlib import Path

import pytest

from runtimes import errors
from runtimes.errors import ArtifactCorruptError, OutOfMemoryError, RequestError, ToolkitError, error_from_code, translate_errors
from tests.paths import ROOT

CODES = {
    "ArtifactMissingError": "ARTIFACT_MISSING",
    "ArtifactCorruptError": "ARTIFACT_CORRUPT",
    "ArtifactCrashError": "ARTIFACT_CRASH",
    "GraphRefusedError": "GRAPH_REFUSED",
    "ManifestError": "MANIFEST_INVALID",
    "ManifestVersionError": "MANIFEST_TOO_NEW",
    "ManifestTooOldError": "MANIFEST_TOO_OLD",
    "ArchiveError": "ARCHIVE_INVALID",
    "DigestError": "DIGEST_DIFFERS",
    "GoldenError": "GOLDEN_DIFFERS",
    "UnknownNameError": "NAME_UNKNOWN",
    "MissingDependencyError": "DEPENDENCY_MISSING",
    "UnavailableError": "UNAVAILABLE",
    "EngineError": "ENGINE_FAILED",
    "OutOfMemoryError": "OUT_OF_MEMORY",
    "ImageTimeoutError": "IMAGE_TIMEOUT",
    "ImageReadError": "IMAGE_UNREADABLE",
    "ImageTooLargeError": "IMAGE_TOO_LARGE",
    "ImageChangedError": "IMAGE_CHANGED",
    "EnvironmentFailedError": "ENVIRONMENT_FAILED",
    "ImageCrashError": "IMAGE_CRASH",
    "CheckpointError": "CHECKPOINT_UNUSABLE",
    "RecipeError": "RECIPE_INVALID",
    "GateError": "GATE_FAILED",
    "BudgetError": "BUDGET_NOT_MET",
    "ExportError": "EXPORT_FAILED",
    "OutputExistsError": "OUTPUT_EXISTS",
    "OutputError": "OUTPUT_UNWRITABLE",
    "RequestError": "REQUEST_INVALID",
    "DatasetError": "DATASET_UNUSABLE",
    "TooManyErrorsError": "TOO_MANY_ERRORS",
    "RecordError": "RECORD_UNREADABLE",
}
"""Programs rely on these codes. A code is never changed or reused; a new class adds a row."""


class PanicException(BaseException):
    """A Rust panic in Python: a `BaseException` of this name."""


class SessionMemoryError(MemoryError):
    """A subclass of MemoryError, as sessions define."""


class Cancelled(BaseException):
    """A `BaseException` like the one with which asynchronous frameworks cancel a task."""


def error_classes():
    return [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, ToolkitError) and kind is not ToolkitError]


def test_every_error_has_its_code():
    assert {kind.__name__: kind.code for kind in error_classes()} == CODES
    assert len(set(CODES.values())) == len(CODES)


def test_every_error_also_derives_from_a_specific_exception_of_the_standard_library():
    for kind in error_classes():
        assert [base for base in kind.__mro__ if base.__module__ == "builtins" and base not in (Exception, BaseException, object)], kind


def test_no_other_module_defines_a_subclass_of_toolkit_error():
    names = {kind.__name__ for kind in error_classes()} | {"ToolkitError"}
    elsewhere = [
        f"{file.relative_to(ROOT)}: {name}"
        for package in ("runtimes", "exporters", "toolkit")
        for file in (ROOT / package).rglob("*.py")
        if file.name != "errors.py"
        for name, bases in re.findall(r"^ *class (\w+)\(([^)]*)\):", file.read_text(encoding="utf-8"), re.MULTILINE)
        if names & set(re.findall(r"\w+", bases))
    ]
    assert elsewhere == []


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (Exception("untagged enum"), "untagged enum"),
        (PanicException("called `Option::unwrap()` on a `None` value\nnote: run with"), "called `Option::unwrap()` on a `None` value"),
        (RuntimeError("\n  two\nlines"), "two"),
        (ValueError(""), "ValueError"),
        (ValueError("bell \a"), "bell \\x07"),
        (RecursionError("too deep"), "too deep"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_an_exception_of_a_library_is_converted(raised, message):
    with pytest.raises(ArtifactCorruptError) as caught, translate_errors(lambda problem: ArtifactCorruptError(Path("x"), problem)):
        raise raised
    assert str(caught.value) == f"x: {message}. Export or copy the artifact again."
    assert caught.value.__cause__ is raised


@pytest.mark.parametrize(
    "raised", [KeyboardInterrupt(), SystemExit(3), GeneratorExit(), Cancelled(), SessionMemoryError(), RequestError("raised in the body")]
)
def test_requests_to_stop_and_toolkit_errors_pass_unchanged(raised):
    with pytest.raises(type(raised)) as caught, translate_errors(lambda problem: ArtifactCorruptError(Path("x"), problem)):
        raise raised
    assert caught.value is raised


def test_a_memory_error_becomes_out_of_memory_error():
    with pytest.raises(OutOfMemoryError, match="memory"), translate_errors(lambda _: RequestError("")):
        raise MemoryError


@pytest.mark.parametrize("kind", error_classes(), ids=lambda kind: kind.code)
def test_an_error_of_another_process_has_its_class_and_message(kind):
    error = error_from_code(kind.code, "x: what, where. What to do.")
    assert type(error) is kind
    assert str(error) == "x: what, where. What to do."


def test_an_unknown_code_of_another_process_is_kept():
    error = error_from_code("FROM_THE_FUTURE", "x: what. What to do.")
    assert (type(error), error.code, str(error)) == (ToolkitError, "FROM_THE_FUTURE", "x: what. What to do.")
    assert ToolkitError.code == ""


class Handler:
    def __call__(self, number, frame):
        raise TimeoutError("too slow")

    def method(self, number, frame):
        self(number, frame)


@pytest.mark.parametrize("handler", [Handler(), Handler().method, lambda *_: [][0]], ids=["object", "method", "function"])
def test_an_exception_of_a_signal_handler_passes_unchanged(handler):
    """A program that limits a caption's time by SIGALRM gets its own exception back."""
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with (
            pytest.raises((TimeoutError, IndexError)) as caught,
            translate_errors(lambda problem: ArtifactCorruptError(Path("x"), problem)),
        ):
            signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert not isinstance(caught.value, ToolkitError)
