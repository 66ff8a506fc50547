"""Habits of the source tree that a machine can check: size, docstrings, names, registries, and what no source may contain.

Import rules are contracts of import-linter, and calls that run code from data are ruff's `S`; `make lint` runs both.
"""

import ast
import subprocess
import sys
import tomllib
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path

import pytest

from runtimes.engine_registry import ENGINES, load_target
from runtimes.families.signature import MATCHING, QUESTION, SINGLE, SPLIT
from tests.paths import ROOT
from toolkit.cli import COMMANDS
from toolkit.metrics.ngrams import COUNTERS

PACKAGES = ("runtimes", "exporters", "toolkit")
MAX_LINES = 300
LONG = {
    "runtimes/errors.py": "a table: one class per error code, so that codes are found in one place",
}
"""Longer modules, and why they are not divided. None has over 400 lines."""
MAX_MODULES = 16
"""In one folder; `commands` has one module per verb."""
NAMELESS = {"utils", "util", "helpers", "helper", "common", "misc", "tools", "base_utils"}
"""Names that do not describe the contents of a module."""

MACHINE_PATHS = tuple(f"/{folder}/" for folder in ("tmp", "work", "root", "home", "Users"))
UNTRUSTED_DATA = ("allow_pickle=True", "trust_remote_code=True")
"""Arguments that let a library run code from data; ruff has no rule for these two."""
SPEAKING_INIT = "runtimes/__init__.py"
"""The one `__init__` with code: it exports the public names, lazily."""


def texts(*places):
    """Path → text of every Python file below the folders, and of the files."""
    files = [file for place in places for file in (sorted((ROOT / place).rglob("*.py")) if (ROOT / place).is_dir() else [ROOT / place])]
    return {str(file.relative_to(ROOT)): file.read_text(encoding="utf-8") for file in files if file.exists()}


MODULES = texts(*PACKAGES)
TESTS = texts("tests")
SCRIPTS = texts("Makefile", "pyproject.toml", ".ci/run")
FOLDERS = {
    folder: [module for module in MODULES if module.rpartition("/")[0] == folder] for folder in {m.rpartition("/")[0] for m in MODULES}
}


def test_a_module_says_what_it_is():
    """Its docstring's first line is a sentence."""
    opened = {name: text.removeprefix('"""').partition('"""')[0].splitlines()[0] for name, text in {**MODULES, **TESTS}.items() if text}
    assert [name for name, summary in opened.items() if summary.rstrip()[-1:] not in (".", ":")] == []
    assert [name for name, text in {**MODULES, **TESTS}.items() if not text.startswith('"""')] == []


def test_a_module_is_short_and_named_for_what_it_holds():
    lines = {name: len(text.splitlines()) for name, text in MODULES.items()}
    assert {name for name, count in lines.items() if count > MAX_LINES} == set(LONG)
    assert max(lines.values()) <= 400
    assert [name for name in MODULES if Path(name).stem in NAMELESS] == []


def test_a_folder_holds_few_modules():
    counts = {folder: len(modules) - 1 for folder, modules in FOLDERS.items() if folder != "toolkit/commands"}  # without its __init__
    assert {folder: count for folder, count in counts.items() if count > MAX_MODULES} == {}


def test_every_folder_is_a_package_that_the_wheel_takes():
    """`packages.find` leaves out a folder without an `__init__.py`, and what its patterns do not name, without a word."""
    assert [folder for folder, modules in FOLDERS.items() if f"{folder}/__init__.py" not in modules] == []
    patterns = tomllib.loads(SCRIPTS["pyproject.toml"])["tool"]["setuptools"]["packages"]["find"]["include"]
    packages = [folder.replace("/", ".") for folder in FOLDERS]
    assert [package for package in packages if not any(fnmatchcase(package, pattern) for pattern in patterns)] == []


def test_no_library_runs_code_from_data():
    assert [(name, option) for name, text in MODULES.items() for option in UNTRUSTED_DATA if option in text] == []


def test_an_init_holds_a_docstring_only():
    inits = {name: ast.parse(text) for name, text in MODULES.items() if name.endswith("__init__.py") and name != SPEAKING_INIT}
    assert [name for name, tree in inits.items() if len(tree.body) != 1 or ast.get_docstring(tree) is None] == []


def test_no_path_of_somebodys_machine():
    matches = [
        f"{name}:{number}: {line.strip()}"
        for name, text in {**MODULES, **TESTS, **SCRIPTS}.items()
        for number, line in enumerate(text.splitlines(), 1)
        if any(path in line for path in MACHINE_PATHS)
    ]
    assert matches == []


TARGETS = [target for engine in ENGINES.values() for target in (*engine.sessions.values(), engine.probe, engine.profiler) if target]


@pytest.mark.slow  # imports torch
@pytest.mark.parametrize("target", TARGETS)
def test_a_target_of_the_registry_is_there(target):
    matches = load_target(target)
    assert callable(matches)
    assert matches.__module__ == target.partition(":")[0]


def test_the_registry_names_known_contracts():
    assert {contract for engine in ENGINES.values() for contract in engine.sessions} == {SPLIT, SINGLE, QUESTION, MATCHING}


@pytest.mark.slow  # imports torch and transformers
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


def test_the_help_of_a_command_starts_with_the_text_of_the_table():
    commands = {name: import_module(module).command for name, (module, _) in COMMANDS.items()}
    assert {name: (command.help.partition("\n")[0], command.get_short_help_str(limit=200)) for name, command in commands.items()} == {
        name: (text, text) for name, (_, text) in COMMANDS.items()
    }


def test_every_command_is_in_the_table():
    files = {file.stem for file in (ROOT / "toolkit/commands").glob("*.py")} - {"__init__", "options", "model_options", "artifact_argument"}
    assert files == {module.rpartition(".")[2] for module, _ in COMMANDS.values()}


@pytest.mark.slow  # collects every fast test
@pytest.mark.full
def test_collecting_the_fast_tests_imports_no_model_library():
    """Such an import takes longer than all of them; `SLOW_IMPORTS` of tests/conftest.py names what leads to one."""
    collect = "import pytest, sys; code = pytest.main(['-m', 'fast', '--collect-only', '-q', '-p', 'no:cacheprovider', 'tests'])\n"
    collect += "print(); print(code, *sorted({'torch', 'transformers', 'optimum'} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", collect], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ended.stdout.splitlines()[-1] == "0"


def test_published_records_name_no_path_of_a_machine():
    """A record names its checkpoint as the user typed it."""
    files = sorted(file for file in (ROOT / "tests" / "golden" / "published").rglob("*.json*"))
    assert len(files) > 15
    assert [(file.name, path) for file in files for path in MACHINE_PATHS if f'"{path}' in file.read_text(encoding="utf-8")] == []
