"""The INT8 self-test on this CPU, and its consequences for every shipped recipe on each kind of CPU."""

import subprocess
import sys

import pytest

from exporters.recipe import Component, Recipe
from exporters.recipes import RECIPES
from runtimes.engines.offer import Int8SelfTest
from runtimes.engines.ort.int8_selftest import run_int8_selftest
from runtimes.host.facts import Host, read_host
from runtimes.selection.fitness import CpuProblem, check_cpu, drop_incorrect, int8_selftest_for
from tests.paths import ROOT
from tests.runtimes.selection.test_ranking import manifest

RIGHT = Int8SelfTest(expected=2_072_640, actual=2_072_640)
SATURATED = Int8SelfTest(expected=2_072_640, actual=1_048_544)
"""Expected: 64 products of 255·127. With saturation: 32 pairs, each 32,767."""

TUNED = {"onnx-int8-full"}


SHIPPED = {recipe.name: manifest(recipe) for recipe in RECIPES}


def host(*features):
    return Host(cpu="c", machine="m", cpu_features=frozenset(features), cores=2, libraries=frozenset({"ort"}), cuda=False)


def test_the_self_test_matches_the_features_of_this_cpu():
    """AVX2 and AVX-512 without VNNI add pairs in 16 bits; VNNI and ARM in 32."""
    features = read_host().cpu_features
    assert run_int8_selftest() == (SATURATED if "avx2" in features and "vnni" not in features else RIGHT)


def test_full_range_weights_are_those_of_the_tuned_recipe():
    assert {name for name, shipped in SHIPPED.items() if shipped.target.full_range} == TUNED


@pytest.mark.parametrize(
    ("encoder", "full"),
    [
        (Component(weights="qint8", per_channel=True), True),
        (Component(weights="qint8"), True),
        (Component(weights="qint8", reduce_range=True), False),
        (Component(weights="quint8"), False),
        (Component(weights="qint8", block_size=32), False),
        (Component(), False),
    ],
)
def test_a_custom_recipe_is_checked_by_its_weights(encoder, full):
    """The recipe does not name CPU features."""
    own = manifest(Recipe(name="own", runtime="ort", why="w", components={"encoder": encoder}, drift_limit_nat=1.0))
    assert own.target.full_range is full
    problem = check_cpu(own, host("avx2"), SATURATED)
    assert (problem is not None and problem.wrong) is full


@pytest.mark.parametrize(
    ("recipe", "features", "product", "expected"),
    [
        ("onnx-int8-full", ("avx2", "vnni"), RIGHT, None),
        ("onnx-int8-full", ("dotprod",), RIGHT, None),
        ("onnx-int8", ("avx2",), SATURATED, None),
        ("onnx-fp32", (), None, None),
        (
            "onnx-int8-full",
            ("avx2",),
            SATURATED,
            CpuProblem(
                wrong=True,
                why="is tuned for CPUs with vnni or dotprod, which this one lacks; integer products saturate here (1,048,544 where "
                "2,072,640 is right): its captions may be wrong here",
            ),
        ),
        (
            "onnx-int8-full",
            ("avx2", "vnni"),
            SATURATED,  # an emulator that shows the flags of its host
            CpuProblem(
                wrong=True,
                why="has weights of full range, and integer products saturate here (1,048,544 where 2,072,640 is right): "
                "its captions may be wrong here",
            ),
        ),
        (
            "onnx-int8-full",
            ("avx2",),
            RIGHT,  # a CPU that hides its flags
            CpuProblem(
                wrong=False,
                why="is tuned for CPUs with vnni or dotprod, which this one lacks; its products are right here, but may be slow",
            ),
        ),
        (
            "onnx-int8-full",
            ("avx2",),
            None,
            CpuProblem(wrong=False, why="is tuned for CPUs with vnni or dotprod, which this one lacks; it may be wrong or slow here"),
        ),
    ],
)
def test_check_cpu(recipe, features, product, expected):
    assert check_cpu(SHIPPED[recipe], host(*features), product) == expected


def test_artifacts_with_wrong_products_are_dropped_regardless_of_flags():
    assert set(drop_incorrect(SHIPPED, host("avx2", "vnni"), SATURATED)) == set(SHIPPED) - TUNED
    assert drop_incorrect(SHIPPED, host("avx2", "vnni"), RIGHT) == SHIPPED


def test_the_self_test_runs_only_for_weights_of_full_range():
    assert int8_selftest_for([SHIPPED["onnx-int8"], SHIPPED["pytorch-int8"]]) is None
    assert int8_selftest_for([SHIPPED["onnx-int8"], SHIPPED["onnx-int8-full"]]) == run_int8_selftest()


def test_without_onnxruntime_there_is_no_self_test():
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.modules['onnxruntime'] = None\n"
    script += (
        "from exporters.recipes import RECIPES\nfrom runtimes.selection.fitness import int8_selftest_for\nprint(int8_selftest_for(RECIPES))"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "None\n"
