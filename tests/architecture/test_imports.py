"""Who may import what: one table, which is the documentation and the check.

Three floors, and arrows only point down: `toolkit` (what a person types) → `exporters` (what runs on the build machine) → `runtimes`
(what ships to a device). Sources are parsed, not imported, so that a breach is found wherever it stands.
"""

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("runtimes", "exporters", "toolkit")


@dataclass(frozen=True)
class May:
    """What a module may import besides the standard library: dotted names, each with everything below it."""

    top: str
    """When it is imported itself."""
    later: str = ""
    """Besides, inside functions or for type checkers only."""


MAY_IMPORT = {
    # What ships to a device. Leaves first; only what is named after a runtime knows its library, and torch brings three more.
    "runtimes": May("runtimes numpy"),
    "runtimes.__init__": May("", later="runtimes.loading"),
    "runtimes.errors": May(""),
    "runtimes.document": May(""),
    "runtimes.memory": May(""),
    "runtimes.cgroups": May(""),
    "runtimes.host": May("runtimes.cgroups"),
    "runtimes.manifest": May("runtimes.document runtimes.errors"),
    "runtimes.atomic": May("runtimes.errors"),
    "runtimes.artifact": May("runtimes.errors runtimes.manifest"),
    "runtimes.payload": May("runtimes.artifact runtimes.errors runtimes.manifest"),
    "runtimes.archive_forms": May(""),
    "runtimes.archive": May("runtimes.archive_forms runtimes.atomic runtimes.errors runtimes.manifest"),
    "runtimes.damage": May("runtimes.artifact runtimes.graph runtimes.manifest runtimes.protobuf"),
    "runtimes.choice": May("runtimes.contract runtimes.host runtimes.manifest"),
    "runtimes.contract": May("runtimes.manifest"),
    "runtimes.protobuf": May(""),
    "runtimes.graph": May("runtimes.contract runtimes.errors runtimes.manifest runtimes.protobuf"),
    "runtimes.session": May("numpy"),
    "runtimes.matmul_graph": May("numpy"),
    "runtimes.saturation": May("runtimes.host numpy", later="runtimes.choice runtimes.matmul_graph onnxruntime"),
    "runtimes.readahead": May(""),
    "runtimes.images": May("runtimes.errors runtimes.manifest numpy PIL"),
    "runtimes.tokens": May("runtimes.errors runtimes.manifest tokenizers"),
    "runtimes.ort": May("runtimes numpy onnxruntime"),
    "runtimes.ort_graph": May("runtimes numpy onnxruntime"),
    "runtimes.pytorch": May("runtimes torch safetensors"),
    "runtimes.blip": May("runtimes.layers runtimes.manifest torch"),
    "runtimes.layers": May("torch"),
    "runtimes.tensors": May("torch"),
    "runtimes.int8": May("runtimes.errors torch"),
    # What runs on the build machine. The template, the recipes and the gate's verdict need none of the heavy libraries.
    "exporters": May("exporters runtimes numpy"),
    "exporters.recipes": May("runtimes.contract runtimes.document runtimes.errors runtimes.manifest"),
    "exporters.bootstrap": May("numpy"),
    "exporters.checkpoint": May("exporters runtimes torch safetensors transformers huggingface_hub PIL"),
    "exporters.writer": May("runtimes"),
    "exporters.resolution": May("runtimes.manifest torch"),
    "exporters.reference": May("exporters runtimes numpy torch transformers"),
    "exporters.pytorch_dynamic": May("exporters runtimes torch safetensors"),
    "exporters.onnx_graphs": May("exporters runtimes torch onnx"),
    "exporters.onnx_attention": May("runtimes torch"),
    "exporters.onnx_blocks": May("exporters numpy onnx"),
    "exporters.onnx_storage": May("exporters.writer runtimes numpy onnx onnxruntime"),
    "exporters.onnx_single": May("exporters.onnx_storage runtimes numpy onnx"),
    "exporters.onnx_dynamic": May("exporters runtimes numpy torch onnx onnxruntime optimum transformers"),
    # What a person types: nothing heavy before a command runs.
    "toolkit": May("toolkit exporters runtimes numpy"),
    "toolkit.logs": May(""),
    "toolkit.batch": May("toolkit.batch toolkit.logs runtimes"),
    "toolkit.cli": May("toolkit runtimes click"),
    "toolkit.progress": May("click"),
    "toolkit.commands": May("toolkit exporters runtimes click"),
    "toolkit.packaging": May("toolkit.packaging toolkit.bench runtimes"),
    "toolkit.packaging.goldens": May("runtimes numpy PIL"),
    "toolkit.bench": May("toolkit exporters runtimes numpy", later="psutil"),
    # The page: its text and its plots know of bench, bench knows nothing of them.
    "toolkit.report": May("toolkit.report toolkit.bench exporters.recipes runtimes"),
    "toolkit.report.page": May("toolkit.report toolkit.bench exporters.recipes jinja2"),
    "toolkit.report.thumbnails": May("toolkit.bench runtimes PIL"),
    "toolkit.report.labels": May(""),
    "toolkit.report.theme": May(""),
    "toolkit.report.svg": May("matplotlib"),
    "toolkit.report.axes": May("toolkit.report matplotlib"),
    "toolkit.report.bars": May("toolkit.report matplotlib"),
    "toolkit.report.pareto": May("toolkit.report toolkit.bench matplotlib"),
    "toolkit.report.spread": May("toolkit.report numpy"),
    "toolkit.report.throughput": May("toolkit.report toolkit.bench matplotlib"),
    "toolkit.compare": May("toolkit.compare toolkit.bench exporters runtimes numpy"),
    "toolkit.peers": May("toolkit.peers toolkit.bench exporters runtimes numpy"),
    "toolkit.peers.__main__": May("toolkit exporters runtimes click"),
    "toolkit.peers.catalogue": May("runtimes.errors"),
    "toolkit.peers.table": May("toolkit runtimes click"),
    "toolkit.peers.hf_variants": May("toolkit.peers exporters runtimes torch transformers"),
    "toolkit.peers.recompute_graphs": May("toolkit.peers exporters runtimes torch transformers"),
    "toolkit.peers.ort_engine": May("toolkit.peers runtimes numpy onnxruntime"),
    "toolkit.peers.openvino_engine": May("toolkit.peers runtimes numpy openvino"),
    "toolkit.peers.openvino_graphs": May("toolkit.peers runtimes openvino nncf"),
    "toolkit.doctor": May("toolkit.bench.child toolkit.doctor exporters.recipes runtimes"),
    "toolkit.doctor.engines_worker": May("toolkit.bench.answer toolkit.doctor runtimes", later="onnxruntime torch"),
    "toolkit.bench.ngrams": May("toolkit.bench runtimes", later="nltk"),
    "toolkit.bench.limits_worker": May("toolkit.bench runtimes numpy", later="onnxruntime"),
    "toolkit.bench.ort_trace": May("toolkit.bench runtimes onnxruntime"),
    "toolkit.bench.torch_trace": May("toolkit.bench runtimes", later="torch"),
    "toolkit.bench.evaluate_worker": May("", later="evaluate"),
}
"""Module prefix → what its modules may import; the longest prefix wins."""

