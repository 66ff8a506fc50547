"""What `describe` returns, as lines of text for a person."""

from collections.abc import Iterator, Mapping
from typing import Any


def render(found: Mapping[str, Any]) -> str:
    """Return aligned lines: a label, then its value."""
    rows = list(_checkpoint(found) if found["kind"] == "checkpoint" else _artifact(found))
    width = max(len(label) for label, _ in rows)
    return "".join(f"{label:{width}}  {value}\n" for label, value in rows if value)


def _artifact(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    target, source = found["target"], found["source"]
    yield found["kind"], found["name"]
    yield "digest", found["digest"]
    yield "task", f"{found['task']} ({found['family']})"
    yield "recipe", found["recipe"].get("name", "")
    yield "why", found["recipe"].get("why", "")
    yield "engine", f"{found['runtime']} {found['contract']}"
    yield "precision", target["precision"] + (", approximate" if target["approximate"] else "")
    yield "made for", ", ".join([target["device"], *target["cpu_features"]])
    yield "source", _words(source)
    yield "size", _megabytes(found["bytes"])
    if "archive_bytes" in found:
        yield "archive", _megabytes(found["archive_bytes"])
    for role, size in found["components"].items():
        yield f"  {role}", _megabytes(size)
    yield from _model(found)
    yield "defaults", _words(found["defaults"])
    yield "requires", _words(found["requires"])
    yield "gate", _words(found["gate"])
    for component, counts in found["applied"].items():
        yield f"quantized in {component}", _words(counts)
    for role, graph in found["graphs"].items():
        operators = sum(sum(counts.values()) for counts in graph["operators"].values())
        yield f"graph {role}", f"{', '.join(graph['inputs'])} → {', '.join(graph['outputs'])}; {operators} operators"
    yield "made by", f"toolkit {found['toolkit']}, schema {found['schema']}"


def _checkpoint(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "checkpoint", found["name"]
    yield "architecture", ", ".join(found["architectures"])
    yield "size", f"{_megabytes(found['bytes'])} in {', '.join(found['weight_files'])}"
    yield "parameters", f"{found['parameters']:,}" if found["parameters"] is not None else ""
    yield "dtype", _words(found["dtypes"])
    yield "head", {True: "tied to the word embeddings", False: "not tied to the word embeddings", None: ""}[found["tied"]]
    yield from _model(found)
    yield "decoding", _words(found["defaults"])


def _model(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "model", _words(found["model"])
    yield "image", _words(found["image"])


def _words(values: Mapping[str, Any]) -> str:
    """Write the short values of an object; longer ones are for `--json`."""
    return ", ".join(f"{key} {_word(value)}" for key, value in values.items() if _word(value))


def _word(value: object) -> str:
    if isinstance(value, dict) and len(value) < 4:
        return " ".join(f"{key} {each}" for key, each in value.items())
    if isinstance(value, list) and len(value) < 4:
        return "/".join(f"{each:.4g}" if isinstance(each, float) else str(each) for each in value)
    return str(value) if isinstance(value, (str, int, float)) else ""


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB"
