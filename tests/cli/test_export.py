"""`toolkit export`: artifact paths on stdout and nothing else, one line per fault, and output that was there stays."""

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
    return CliRunner().invoke(main, ["export", *map(str, arguments)], prog_name="toolkit")


def error_of(result):
    """The one line of stderr."""
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
    listed = [line.split(maxsplit=2) for line in result.stdout.splitlines()]
    assert [name for name, _, _ in listed] == NAMES
    assert [why for _, _, why in listed] == [recipe.why for recipe in RECIPES]
    assert [name for name, mark, _ in listed if mark == "default"] == [recipe.name for recipe in deployable_recipes(cuda=read_host().cuda)]


def test_each_path_is_printed_and_nothing_else(tiny_checkpoint, tiny_artifacts, drawn_images, tmp_path):
    output = tmp_path / "deep" / "artifacts"
    command = [
        sys.executable,
        "-m",
        "toolkit.cli",
        "-vv",
        "export",
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
        assert {file.name for file in made.iterdir()} == {file.name for file in expected.iterdir()}, "files are named by their hash"
        assert runtimes.load(made, threads=1).caption([image]) == runtimes.load(expected, threads=1).caption([image])
        gate = json.loads((made / "manifest.json").read_bytes())["gate"]
        assert gate["images"] == 21, "the images that ship with the toolkit"


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


def test_existing_output_stays_and_overwrite_replaces_it(tiny_checkpoint, tmp_path):
    arguments = (tiny_checkpoint, "--recipe", "pytorch-fp32", "--output", tmp_path, "--on-gate-failure", "write")
    artifact = tmp_path / "tiny-pytorch-fp32"
    assert run(*arguments).stdout == f"{artifact}\n"
    (artifact / "note").write_text("mine")
    before = content_of(tmp_path)
    refused = run(*arguments)
    assert error_of(refused) == f"{artifact}: exists already; nothing was changed. Use --overwrite to replace it."
    assert content_of(tmp_path) == before
    replaced = run(*arguments, "--overwrite")
    assert (replaced.exit_code, replaced.stdout) == (0, f"{artifact}\n")
    assert replaced.stderr.startswith("  gate passed: 21 of 21 captions equal transformers', 0 ties, drift ")
    assert content_of(artifact) == {name: digest for name, digest in content_of(artifact).items() if name != "note"}
    assert runtimes.load(artifact).manifest.recipe["name"] == "pytorch-fp32"


def test_what_is_no_artifact_is_never_replaced(tiny_checkpoint, tmp_path):
    mine = tmp_path / "tiny-onnx-fp32"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    result = run(tiny_checkpoint, "--recipe", "onnx-fp32", "--output", tmp_path, "--overwrite")
    assert error_of(result) == f"{mine}: cannot write: it is not an artifact, so --overwrite does not replace it. Nothing was changed."
    assert (mine / "thesis.txt").read_text() == "years of work"
    assert names_in(tmp_path) == ["tiny-onnx-fp32"]


def test_a_gate_that_is_not_passed_leaves_nothing_and_the_others_are_made(tiny_checkpoint, tmp_path):
    recipe = {"runtime": "torch", "why": "No drift at all.", "drift_limit_nat": -1.0}
    recipe |= {"components": {"*": {"weights": "qint8", "per_channel": True}}}
    for name in ("strict", "stricter"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"name": name, **recipe}))
    strict, stricter, output = tmp_path / "strict.json", tmp_path / "stricter.json", tmp_path / "out"
    result = run(tiny_checkpoint, "--recipe", strict, "--recipe", "pytorch-fp32", "--recipe", stricter, "--output", output)
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
VQA = {"model_type": "blip", "architectures": ["BlipForQuestionAnswering"]}


@pytest.mark.slow  # imports torch and transformers
@pytest.mark.parametrize(
    ("files", "arguments", "error"),
    [
        (None, (), "{here}: no such checkpoint directory"),
        ({"config.json": BERT}, (), "{here}: this is BertForMaskedLM, which cannot be exported; supported: BlipForConditionalGeneration"),
        (
            {"config.json": VQA},
            (),
            "{here}: this is BlipForQuestionAnswering, which cannot be exported; supported: BlipForConditionalGeneration",
        ),
        ({"config.json": {"model_type": "blip"}}, (), "{here}: has neither model.safetensors nor pytorch_model.bin"),
        (
            {"config.json": {"model_type": "blip"}, "pytorch_model.bin": {}},
            ("--safetensors-only",),
            "{here}: has no model.safetensors, only pytorch_model.bin, which --safetensors-only refuses; "
            "convert it, or leave the option out",
        ),
        ({}, ("--revision", "main"), "{here}: --revision is for hub ids, this is a directory"),
        ({}, ("--recipe", "onnx-int3"), f"unknown recipe 'onnx-int3'; known: {', '.join(sorted([*NAMES, 'all']))}"),
        (
            {"r.json": {"name": "r", "per_chanel": True}},
            ("--recipe", "{here}/r.json"),
            "{here}/r.json: unknown recipe field(s) per_chanel; known: ",
        ),
        ({}, ("--recipe", "{here}/none.json"), "{here}/none.json: cannot read this recipe: "),
    ],
    ids=str,
)
def test_a_bad_checkpoint_or_recipe_is_one_line(tmp_path, files, arguments, error):
    here = tmp_path / "checkpoint"
    for name, content in (files or {}).items():
        here.mkdir(exist_ok=True)
        (here / name).write_text(json.dumps(content))
    if files is not None:
        here.mkdir(exist_ok=True)
    result = run(here, *(argument.format(here=here) for argument in arguments), "--output", tmp_path / "out")
    message = error_of(result)
    assert message.startswith(error.format(here=here))
    assert error.endswith((" ", ")")) or message == error.format(here=here)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "damage", "error"),
    [
        ("config.json", b"{", "{here}: cannot read config.json: "),
        ("config.json", b"", "{here}: cannot read config.json: "),
        ("model.safetensors", b"", "{here}/model.safetensors: damaged or unreadable: "),
        ("model.safetensors", b"\x10\0\0\0\0\0\0\0{}", "{here}/model.safetensors: damaged or unreadable: "),
        ("tokenizer.json", b"{", "{here}: cannot read its image processor or tokenizer: "),
        ("preprocessor_config.json", b"{", "{here}: cannot read its image processor or tokenizer: "),
    ],
)
def test_a_damaged_checkpoint_is_one_line(tiny_checkpoint, tmp_path, name, damage, error):
    here = shutil.copytree(tiny_checkpoint, tmp_path / "tiny")
    (here / name).write_bytes(damage)
    result = run(here, "--recipe", "pytorch-fp32", "--output", tmp_path / "out")
    assert error_of(result).startswith(error.format(here=here))
    out = tmp_path / "out"
    assert not out.exists() or names_in(out) == []


@pytest.mark.slow  # imports torch
def test_a_hub_id_that_cannot_be_had_is_one_line(tmp_path):
    result = run("nobody/no-such-checkpoint", "--output", tmp_path / "out")
    assert error_of(result).startswith("nobody/no-such-checkpoint: no such directory, and the download from the hub failed: ")
    assert not (tmp_path / "out").exists()


def test_without_the_libraries_of_the_extra_it_says_what_to_install(tiny_checkpoint, tmp_path):
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
