"""Habits of the source tree that a machine can check: size, docstrings, names, registries, and what no source may contain."""

import ast
from importlib import import_module

import pytest

from runtimes.artifact.graph_signature import SINGLE, SPLIT
from runtimes.engine_registry import ENGINES, load_target
from tests.paths import ROOT
from toolkit.cli import COMMANDS
from toolkit.metrics.ngrams import COUNTERS

PACKAGES = ("runtimes", "exporters", "toolkit")
MOST_LINES = 400
NAMELESS = {"utils", "util", "helpers", "helper", "common", "misc", "tools", "base_utils"}
"""Names that say nothing of what a module holds."""

MODULES = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
TESTS = sorted((ROOT / "tests").rglob("*.py"))
SCRIPTS = [file for name in ("Makefile", "pyproject.toml", ".ci/run") for file in (ROOT / name,) if file.exists()]
MACHINE_PATHS = tuple(f"/{folder}/" for folder in ("tmp", "work", "root", "home", "Users"))
SPEAKING_INIT = "runtimes/__init__.py"
"""The one `__init__` with code: the lazy `load`, which is what users type."""


def relative(file):
    return str(file.relative_to(ROOT))


def dangers(source: str) -> list[str]:
    """Calls that run code from data, and imports that are there for it."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if name == "torch.load" and options.get("weights_only") != "True":
                found.append(f"{node.lineno}: torch.load without weights_only=True")
            if name in ("eval", "exec", "os.system") or options.get("shell") == "True":
                found.append(f"{node.lineno}: {name}")
            found += [f"{node.lineno}: {option}=True" for option in ("trust_remote_code", "allow_pickle") if options.get(option) == "True"]
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [
                f"{node.lineno}: import {name}" for name in names if name in ("pickle", "cPickle", "dill", "joblib", "shelve", "marshal")
            ]
    return found


@pytest.mark.parametrize("file", [*MODULES, *TESTS], ids=relative)
def test_a_module_says_what_it_is(file):
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    assert docstring, f"{relative(file)} has no docstring"
    assert docstring.splitlines()[0].rstrip()[-1] in ".:", "its first line is a sentence"


@pytest.mark.parametrize("file", MODULES, ids=relative)
def test_a_module_is_short_and_named_for_what_it_holds(file):
    assert len(file.read_text(encoding="utf-8").splitlines()) <= MOST_LINES
    assert file.stem not in NAMELESS


@pytest.mark.parametrize("file", [file for file in MODULES if file.name == "__init__.py" and relative(file) != SPEAKING_INIT], ids=relative)
def test_an_init_holds_a_docstring_only(file):
    (only,) = ast.parse(file.read_text(encoding="utf-8")).body
    assert ast.unparse(only).strip("'\"") == ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")), clean=False)


@pytest.mark.parametrize("file", [*MODULES, *TESTS, *SCRIPTS], ids=relative)
def test_no_path_of_somebodys_machine(file):
    found = [
        f"{number}: {line.strip()}"
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if any(path in line for path in MACHINE_PATHS)
    ]
    assert found == []


@pytest.mark.parametrize("file", MODULES, ids=relative)
def test_no_data_is_run_as_code(file):
    assert dangers(file.read_text(encoding="utf-8")) == []


def test_a_planted_danger_is_found():
    planted = (
        "import pickle\ntorch.load(f)\ntorch.load(f, weights_only=True)\nnp.load(f, allow_pickle=True)\nA.get(trust_remote_code=True)\n"
    )
    assert dangers(planted) == [
        "1: import pickle",
        "2: torch.load without weights_only=True",
        "4: allow_pickle=True",
        "5: trust_remote_code=True",
    ]


SESSIONS = [(contract, target) for engine in ENGINES.values() for contract, target in engine.sessions.items()]


@pytest.mark.parametrize(("contract", "target"), SESSIONS)
def test_a_session_of_the_registry_is_one(contract, target):
    session = load_target(target)
    methods = {SPLIT: ("encode", "step", "select"), SINGLE: ("caption",)}[contract]
    assert [method for method in ("open", *methods, "describe") if not callable(getattr(session, method, None))] == []
    assert session.__module__ == target.partition(":")[0]


@pytest.mark.parametrize("engine", ENGINES.values(), ids=lambda engine: engine.name)
def test_a_builder_of_the_registry_builds_and_names_what_runs_it(engine):
    builder = import_module(engine.builder)
    assert builder.build.__module__ == engine.builder
    assert set(builder.REQUIRES) == {engine.library}
    assert engine.distributions[0] == engine.library


@pytest.mark.parametrize(("name", "target"), COUNTERS.items())
def test_a_counter_is_there(name, target):
    module, _, function = target.partition(":")
    assert getattr(import_module(module), function).__qualname__ == function, name


@pytest.mark.parametrize(("name", "entry"), COMMANDS.items())
def test_a_command_says_what_the_table_says(name, entry):
    module, text = entry
    command = import_module(module).command
    assert command.help == text, name
    assert command.get_short_help_str(limit=200) == text


def test_every_command_is_in_the_table():
    files = {file.stem for file in (ROOT / "toolkit/commands").glob("*.py")} - {"__init__", "options"}
    assert files == {module.rpartition(".")[2] for module, _ in COMMANDS.values()}
