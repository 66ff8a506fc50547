"""`toolkit export`: paths on stdout, one-line errors on stderr, and existing output is not changed."""

import hashlib
import json
import shutil
import subprocess
import sys

import pytest
from click.testing import CliRunner

import runtimes
from exporters.gate.gate import findings_line
from exporters.recipes import RECIPES, deployable_recipes
from runtimes.host.facts import read_host
from toolkit.cli import main

NAMES = [
    *("pytorch-fp32", "pytorch-int8", "pytorch-fp16"),
    *("onnx-fp32", "onnx-int8", "onnx-int8-single", "onnx-int4", "onnx-int8-full", "onnx-int8-fast", "onnx-fp16"),
]


def run(*arguments):
    return CliRunner().invoke(main, ["export", "--no-draft", *map(str, arguments)], prog_name="toolkit")  # draft tables: test_drafts.py


def error_of(result):
    """Return the only line of stderr, without "Error: "."""
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line.removeprefix("Error: ")


def names_in(folder):
    return sorted(file.name for file in folder.iterdir())


def content_of(folder):
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.rglob("*") if file.is_file()}


def test_the_recipes_are_listed():
    result = run("--list")
    assert (result.exit_code, result.stderr) == (0, "")
    rows = [line.split(maxsplit=2) for line in result.stdout.splitlines()]
    assert [name for name, _, _ in rows] == NAMES
    assert [why for _, _, why in rows] == [recipe.why for recipe in RECIPES]
    assert [name for name, mark, _ in rows if mark == "default"] == [recipe.name for recipe in deployable_recipes(cuda=read_host().cuda)]


