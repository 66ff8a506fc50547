"""Generated reference: the command line, error codes, recipes, providers, measures and fields of files, from the code that defines them."""

import ast
import inspect
import json
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, Field, fields
from importlib import import_module
from pathlib import Path
from types import ModuleType

from click.testing import CliRunner

from exporters.recipe import DEFAULT, Recipe
from exporters.recipes import DEPLOYABLE, RECIPES
from runtimes import errors
from runtimes.engine_registry import load_target
from runtimes.engines.ort.providers import PROVIDERS
from runtimes.errors import ToolkitError
from tests.docs.pages import Renderer
from toolkit.cli import COMMANDS, main
from toolkit.serve import errors as http_errors


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [titles, ["---"] * len(titles), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def commands(_: str, __: Path) -> str:
    """Return what `toolkit --help` and every command's --help print, 80 columns wide."""
    parts = []
    for call in ([], *([name] for name in COMMANDS)):
        text = CliRunner().invoke(main, [*call, "--help"], prog_name="toolkit", terminal_width=80).output
        parts.append(f"## {' '.join(['toolkit', *call])}\n\n```text\n{text}```\n")
    return "\n" + "\n".join(parts) + "\n"


def error_codes(_: str, __: Path) -> str:
    """Return code, exception and meaning of every error of the library, in the order of their module."""
    return table(
        ("code", "class, and what it also is", "meaning"),
        ((f"`{kind.code}`", f"`{kind.__name__}`, `{kind.__bases__[1].__name__}`", _summary(kind)) for kind in _errors_of(errors)),
    )


def http_codes(_: str, __: Path) -> str:
    """Return code, HTTP status and meaning of every error that only the server reports."""
    return table(
        ("code", "HTTP status", "meaning"),
        ((f"`{kind.code}`", str(http_errors.status_of(kind.code)), _summary(kind)) for kind in _errors_of(http_errors)),
    )


def http_status(_: str, __: Path) -> str:
    """Return the HTTP status of each code."""
    own = {kind.code for kind in _errors_of(http_errors)}
    rows = [(f"`{code}`", str(status)) for code, status in http_errors.STATUS.items() if code not in own]
    return table(("code", "HTTP status"), [*rows, ("any other", str(http_errors.status_of("")))])


def _errors_of(module: ModuleType) -> list[type[ToolkitError]]:
    """Return the errors that a module defines, in its order."""
    kinds = [kind for _, kind in inspect.getmembers(module, inspect.isclass) if kind.__module__ == module.__name__]
    return sorted(
        (kind for kind in kinds if issubclass(kind, ToolkitError) and kind.code), key=lambda kind: inspect.getsourcelines(kind)[1]
    )


def recipes(_: str, __: Path) -> str:
    """Return the shipped recipes."""
    return table(
        ("recipe", "default", "weights", "gate", "purpose"),
        ((f"`{each.name}`", "yes" if each.name in DEPLOYABLE else "", _weights(each), _gate(each), each.why) for each in RECIPES),
    )


def _weights(recipe: Recipe) -> str:
    parts = [
        f"{name}: {part.weights}{f' in blocks of {part.block_size}' if part.block_size else ''}"
        f"{', 7 bits' * part.reduce_range}{', smoothed' * bool(part.smooth)}"
        for name, part in recipe.components.items()
    ]
    return "; ".join(parts).replace(f"{DEFAULT}: ", "") or "fp32"


def _gate(recipe: Recipe) -> str:
    return "equal ids" if recipe.drift_limit_nat is None else f"drift < {recipe.drift_limit_nat:g} nat/token"


def providers(_: str, __: Path) -> str:
    """Return the execution providers."""
    return table(
        ("`--device`", "provider", "package", "needs", "status"),
        ((f"`{name}`", each.name, f"`{each.distribution}`", each.needs, each.status) for name, each in PROVIDERS.items()),
    )


def measures(_: str, __: Path) -> str:
    """Return the measures of `toolkit compare`."""
    from toolkit.compare.measures import MEASURES

    return table(
        ("measure", "shown as"), ((f"`{each.key}`", each.title if each.shown else f"{each.title} (JSON only)") for each in MEASURES)
    )


def settings(target: str, _: Path) -> str:
    """Return the fields of a dataclass that users write, with their defaults and docstrings."""
    return dataclass_fields(target, _, with_defaults=True)


def dataclass_fields(target: str, _: Path, *, with_defaults: bool = False) -> str:
    """Return the fields of a dataclass and its bases, with their docstrings."""
    kind = load_target(target)
    tree = ast.parse(inspect.getsource(import_module(kind.__module__)))
    bodies = {node.name: node.body for node in tree.body if isinstance(node, ast.ClassDef)}
    body = [node for base in reversed(kind.__mro__) for node in bodies.get(base.__name__, [])]
    names = [field.name for field in fields(kind)]
    defaults = {field.name: _default(field) for field in fields(kind)}
    rows = []
    for node, after in zip(body, [*body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name) or node.target.id not in names:
            continue
        documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        assert documented, f"{target}: {node.target.id} has no docstring"
        text = str(after.value.value)  # type: ignore[union-attr]
        default = [defaults[node.target.id]] * with_defaults
        rows.append((f"`{node.target.id}`", f"`{ast.unparse(node.annotation)}`", *default, " ".join(text.split())))
    assert [row[0].strip("`") for row in rows] == names, target
    return table(("field", "type", *["default"] * with_defaults, "meaning"), rows)


def _default(field: Field[object]) -> str:
    """Return the default of a field as JSON; empty for a required field."""
    if field.default_factory is not MISSING:
        return f"`{json.dumps(field.default_factory())}`"
    return "" if field.default is MISSING else f"`{json.dumps(field.default)}`"


def _summary(kind: type) -> str:
    return (inspect.getdoc(kind) or "").splitlines()[0]


RENDERERS: dict[str, Renderer] = {
    "cli": commands,
    "errors": error_codes,
    "http-codes": http_codes,
    "http-status": http_status,
    "recipes": recipes,
    "providers": providers,
    "measures": measures,
    "fields": dataclass_fields,
    "settings": settings,
}
