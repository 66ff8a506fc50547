"""Habits of the source tree that a machine can check: size, docstrings, names, registries, and what no source may contain.

Import rules are contracts of import-linter, and calls that run code from data are ruff's `S`; `make lint` runs both.
"""

import ast
import tomllib
from fnmatch import fnmatchcase
from importlib import import_module

import pytest

from runtimes.artifact.graph_signature import SINGLE, SPLIT
from runtimes.engine_registry import ENGINES, load_target
from tests.paths import ROOT
from toolkit.cli import COMMANDS
from toolkit.metrics.ngrams import COUNTERS

PACKAGES = ("runtimes", "exporters", "toolkit")
MOST_LINES = 400
MOST_MODULES = 16
"""In one folder; `commands` has one module per verb."""
NAMELESS = {"utils", "util", "helpers", "helper", "common", "misc", "tools", "base_utils"}
"""Names that say nothing of what a module holds."""

MODULES = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
TESTS = sorted((ROOT / "tests").rglob("*.py"))
SCRIPTS = [file for name in ("Makefile", "pyproject.toml", ".ci/run") for file in (ROOT / name,) if file.exists()]
MACHINE_PATHS = tuple(f"/{folder}/" for folder in ("tmp", "work", "root", "home", "Users"))
UNTRUSTED_DATA = ("allow_pickle=True", "trust_remote_code=True")
"""Arguments that let a library run code from data; ruff has no rule for these two."""
SPEAKING_INIT = "runtimes/__init__.py"
"""The one `__init__` with code: it exports the public names, lazily."""
FOLDERS = sorted({file.parent for file in MODULES} - {ROOT / "toolkit" / "commands"})


def relative(file):
    return str(file.relative_to(ROOT))


@pytest.mark.parametrize("file", [*MODULES, *TESTS], ids=relative)
def test_a_module_says_what_it_is(file):
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    assert docstring, f"{relative(file)} has no docstring"
    assert docstring.splitlines()[0].rstrip()[-1] in ".:", "its first line is a sentence"


@pytest.mark.parametrize("file", MODULES, ids=relative)
def test_a_module_is_short_and_named_for_what_it_holds(file):
    assert len(file.read_text(encoding="utf-8").splitlines()) <= MOST_LINES
    assert file.stem not in NAMELESS


@pytest.mark.parametrize("folder", FOLDERS, ids=relative)
def test_a_folder_holds_few_modules(folder):
    assert len([file for file in folder.glob("*.py") if file.name != "__init__.py"]) <= MOST_MODULES


def test_every_folder_is_a_package_that_the_wheel_takes():
    """`packages.find` leaves out a folder without an `__init__.py`, and what its patterns do not name, without a word."""
    assert [relative(folder) for folder in {file.parent for file in MODULES} if not (folder / "__init__.py").is_file()] == []
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]["find"]["include"]
    packages = {".".join(file.parent.relative_to(ROOT).parts) for file in MODULES}
    assert {package for package in packages if not any(fnmatchcase(package, pattern) for pattern in patterns)} == set()


@pytest.mark.parametrize("file", MODULES, ids=relative)
def test_no_library_runs_code_from_data(file):
    assert [option for option in UNTRUSTED_DATA if option in file.read_text(encoding="utf-8")] == []


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
