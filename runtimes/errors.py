"""The closed set of errors a user can meet: what happened, where, what to do.

Every class is a `ToolkitError` and also the standard exception a caller would expect, so that code which knows only the
standard library still catches it. Commands turn a `ToolkitError` into one line and exit code 1; anything else is a bug of ours.
"""

from collections.abc import Iterable
from pathlib import Path


class ToolkitError(Exception):
    """Base of all errors that are the input's or the machine's fault, not ours."""


class ArtifactMissingError(ToolkitError, FileNotFoundError):
    """There is no artifact at the path."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path}: no artifact here (no manifest.json). Make one with: toolkit export CHECKPOINT --output {path.parent}")


class ArtifactCorruptError(ToolkitError, ValueError):
    """A file of an artifact is not what its manifest declares."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}. Export or copy the artifact again.")


class ManifestError(ToolkitError, ValueError):
    """manifest.json cannot be read; all problems are named at once."""

    def __init__(self, path: Path, problems: Iterable[str]) -> None:
        super().__init__(f"{path}: {'; '.join(problems)}. Export or copy the artifact again.")


class ManifestVersionError(ToolkitError, ValueError):
    """The artifact was written by a newer toolkit."""

    def __init__(self, path: Path, found: int, known: int) -> None:
        super().__init__(f"{path}: manifest schema {found} is newer than {known}, the newest that this toolkit reads. Update blip-toolkit.")


class UnknownNameError(ToolkitError, KeyError):
    """A recipe, runtime or dataset by that name is not known."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self._message = f"unknown {kind} '{name}'; known: {', '.join(sorted(known))}"
        super().__init__(self._message)

    def __str__(self) -> str:
        return self._message  # KeyError would show the repr


class MissingDependencyError(ToolkitError, ImportError):
    """A package that this step needs is not installed."""

    def __init__(self, package: str, needed_for: str, extra: str) -> None:
        super().__init__(f"{package} is needed for {needed_for}: pip install 'blip-toolkit[{extra}]'")


class UnavailableError(ToolkitError, RuntimeError):
    """An engine, provider or device that was asked for by name cannot be had on this machine."""


class ImageReadError(ToolkitError, ValueError):
    """A picture cannot be read."""

    def __init__(self, source: str, problem: str) -> None:
        super().__init__(f"{source}: {problem}")


class CheckpointError(ToolkitError, ValueError):
    """A checkpoint is missing, unreadable or not a BLIP captioner."""

    def __init__(self, source: str, problem: str) -> None:
        super().__init__(f"{source}: {problem}")


class RecipeError(ToolkitError, ValueError):
    """A recipe file says something that no exporter understands."""


class GateError(ToolkitError, ValueError):
    """An exported artifact differs from its checkpoint by more than its recipe allows; nothing was written."""


class OutputExistsError(ToolkitError, FileExistsError):
    """The output is there already."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path}: exists already; nothing was changed. Use --overwrite to replace it.")


class OutputError(ToolkitError, OSError):
    """The output cannot be written (no room, no permission, in use)."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: cannot write: {problem}. Nothing was changed.")


class RequestError(ToolkitError, ValueError):
    """A caption, benchmark or report request that cannot be carried out as asked."""


class DatasetError(ToolkitError, ValueError):
    """A set of pictures or captions cannot be used."""

    def __init__(self, source: str, problem: str) -> None:
        super().__init__(f"{source}: {problem}")


class RecordError(ToolkitError, ValueError):
    """A file of benchmark records cannot be read."""

    def __init__(self, source: str, problem: str) -> None:
        super().__init__(f"{source}: {problem}")
