"""`toolkit bench --profile` on tiny artifacts: times of stages and operators, and failed cases."""

import json
import shutil

import pytest
from click.testing import CliRunner

from toolkit.cli import main

pytestmark = pytest.mark.full  # exports or benchmarks of its own, half a minute

RECIPES = ("onnx-int8", "onnx-int4", "pytorch-int8", "pytorch-fp32")


def run(*arguments):
    return CliRunner().invoke(main, ["bench", *map(str, arguments)], prog_name="toolkit")


@pytest.fixture(scope="module")
def folder(drawn_images, tmp_path_factory):
    """A folder with two images and a text file between them."""
    made = tmp_path_factory.mktemp("images")
    for name, image in zip("ac", drawn_images, strict=False):
        shutil.copy(image.path, made / f"{name}.png")
    (made / "b.png").write_bytes(b"no image")
    return made


@pytest.fixture(scope="module")
def profiled(tiny_artifacts, folder):
    arguments = ("--images", folder, "--tokens", 6, "--threads", 1, "--warmup", 2, "--profile", "--json")
    result = run(*(tiny_artifacts[recipe] for recipe in RECIPES), *arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert report["schema"] == 1
    return {case["case"]: case for case in report["cases"]}


def test_every_artifact_has_its_profile(profiled):
    assert list(profiled) == list(RECIPES)
    for case in profiled.values():
        assert case["error"] is None
        assert (case["profile"]["images"], case["profile"]["tokens"]) == (2, 6.0), "the unreadable image does not count"


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_stages_add_up_to_the_time_of_a_caption(profiled, recipe):
    profile = profiled[recipe]["profile"]
    stages = {stage["name"]: stage for stage in profile["stages"]}
    assert list(stages) == ["read", "encode", "first_token", "token", "rest"]
    assert sum(stage["seconds"] for stage in stages.values()) == pytest.approx(profile["seconds"])
    assert all(stage["seconds"] > 0 for stage in stages.values())
    assert [name for name, stage in stages.items() if stage["python_seconds"] is None] == ["read", "rest"]
    assert all(0 < stages[name]["python_seconds"] < stages[name]["seconds"] for name in ("encode", "first_token", "token"))
    for part in ("stages", "encoder", "decoder"):
        assert sum(row["share"] for row in profiled[recipe]["rows"] if row["part"] == part) == pytest.approx(1), part


@pytest.mark.parametrize(
    ("recipe", "part", "products"),
    [
        ("onnx-int8", "encoder", "DynamicQuantizeMatMul"),
        ("onnx-int8", "decoder", "MatMulNBits"),
        ("onnx-int4", "decoder", "MatMulNBits"),
        ("pytorch-int8", "encoder", "quantized::linear_dynamic"),
        ("pytorch-int8", "decoder", "quantized::linear_dynamic"),
        ("pytorch-fp32", "encoder", "aten::addmm"),
    ],
)
def test_matrix_products_are_named(profiled, recipe, part, products):
    rows = {row["name"]: row for row in profiled[recipe]["rows"] if row["part"] == part}
    kind = "float products" if recipe == "pytorch-fp32" else "integer products"
    assert products in rows[kind]["operators"].split()
    assert rows[kind]["seconds"] > 0
    assert profiled[recipe]["profile"]["operators"][part][products] > 0


def test_operators_take_less_than_the_whole_profiled_pass(profiled):
    for case in profiled.values():
        operators = case["profile"]["operators"]
        assert 0 < sum(sum(of_part.values()) for of_part in operators.values()) < case["profile"]["traced_seconds"]


def test_a_failed_case_is_shown_and_the_others_are_profiled(tiny_artifacts, folder, tmp_path):
    broken = shutil.copytree(tiny_artifacts["onnx-fp32"], tmp_path / "broken")
    next(broken.glob("encoder-*.onnx")).write_bytes(b"none")
    result = run(broken, tiny_artifacts["onnx-int8"], "--images", folder, "--profile", "--warmup", 1)
    assert result.exit_code == 0
    assert f"Failed:\n- onnx-fp32: {broken}/encoder-" in result.stdout
    assert result.stdout.startswith("onnx-int8: ")
    alone = run(broken, "--images", folder, "--profile")
    assert (alone.exit_code, alone.stderr) == (1, "Error: every case failed\n")


@pytest.mark.parametrize("option", ["--batch-size=2", "--threads=1,2", "--tokens=4,natural"])
def test_a_sweep_is_refused(tiny_artifacts, option):
    result = run(tiny_artifacts["onnx-int8"], "--profile", option)
    (line,) = result.stderr.splitlines()
    assert result.exit_code == 1
    assert line.startswith("Error: --profile ")
    assert option.partition("=")[0] in line


def test_a_profile_writes_no_records(tiny_artifacts, tmp_path):
    result = run(tiny_artifacts["onnx-int8"], "--profile", "--output", tmp_path / "r.jsonl")
    (line,) = result.stderr.splitlines()
    assert result.exit_code == 1
    assert line.startswith("Error: --profile ")
    assert "--output" in line
