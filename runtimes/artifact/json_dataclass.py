"""Convert JSON documents to frozen dataclasses and back.

Reading is strict and reports every problem at once: unknown keys, missing keys, wrong types. No value is converted, except that a float
field accepts a JSON integer.
"""

import json
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from typing import Any, TypeVar

T = TypeVar("T")


def dump(value: Any) -> Any:  # noqa: ANN401 - a JSON value
    """Return a dataclass as JSON values; tuples become lists."""
    return json.loads(json.dumps(asdict(value)))


def canonical_json(document: object) -> bytes:
    """Return the bytes of a JSON document for hashing: sorted keys, no spaces, UTF-8."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def parse(content: bytes) -> Any:  # noqa: ANN401 - a JSON value
    """Return the JSON value of a file. The rules are stricter than those of `json.loads`, so the value can be printed and written again.

    Raises:
        ValueError: The content is not JSON, is nested too deeply, has a duplicate key, or has an unpaired surrogate in a string.
    """
    try:
        parsed = json.loads(content, object_pairs_hook=_unique_keys)
        json.dumps(parsed, ensure_ascii=False).encode()  # fails on unpaired surrogates, which cannot be printed
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return parsed


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a dictionary; raise ValueError for a duplicate key, of which parsers keep different values."""
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("an object has a duplicate key")
    return dict(pairs)


def load(cls: type[T], document: object) -> tuple[T | None, list[str]]:
    """Read a dataclass from JSON values.

    A class may have a static method `json_kinds(document)`. It returns field → type for fields whose type depends on the document, and may
    raise ValueError.

    Returns:
        The dataclass and an empty list, or None and every problem with its path in the document.
    """
    problems: list[str] = []
    value = _read(cls, document, "", problems)
    shown = [problem if problem.isprintable() else repr(problem)[1:-1] for problem in problems]  # a key may contain any character
    return (None, shown) if problems else (value, [])


def _read(kind: Any, value: Any, where: str, problems: list[str]) -> Any:  # noqa: ANN401
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if is_dataclass(kind):
        return _read_dataclass(kind, value, where, problems)
    if origin in (typing.Union, types.UnionType):
        if value is None and types.NoneType in arguments:
            return None
        unfit: list[str] = []
        for alternative in (a for a in arguments if a is not types.NoneType):
            before = len(unfit)
            read = _read(alternative, value, where, unfit)
            if len(unfit) == before:
                return read
        problems += unfit
        return None
    if origin is typing.Literal:
        if value not in arguments:
            problems.append(f"{where}: {value!r} is not one of {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            return _wrong(where, "a list", value, problems)
        if arguments[-1] is not Ellipsis and len(value) != len(arguments):
            return _wrong(where, f"a list of {len(arguments)}", value, problems)
        items = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(_read(item, v, f"{where}[{i}]", problems) for i, (item, v) in enumerate(zip(items, value, strict=True)))
    if origin in (dict, Mapping):
        if not isinstance(value, dict):
            return _wrong(where, "an object", value, problems)
        return {key: _read(arguments[1], v, f"{where}.{key}" if where else key, problems) for key, v in value.items()}
    if kind is Any or kind is object:
        return value
    if kind is float and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            return _wrong(where, "a float", value, problems)
    if type(value) is not kind:
        return _wrong(where, kind.__name__, value, problems)
    return value


def _read_dataclass(kind: Any, value: Any, where: str, problems: list[str]) -> Any:  # noqa: ANN401
    if not isinstance(value, dict):
        return _wrong(where, "an object", value, problems)
    known = {field.name: field for field in fields(kind)}
    prefix = f"{where}." if where else ""
    if unknown := sorted(set(value) - set(known)):
        problems.append(f"unknown {kind.__name__.lower()} field(s) {', '.join(prefix + u for u in unknown)}; known: {', '.join(known)}")
    required = {n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING}
    if missing := sorted(required - set(value)):
        problems.append(f"missing {', '.join(prefix + m for m in missing)}")
    hints, before = typing.get_type_hints(kind), len(problems)
    if hasattr(kind, "json_kinds"):
        try:
            hints |= kind.json_kinds(value)
        except ValueError as error:
            problems.append(f"{where or kind.__name__.lower()}: {error}")
            return None
    read = {name: _read(hints[name], value[name], f"{prefix}{name}", problems) for name in known if name in value}
    if unknown or missing or len(problems) > before:
        return None
    try:
        return kind(**read)
    except ValueError as error:  # checks across fields, in __post_init__
        problems.append(f"{where or kind.__name__.lower()}: {error}")
        return None


def _wrong(where: str, expected: str, value: object, problems: list[str]) -> None:
    problems.append(f"{where or 'document'}: expected {expected}, got {type(value).__name__}")
