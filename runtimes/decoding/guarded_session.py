"""A session whose engine's faults are errors of ours, and nothing else is: what a caller's callback raises meanwhile is the caller's."""

from typing import Any, TypeVar, cast

from runtimes.errors import EngineError, translate_errors

S = TypeVar("S")


def guarded(session: S, artifact: str) -> S:
    """Return a session that turns what its engine raises into an `EngineError`.

    Args:
        session: Of any protocol of `runtimes.decoding.session`.
        artifact: What errors name.
    """
    return cast("S", _Guard(session, artifact))


class _Guard:
    """Forwards every attribute; calls are made within `translate_errors`, which a `DeviceMemoryError` passes: a smaller batch may fit."""

    def __init__(self, session: object, artifact: str) -> None:
        self._session, self._artifact = session, artifact

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the session has
        value = getattr(self._session, name)
        if not callable(value):
            return value

        artifact = self._artifact  # without a reference to this object, which would keep the model until the next garbage collection

        def call(*arguments: Any) -> Any:  # noqa: ANN401
            with translate_errors(lambda problem: EngineError(artifact, problem)):
                return value(*arguments)

        vars(self)[name] = call  # next time it is found without this function
        return call