HEAVY = {"torch", "transformers", "onnx", "optimum", "safetensors", "huggingface_hub", "datasets", "evaluate", "nltk", "openvino", "nncf"}
"""Libraries of seconds: nothing that `toolkit --help` or a light function imports may bring one, not even at third hand."""

LIGHT = ("toolkit", "exporters.base", "exporters.recipes", "exporters.bootstrap", "exporters.parity", "runtimes.loading")
"""Modules (prefixes) whose import must bring none of `HEAVY`."""

BY_NAME = "toolkit.peers.hf_variants toolkit.peers.recompute_graphs toolkit.peers.openvino_engine toolkit.peers.openvino_graphs"
"""Modules of `LIGHT` packages that stand in a catalogue as strings and are imported when their row runs: they may be heavy."""

APART = (
    ("runtimes.ort", "runtimes.pytorch"),
    ("runtimes.ort_single", "runtimes.pytorch"),
    ("runtimes.ort", "runtimes.ort_single"),
    ("runtimes.ort", "runtimes.blip"),
    ("runtimes.pytorch", "onnxruntime"),
)
"""Pairs that never reach each other, whatever the way and the time of the import."""

SHARED_BY_COMMANDS = "toolkit.commands.options"
"""Not a command itself; commands import no other of their kind."""

GUARDED = {("runtimes.atomic", "fcntl")}
"""Imports at module top that may fail: fcntl is not on Windows, and nothing but writers' locks needs it."""