@pytest.mark.full
def test_only_the_paths_are_printed_on_stdout(tiny_checkpoint, tiny_artifacts, drawn_images, tmp_path):
    output = tmp_path / "deep" / "artifacts"
    command = [
        sys.executable,
        "-m",
        "toolkit.cli",
        "-vv",
        "export",
        "--no-draft",
        str(tiny_checkpoint),
        "--output",
        str(output),
        "--on-gate-failure",
        "write",
    ]
    command += ["--recipe", "onnx-int8", "--recipe", "pytorch-int8"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.stdout.splitlines() == [str(output / "tiny-onnx-int8"), str(output / "tiny-pytorch-int8")]
    assert ended.returncode == 0
    assert "Traceback" not in ended.stderr
    assert names_in(output) == ["tiny-onnx-int8", "tiny-pytorch-int8"]
    image = drawn_images[0].path
    for recipe in ("onnx-int8", "pytorch-int8"):
        made, expected = output / f"tiny-{recipe}", tiny_artifacts[recipe]
        assert {file.name for file in made.iterdir()} == {file.name for file in expected.iterdir()}, (
            "file names contain the hash of the content"
        )
        assert runtimes.load(made, threads=1).caption([image]) == runtimes.load(expected, threads=1).caption([image])
        gate = json.loads((made / "manifest.json").read_bytes())["gate"]
        assert gate["images"] == 21, "all images of the sample"


def test_a_recipe_from_a_file(tiny_checkpoint, tmp_path):
    recipe = {
        "name": "mine",
        "runtime": "torch",
        "why": "A test.",
        "components": {"decoder": {"weights": "qint8", "per_channel": True}},
        "drift_limit_nat": 0.5,
    }
    (tmp_path / "mine.json").write_text(json.dumps(recipe))
    result = run(tiny_checkpoint, "--recipe", tmp_path / "mine.json", "--output", tmp_path / "out", "--on-gate-failure", "write")
    manifest = json.loads((tmp_path / "out" / "tiny-mine" / "manifest.json").read_bytes())
    assert (result.exit_code, result.stdout, result.stderr) == (
        0,
        f"{tmp_path / 'out' / 'tiny-mine'}\n",
        f"  {findings_line(manifest['gate'])}\n",
    )
    assert {name: manifest["recipe"][name] for name in ("name", "why", "drift_limit_nat")} == {
        "name": "mine",
        "why": "A test.",
        "drift_limit_nat": 0.5,
    }
    assert manifest["recipe"]["components"]["decoder"]["weights"] == "qint8"
    assert (manifest["applied"]["encoder"], manifest["applied"]["decoder"]["Linear"] > 0) == ({}, True)


@pytest.mark.parametrize("content", [None, {}, {"note.txt": b"no image"}, {"broken.jpg": b"no image"}])
def test_unusable_calibration_images_are_one_line(tiny_checkpoint, tmp_path, content):
    folder = tmp_path / "images"
    if content is not None:
        folder.mkdir()
        for name, data in content.items():
            (folder / name).write_bytes(data)
    output = tmp_path / "out"
    result = run(tiny_checkpoint, "--recipe", "onnx-int8", "--recipe", "onnx-int4", "--output", output, "--calibration", folder)
    error = error_of(result)
    assert str(folder) in error
    assert ("broken.jpg" in error) == (content == {"broken.jpg": b"no image"})
    assert not output.exists() or names_in(output) == []


def test_calibration_images_of_the_user(tiny_checkpoint, drawn_images, tmp_path):
    folder = drawn_images[0].path.parent
    result = run(tiny_checkpoint, "--recipe", "onnx-int8", "--output", tmp_path, "--calibration", folder, "--on-gate-failure", "write")
    manifest = json.loads((tmp_path / "tiny-onnx-int8" / "manifest.json").read_bytes())
    assert (result.exit_code, manifest["optional"]["smoothing"]["images"]) == (0, len(drawn_images))


def test_existing_output_stays_and_overwrite_replaces_it(tiny_checkpoint, tmp_path):
    arguments = (tiny_checkpoint, "--recipe", "pytorch-fp32", "--output", tmp_path, "--on-gate-failure", "write")
    artifact = tmp_path / "tiny-pytorch-fp32"
    assert run(*arguments).stdout == f"{artifact}\n"
    (artifact / "note").write_text("user's file")
    before = content_of(tmp_path)
    refused = run(*arguments)
    error = error_of(refused)
    assert error.startswith(f"{artifact}: ")
    assert "--overwrite" in error
    assert content_of(tmp_path) == before
    replaced = run(*arguments, "--overwrite")
    assert (replaced.exit_code, replaced.stdout) == (0, f"{artifact}\n")
    assert replaced.stderr.startswith("  gate passed: 21 of 21 captions ")
    assert content_of(artifact) == {name: digest for name, digest in content_of(artifact).items() if name != "note"}
    assert runtimes.load(artifact).manifest.recipe["name"] == "pytorch-fp32"


def test_a_folder_that_is_no_artifact_is_never_replaced(tiny_checkpoint, tmp_path):
    folder = tmp_path / "tiny-onnx-fp32"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    result = run(tiny_checkpoint, "--recipe", "onnx-fp32", "--output", tmp_path, "--overwrite")
    error = error_of(result)
    assert error.startswith(f"{folder}: ")
    assert "not an artifact" in error
    assert (folder / "thesis.txt").read_text() == "years of work"
    assert names_in(tmp_path) == ["tiny-onnx-fp32"]


def test_a_failed_gate_writes_nothing_and_the_other_recipes_are_exported(tiny_checkpoint, tmp_path):
    recipe = {"runtime": "torch", "why": "No drift at all.", "drift_limit_nat": -1.0}
    recipe |= {"components": {"*": {"weights": "qint8", "per_channel": True}}}
    for name in ("strict", "stricter"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"name": name, **recipe}))
    strict, stricter, output = tmp_path / "strict.json", tmp_path / "stricter.json", tmp_path / "out"
    result = run(
        tiny_checkpoint,
        "--recipe",
        strict,
        "--recipe",
        "pytorch-fp32",
        "--recipe",
        stricter,
        "--output",
        output,
        "--on-gate-failure",
        "fail",
    )
    assert (result.exit_code, result.stdout) == (1, f"{output / 'tiny-pytorch-fp32'}\n")
    finding, *errors = result.stderr.splitlines()
    assert finding.startswith("  gate passed: ")
    assert [line.split(": ")[:2] for line in errors] == [["Error", "strict"], ["Error", "stricter"]]
    for line in errors:
        assert "drift is " in line
        assert "the recipe allows -1.0" in line
        assert "--on-gate-failure write" in line
    assert names_in(output) == ["tiny-pytorch-fp32"]


BERT = {"model_type": "bert", "architectures": ["BertForMaskedLM"]}
CONTRASTIVE = {"model_type": "blip", "architectures": ["BlipModel"]}


