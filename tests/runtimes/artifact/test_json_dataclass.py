"""`json_dataclass`: dataclasses to JSON and back, with strict checks and a path for every problem."""

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from runtimes.artifact import json_dataclass


@dataclass(frozen=True, kw_only=True)
class Leaf:
    size: int
    ratio: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Tree:
    name: str
    leaf: Leaf
    kind: Literal["oak", "ash"] = "oak"
    note: str | None = None
    leaves: dict[str, Leaf] = field(default_factory=dict)
    pair: tuple[int, int] = (0, 0)
    rings: tuple[float, ...] = ()
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    anything: Any = None
    height: Literal["auto"] | float | None = None

    def __post_init__(self):
        if self.pair[0] > self.pair[1]:
            raise ValueError("pair must rise")


FULL = Tree(
    name="ä",
    leaf=Leaf(size=3, ratio=0.1),
    kind="ash",
    note="n",
    leaves={"a": Leaf(size=1), "b": Leaf(size=2)},
    pair=(1, 2),
    rings=(0.5, 1.5),
    counts={"x": {"y": 1}},
    anything={"deep": [1, None, {"k": True}]},
    height="auto",
)


def read(**changes):
    return json_dataclass.load(Tree, {"name": "t", "leaf": {"size": 1}, **changes})


def test_dump_and_load():
    plain = json_dataclass.dump(FULL)
    assert plain == {
        "name": "ä",
        "leaf": {"size": 3, "ratio": 0.1},
        "kind": "ash",
        "note": "n",
        "leaves": {"a": {"size": 1, "ratio": 0.5}, "b": {"size": 2, "ratio": 0.5}},
        "pair": [1, 2],
        "rings": [0.5, 1.5],
        "counts": {"x": {"y": 1}},
        "anything": {"deep": [1, None, {"k": True}]},
        "height": "auto",
    }
    assert json_dataclass.load(Tree, plain) == (FULL, [])


def test_defaults_and_integers_for_float_fields():
    tree, problems = read(leaf={"size": 1, "ratio": 2}, rings=[1, 2.5])
    assert (tree, problems) == (Tree(name="t", leaf=Leaf(size=1, ratio=2.0), rings=(1.0, 2.5)), [])
    assert [type(value) for value in (tree.leaf.ratio, *tree.rings)] == [float] * 3


@pytest.mark.parametrize(("value", "height"), [("auto", "auto"), (2, 2.0), (0.5, 0.5), (None, None)])
def test_a_field_of_several_types_takes_a_value_of_each(value, height):
    tree, problems = read(height=value)
    assert (tree.height, type(tree.height), problems) == (height, type(height), [])


def test_a_value_of_none_of_several_types_has_a_problem_for_each():
    assert read(height="tall") == (None, ["height: 'tall' is not one of 'auto'", "height: expected float, got str"])


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"name": 1}, "name: expected str, got int"),
        ({"name": None}, "name: expected str, got NoneType"),
        ({"leaf": []}, "leaf: expected an object, got list"),
        ({"leaf": {"size": True}}, "leaf.size: expected int, got bool"),
        ({"leaf": {"size": 1.0}}, "leaf.size: expected int, got float"),
        ({"leaf": {"size": 1, "ratio": True}}, "leaf.ratio: expected float, got bool"),
        ({"leaf": {"size": 1, "ratio": "1"}}, "leaf.ratio: expected float, got str"),
        ({"leaf": {"size": 1, "ratio": 10**400}}, "leaf.ratio: expected a float, got int"),
        ({"leaf": {}}, "missing leaf.size"),
        ({"leaf": {"size": 1, "sise": 2}}, "unknown leaf field(s) leaf.sise; known: size, ratio"),
        ({"kind": "elm"}, "kind: 'elm' is not one of 'oak', 'ash'"),
        ({"kind": ["oak"]}, "kind: ['oak'] is not one of 'oak', 'ash'"),
        ({"note": 3}, "note: expected str, got int"),
        ({"leaves": [1]}, "leaves: expected an object, got list"),
        ({"leaves": {"a": None}}, "leaves.a: expected an object, got NoneType"),
        ({"pair": [1]}, "pair: expected a list of 2, got list"),
        ({"pair": "ab"}, "pair: expected a list, got str"),
        ({"pair": [1, "2"]}, "pair[1]: expected int, got str"),
        ({"rings": [0.5, None]}, "rings[1]: expected float, got NoneType"),
        ({"counts": {"x": {"y": 1.5}}}, "counts.x.y: expected int, got float"),
        ({"pair": [2, 1]}, "tree: pair must rise"),
        ({"a\nb": 1}, "unknown tree field(s) a\\nb; known: name, leaf, kind, note, leaves, pair, rings, counts, anything, height"),
    ],
)
def test_a_problem_has_its_path(changes, problem):
    assert read(**changes) == (None, [problem])


def test_all_problems_are_reported_at_once():
    assert json_dataclass.load(Tree, {"leaf": {"ratio": "x"}, "pair": [1.0, 2], "colour": 1, "smell": 2}) == (
        None,
        [
            "unknown tree field(s) colour, smell; known: name, leaf, kind, note, leaves, pair, rings, counts, anything, height",
            "missing name",
            "missing leaf.size",
            "leaf.ratio: expected float, got str",
            "pair[0]: expected int, got float",
        ],
    )


@pytest.mark.parametrize("other", [None, [], "x", 1, True])
def test_a_value_that_is_not_an_object(other):
    assert json_dataclass.load(Tree, other) == (None, [f"document: expected an object, got {type(other).__name__}"])


def test_canonical_json_does_not_depend_on_the_order_of_keys():
    assert (
        json_dataclass.canonical_json({"b": [1, 2.5, None], "a": {"d": "ü", "c": True}})
        == '{"a":{"c":true,"d":"ü"},"b":[1,2.5,null]}'.encode()
    )
    assert json_dataclass.canonical_json({"a": 1, "b": 2}) == json_dataclass.canonical_json({"b": 2, "a": 1})
    assert json_dataclass.canonical_json([1, 2]) != json_dataclass.canonical_json([2, 1])
