"""Wrap a session so that every exception of its engine becomes an `EngineError`.

Only calls into the session are translated. An exception that a caller's callback raises during a search passes unchanged. Logits that are
not finite are an `EngineError` as well: no search can rank them. So are scores of a matcher.
"""

from typing import Any, TypeVar, cast

import numpy as np

from runtimes.errors import EngineError, translate_errors

S = TypeVar("S")


def guarded(session: S, artifact: str) -> S:
    """Return a session whose methods raise `EngineError` where the engine's library raises.

    Args:
        session: Any protocol of `runtimes.decoding.session`.
        artifact: Name for error messages.
    """
    return cast("S", _Guard(session, artifact))


class _Guard:
    """Forward every attribute to a session, and run its methods within `translate_errors`.

    `DeviceMemoryError` passes unchanged, since a smaller batch may fit.
    """

    def __init__(self, session: object, artifact: str) -> None:
        self._session, self._artifact = session, artifact

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any attribute of the session
        value = getattr(self._session, name)
        if not callable(value):
            return value

        artifact = self._artifact  # `call` must not refer to self: the cycle would keep the model until the next garbage collection

        def call(*arguments: Any) -> Any:  # noqa: ANN401
            with translate_errors(lambda problem: EngineError(artifact, problem)):
                result = value(*arguments)
                if name == "step" and not np.isfinite(result[0]).all():
                    raise ArithmeticError("the logits are not finite")
                if name in ("match", "embed_texts") and not np.isfinite(result).all():
                    raise ArithmeticError("the scores are not finite")
                return result

        vars(self)[name] = call  # later lookups find it without calling __getattr__
        return call