@pytest.mark.slow  # imports torch and transformers
@pytest.mark.parametrize(
    ("files", "arguments", "facts"),
    [
        (None, (), ["{here}: ", "no such"]),
        ({"config.json": BERT}, (), ["{here}: ", "BertForMaskedLM", "BlipForConditionalGeneration"]),
        ({"config.json": CONTRASTIVE}, (), ["{here}: ", "BlipModel", "BlipForConditionalGeneration", "BlipForQuestionAnswering"]),
        ({"config.json": {"model_type": "blip"}}, (), ["{here}: ", "model.safetensors", "pytorch_model.bin"]),
        (
            {"config.json": {"model_type": "blip"}, "pytorch_model.bin": {}},
            ("--safetensors-only",),
            ["{here}: ", "pytorch_model.bin", "--safetensors-only"],
        ),
        ({}, ("--revision", "main"), ["{here}: ", "--revision", "hub"]),
        ({}, ("--recipe", "onnx-int3"), ["'onnx-int3'", ", ".join(sorted([*NAMES, "all"]))]),
        ({"r.json": {"name": "r", "per_chanel": True}}, ("--recipe", "{here}/r.json"), ["{here}/r.json: ", "per_chanel"]),
        ({}, ("--recipe", "{here}/none.json"), ["{here}/none.json: "]),
    ],
    ids=str,
)
def test_an_invalid_checkpoint_or_recipe_is_a_one_line_error(tmp_path, files, arguments, facts):
    here = tmp_path / "checkpoint"
    for name, content in (files or {}).items():
        here.mkdir(exist_ok=True)
        (here / name).write_text(json.dumps(content))
    if files is not None:
        here.mkdir(exist_ok=True)
    result = run(here, *(argument.format(here=here) for argument in arguments), "--output", tmp_path / "out")
    message = error_of(result)
    assert [fact for fact in facts if fact.format(here=here) not in message] == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "damage", "fact"),
    [
        ("config.json", b"{", "config.json"),
        ("config.json", b"", "config.json"),
        ("model.safetensors", b"", "model.safetensors"),
        ("model.safetensors", b"\x10\0\0\0\0\0\0\0{}", "model.safetensors"),
        ("tokenizer.json", b"{", "tokenizer"),
        ("preprocessor_config.json", b"{", "image processor"),
    ],
)
def test_a_damaged_checkpoint_is_a_one_line_error(tiny_checkpoint, tmp_path, name, damage, fact):
    here = shutil.copytree(tiny_checkpoint, tmp_path / "tiny")
    (here / name).write_bytes(damage)
    result = run(here, "--recipe", "pytorch-fp32", "--output", tmp_path / "out")
    error = error_of(result)
    assert error.startswith(str(here))
    assert fact in error
    out = tmp_path / "out"
    assert not out.exists() or names_in(out) == []


@pytest.mark.slow  # imports torch
def test_a_checkpoint_missing_on_the_hub_is_a_one_line_error(tmp_path):
    result = run("nobody/no-such-checkpoint", "--output", tmp_path / "out")
    error = error_of(result)
    assert error.startswith("nobody/no-such-checkpoint: ")
    assert "hub" in error
    assert not (tmp_path / "out").exists()


def test_without_the_libraries_of_exporting_the_error_names_the_extra_to_install(tiny_checkpoint, tmp_path):
    hidden = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'transformers', 'safetensors')));"
        "from toolkit.cli import main; main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", hidden, "export", str(tiny_checkpoint), "--output", str(tmp_path / "out")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = ended.stderr.splitlines()
    assert line.split()[1] in ("torch", "transformers", "safetensors")
    assert "pip install 'blip-toolkit[export]'" in line
    assert not (tmp_path / "out").exists()


def test_json_lists_artifacts_and_failures(tiny_checkpoint, tmp_path):
    recipe = {"name": "strict", "runtime": "ort", "why": "Its limit is below every drift.", "drift_limit_nat": -9.0}
    (tmp_path / "strict.json").write_text(json.dumps(recipe | {"components": {"*": {"weights": "qint8", "per_channel": True}}}))
    result = run(tiny_checkpoint, "--recipe", tmp_path / "strict.json", "--recipe", "onnx-fp32", "--output", tmp_path / "out", "--json")
    assert result.exit_code == 1
    printed = json.loads(result.stdout)
    (artifact,), (failure,) = printed["artifacts"], printed["failures"]
    manifest = tmp_path / "out" / "tiny-onnx-fp32" / "manifest.json"
    assert (artifact["path"], artifact["recipe"]) == (str(manifest.parent), "onnx-fp32")
    assert artifact["digest"] == hashlib.sha256(manifest.read_bytes()).hexdigest()
    assert artifact["bytes"] == sum(file.stat().st_size for file in manifest.parent.iterdir())
    assert artifact["gate"]["passed"] is True
    assert failure["code"] == "GATE_FAILED"
    assert f"Error: {failure['error']}" in result.stderr.splitlines()


def test_recipes_are_listed_as_json():
    recipes = json.loads(run("--list", "--json").stdout)
    assert [recipe["name"] for recipe in recipes] == NAMES
    assert {recipe["name"] for recipe in recipes if recipe["default"]} == {
        recipe.name for recipe in deployable_recipes(cuda=read_host().cuda)
    }
