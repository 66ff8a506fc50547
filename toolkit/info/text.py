"""Render the result of `describe` as lines of text."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any


def render(description: Mapping[str, Any]) -> str:
    """Return aligned lines: a label, then its value."""
    rows = list(_checkpoint(description) if description["kind"] == "checkpoint" else _artifact(description))
    width = max(len(label) for label, _ in rows)
    return "".join(f"{label:{width}}  {value}\n" for label, value in rows if value)


def _artifact(description: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    target, source = description["target"], description["source"]
    yield description["kind"], description["name"]
    yield "digest", description["digest"]
    yield "task", f"{description['task']} ({description['family']})"
    yield "recipe", description["recipe"].get("name", "")
    yield "why", description["recipe"].get("why", "")
    yield "engine", f"{description['runtime']} {description['contract']}"
    yield "precision", target["precision"] + (", approximate" if target["approximate"] else "")
    yield "target", ", ".join([target["device"], *target["cpu_features"]])
    yield "source", _words(source)
    yield "size", _megabytes(description["bytes"])
    if "archive_bytes" in description:
        yield "archive", _megabytes(description["archive_bytes"])
    for role, size in description["components"].items():
        yield f"  {role}", _megabytes(size)
    yield from _model(description)
    yield "defaults", _words(description["defaults"])
    yield "requires", _words(description["requires"])
    yield "gate", _words(description["gate"])
    if isinstance(drafts := description["optional"].get("drafts"), dict):  # nothing else checks the optional part of a manifest
        yield "drafts", _words(drafts)
    for component, counts in description["applied"].items():
        yield f"quantized in {component}", _words(counts)
    yield from _smoothing(description["optional"].get("smoothing"))
    for role, graph in description["graphs"].items():
        operators = sum(sum(counts.values()) for counts in graph["operators"].values())
        yield f"graph {role}", f"{', '.join(graph['inputs'])} → {', '.join(graph['outputs'])}; {operators} operators"
    yield "exported by", f"toolkit {description['toolkit']}, schema {description['schema']}"


def _smoothing(smoothing: object) -> Iterator[tuple[str, str]]:
    """Count the layers per alpha. Readers check nothing within `optional`, so other values are left to `--json`."""
    alphas = smoothing.get("alphas") if isinstance(smoothing, dict) else None
    if isinstance(alphas, dict):
        layers = Counter(alpha for alpha in alphas.values() if isinstance(alpha, (int, float)))
        yield "smoothed layers", ", ".join(f"{count} with alpha {alpha:.4g}" for alpha, count in sorted(layers.items()))


def _checkpoint(description: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "checkpoint", description["name"]
    yield "architecture", ", ".join(description["architectures"])
    yield "family", description["family"] or "none that is supported"
    yield "size", f"{_megabytes(description['bytes'])} in {', '.join(description['weight_files'])}"
    yield "parameters", f"{description['parameters']:,}" if description["parameters"] is not None else ""
    yield "dtype", _words(description["dtypes"])
    heads = {
        True: "tied to the word embeddings",
        False: "not tied to the word embeddings",
        None: "unknown, because torch is not installed or there are no weights",
    }
    if not (description["family"] or "").endswith(" matching"):  # its head has no words
        yield "head", heads[description["tied"]]
    if adapter := description.get("adapter"):
        targets = adapter["target_modules"]
        names = ", ".join(targets) if isinstance(targets, list) else targets or "its own layers"
        yield "adapter", f"{adapter['type']}, rank {adapter['rank']}, of {adapter['base'] or 'an unnamed model'}; changes {names}"
    yield "export", description.get("export", "")
    yield from _model(description)
    yield "decoding", _words(description["defaults"])
    for label in ("ignored", "refused"):
        for reason in description[label]:
            yield label, reason


def _model(description: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "model", _words(description["model"])
    yield "image", _words(description["image"])


def _words(values: Mapping[str, Any]) -> str:
    """Return the short values of an object as text; long ones are shown with `--json` only."""
    return ", ".join(f"{key} {_word(value)}" for key, value in values.items() if _word(value))


def _word(value: object) -> str:
    if isinstance(value, dict) and len(value) < 4:
        return " ".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, list) and len(value) < 4:
        return "/".join(f"{item:.4g}" if isinstance(item, float) else str(item) for item in value)
    return str(value) if isinstance(value, (str, int, float)) else ""


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB"