@dataclass(frozen=True)
class Import:
    """One name that a module imports."""

    name: str
    line: int
    when: str
    """"top": with the module; "types": for type checkers; "later": in a function."""
    guarded: bool
    """Its failure is caught."""


def sources() -> dict[str, str]:
    """Dotted name of every module of the three packages → its source."""
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    return {".".join(file.relative_to(ROOT).with_suffix("").parts): file.read_text(encoding="utf-8") for file in files}


def imports(module: str, source: str, known: Mapping[str, str]) -> Iterator[Import]:
    """Every import of a source; `from package import name` means the module of that name where there is one."""

    def walk(node: ast.AST, when: str, guarded: bool) -> Iterator[Import]:
        found: list[str] = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found = [f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            found = [node.args[0].value] if called in ("import_module", "__import__") else []
        yield from (Import(name, getattr(node, "lineno", 0), when, guarded) for name in dict.fromkeys(found))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            when = "later"
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.body:
                yield from walk(child, "types" if when == "top" else when, guarded)
            for child in node.orelse:
                yield from walk(child, when, guarded)
            return
        elif isinstance(node, ast.Try):
            catches = any(
                handler.type is None or any(word in ast.unparse(handler.type) for word in ("ImportError", "ModuleNotFound", "Exception"))
                for handler in node.handlers
            )
            for child in ast.iter_child_nodes(node):
                yield from walk(child, when, guarded or (catches and child in node.body))
            return
        for child in ast.iter_child_nodes(node):
            yield from walk(child, when, guarded)

    yield from walk(ast.parse(source), "top", False)


def within(name: str, allowed: str) -> bool:
    return any(name == entry or name.startswith(f"{entry}.") for entry in allowed.split())


def breaches(module: str, source: str, known: Mapping[str, str]) -> list[str]:
    """What a module imports against the table, the floors and the commands' independence; one line each."""
    prefix = max((entry for entry in MAY_IMPORT if module == entry or module.startswith(f"{entry}.")), key=len)
    may = MAY_IMPORT[prefix]
    found = []
    for one in imports(module, source, known):
        if one.name.partition(".")[0] in sys.stdlib_module_names:
            continue
        allowed = may.top if one.when == "top" else f"{may.top} {may.later}"
        above = PACKAGES.index(one.name.partition(".")[0]) if one.name.partition(".")[0] in PACKAGES else -1
        if above > PACKAGES.index(module.partition(".")[0]):
            found.append(f"{module}:{one.line} imports {one.name}, which is above it")
        elif not within(one.name, allowed):
            too_early = " at module top" if one.when == "top" and within(one.name, may.later) else ""
            found.append(f"{module}:{one.line} imports {one.name}{too_early}; {prefix} may import: {allowed.strip()}")
        elif module.startswith("toolkit.commands.") and one.name.startswith("toolkit.commands.") and one.name != SHARED_BY_COMMANDS:
            found.append(f"{module}:{one.line} imports {one.name}: no command imports another")
    return found


def graph(known: Mapping[str, str], *, when: tuple[str, ...]) -> dict[str, set[str]]:
    """Module → what it imports at those times; a package stands for its `__init__`."""
    edges: dict[str, set[str]] = {}
    for module, source in known.items():
        names = {one.name for one in imports(module, source, known) if one.when in when}
        edges[module] = {f"{name}.__init__" if f"{name}.__init__" in known else name for name in names} - {module}
    return edges


def reached(start: str, edges: Mapping[str, set[str]]) -> dict[str, str]:
    """Everything a module's imports lead to → the way there."""
    ways = {start: start}
    queue = [start]
    while queue:
        here = queue.pop()
        for name in sorted(edges.get(here, ())):
            if name not in ways:
                ways[name] = f"{ways[here]} → {name}"
                queue.append(name)
    return ways


def cycles(edges: Mapping[str, set[str]]) -> list[str]:
    """Modules that lead back to themselves."""
    return sorted(module for module in edges if any(module in reached(name, edges) for name in edges[module] if name in edges))


KNOWN = sources()


@pytest.mark.parametrize("module", KNOWN)
def test_a_module_imports_only_what_the_table_allows(module):
    assert breaches(module, KNOWN[module], KNOWN) == []


def test_no_import_cycle():
    assert cycles(graph(KNOWN, when=("top", "types"))) == []


def test_nothing_light_brings_a_heavy_library():
    edges = graph(KNOWN, when=("top",))
    found = [
        way
        for module in KNOWN
        if within(module, " ".join(LIGHT)) and not within(module, BY_NAME)
        for name, way in reached(module, edges).items()
        if name.partition(".")[0] in HEAVY
    ]
    assert found == []


def test_runtimes_never_see_each_other():
    edges = graph(KNOWN, when=("top", "types", "later"))
    ways = [reached(start, edges) for pair in APART for start in pair]
    ends = [end for pair in APART for end in reversed(pair)]
    assert [way[end] for way, end in zip(ways, ends, strict=True) if end in way] == []


def test_the_device_knows_only_what_a_device_has():
    third_party = {
        one.name.partition(".")[0]
        for module, source in KNOWN.items()
        if module.startswith("runtimes.")
        and module not in ("runtimes.pytorch", "runtimes.blip", "runtimes.int8", "runtimes.layers", "runtimes.tensors")
        for one in imports(module, source, KNOWN)
    }
    assert third_party - sys.stdlib_module_names == {"runtimes", "numpy", "PIL", "tokenizers", "onnxruntime"}


def test_only_stated_imports_may_fail_at_module_top():
    found = [(module, one) for module, source in KNOWN.items() for one in imports(module, source, KNOWN)]
    assert {(module, one.name) for module, one in found if one.when == "top" and one.guarded} == GUARDED


@pytest.mark.parametrize("prefix", MAY_IMPORT)
def test_the_table_names_only_what_there_is(prefix):
    assert [module for module in KNOWN if within(module, prefix)] != []


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("runtimes.bad", "import exporters.base", "runtimes.bad:1 imports exporters.base, which is above it"),
        ("runtimes.bad", "\n\ndef f():\n    from exporters import base", "runtimes.bad:4 imports exporters.base, which is above it"),
        ("exporters.bad", "from toolkit.cli import main", "exporters.bad:1 imports toolkit.cli, which is above it"),
        ("runtimes.ort", "import torch", "runtimes.ort:1 imports torch; runtimes.ort may import: runtimes numpy onnxruntime"),
        (
            "runtimes.blip",
            "import transformers",
            "runtimes.blip:1 imports transformers; runtimes.blip may import: runtimes.layers runtimes.manifest torch",
        ),
        ("runtimes.session", "import torch as t", "runtimes.session:1 imports torch; runtimes.session may import: numpy"),
        ("runtimes.errors", "from . import host", "runtimes.errors:1 imports runtimes.host; runtimes.errors may import: "),
        ("exporters.bootstrap", "def f():\n    import onnx", "exporters.bootstrap:2 imports onnx; exporters.bootstrap may import: numpy"),
        ("runtimes.loading", "\nimportlib.import_module('torch')", "runtimes.loading:2 imports torch; runtimes may import: runtimes numpy"),
        ("toolkit.bench.evaluate_worker", "import evaluate", "toolkit.bench.evaluate_worker:1 imports evaluate at module top; "
         "toolkit.bench.evaluate_worker may import: "),
        ("toolkit.commands.one", "import toolkit.commands.two", "toolkit.commands.one:1 imports toolkit.commands.two: no command "
         "imports another"),
        ("toolkit.commands.one", "from toolkit.commands import options", None),
        ("toolkit.bench.evaluate_worker", "def f():\n    import evaluate", None),
        ("runtimes.generation", "import os, json, numpy", None),
    ],
)  # fmt: skip
def test_the_checker_finds_a_planted_breach(module, source, found):
    assert breaches(module, source, KNOWN) == ([] if found is None else [found])


def test_the_checker_finds_a_planted_cycle_and_guard():
    planted = {"a": "from b import x", "b": "import c", "c": "import a", "d": "import a", "e": "def f():\n    import e"}
    assert cycles(graph(planted, when=("top", "types"))) == ["a", "b", "c"]
    assert reached("d", graph(planted, when=("top",)))["c"] == "d → a → b → c"
    guarded = "try:\n    import torch\nexcept ImportError:\n    torch = None\ntry:\n    import json\nfinally:\n    pass\n"
    assert [(one.name, one.line, one.guarded) for one in imports("x", guarded, {})] == [("torch", 2, True), ("json", 6, False)]
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\nelse:\n    import json\n"
    assert [(one.name, one.when) for one in imports("x", typed, {})] == [("typing", "top"), ("torch", "types"), ("json", "top")]
