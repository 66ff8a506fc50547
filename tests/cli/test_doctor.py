"""`toolkit doctor`: facts and findings as text and JSON, and the exit code."""

import json
import platform
import shutil
from dataclasses import replace

import pytest
from click.testing import CliRunner

from exporters.recipes import RECIPES
from runtimes.artifact.folder import open_artifact
from runtimes.engines.ort.int8_selftest import run_int8_selftest
from runtimes.host.facts import read_host
from runtimes.selection.fitness import drop_incorrect
from runtimes.selection.ranking import rank_candidates
from toolkit.cli import main
from toolkit.doctor.engines import ProbedEngine
from toolkit.doctor.examine import Examination
from toolkit.doctor.finding import Finding
from toolkit.doctor.machine import MachineFacts
from toolkit.doctor.text import render


def run(*arguments):
    return CliRunner().invoke(main, ["doctor", *map(str, arguments)], prog_name="toolkit")


@pytest.fixture(scope="module")
def examined(tiny_artifacts):
    """The JSON output for a folder of two artifacts."""
    folder = tiny_artifacts.folder
    result = run(folder, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    return json.loads(result.stdout)


def test_the_json_describes_this_machine(examined):
    import onnxruntime
    import torch

    host = read_host()
    assert examined["healthy"] is True
    assert (examined["machine"]["cpu"], examined["machine"]["python"]) == (host.cpu, platform.python_version())
    assert {name for name, reported in examined["machine"]["features"].items() if reported} == host.cpu_features
    assert examined["packages"]["onnxruntime"] == onnxruntime.__version__
    assert examined["engines"]["ort"]["offer"]["providers"] == onnxruntime.get_available_providers()
    assert examined["engines"]["torch"]["offer"]["providers"] == [
        name for name in torch.backends.quantized.supported_engines if name != "none"
    ]
    product = run_int8_selftest()
    assert examined["engines"]["ort"]["offer"]["product"] == {"expected": product.expected, "actual": product.actual}


def test_the_ranking_is_that_of_load(examined, tiny_artifacts):
    """Recipes and artifacts have the order of `runtimes.load`."""
    host, product = read_host(), run_int8_selftest()
    recipes = {recipe.name: recipe for recipe in RECIPES}
    assert [choice["name"] for choice in examined["recipes"]] == [
        choice.name for choice in rank_candidates(drop_incorrect(recipes, host, product), host)
    ]
    manifests = {path.name: open_artifact(path).manifest for path in tiny_artifacts.values()}
    assert [choice["name"] for choice in examined["artifacts"]] == [
        choice.name for choice in rank_candidates(drop_incorrect(manifests, host, product), host)
    ]


@pytest.mark.full
def test_an_artifact_with_an_unmet_requirement_is_a_problem(tiny_artifacts, tmp_path):
    artifact = shutil.copytree(tiny_artifacts["onnx-int8"], tmp_path / "artifact")
    manifest = replace(open_artifact(artifact).manifest, requires={"onnxruntime": ">=99"})
    (artifact / "manifest.json").write_bytes(manifest.content)
    result = run(artifact)
    assert (result.exit_code, result.stderr) == (1, "")
    assert "✗ artifact needs onnxruntime >=99, but " in result.stdout
    assert result.stdout.endswith("\n\n1 problem found.\n")
    assert json.loads(run(artifact, "--json").stdout)["healthy"] is False


@pytest.mark.full
@pytest.mark.parametrize("damage", ["a missing tokenizer", "a changed byte"])
def test_an_artifact_whose_files_are_damaged_is_a_problem(tiny_artifacts, tmp_path, damage):
    artifact = shutil.copytree(tiny_artifacts["onnx-int8"], tmp_path / "folder" / "damaged")
    (file,) = artifact.glob("tokenizer*" if damage == "a missing tokenizer" else "encoder-*.onnx")
    if damage == "a missing tokenizer":
        file.unlink()
    else:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    result = run(artifact)
    assert (result.exit_code, file.name in result.stdout) == (1, True)
    shutil.copytree(tiny_artifacts["onnx-fp32"], tmp_path / "folder" / "sound")
    folder = json.loads(run(tmp_path / "folder", "--json").stdout)
    assert [choice["name"] for choice in folder["artifacts"]] == ["sound"]
    assert [finding["level"] for finding in folder["findings"] if file.name in finding["text"]] == ["warning"]
    assert folder["healthy"] is True


def test_a_folder_without_artifact_is_a_one_line_error(tmp_path):
    result = run(tmp_path, "--json")
    error = json.loads(result.stdout)
    assert (result.exit_code, error["code"], result.stderr) == (1, "ARTIFACT_MISSING", f"Error: {error['error']}\n")
    assert str(tmp_path) in error["error"]


def test_the_text_has_aligned_blocks():
    machine = MachineFacts(
        cpu="Cortex-A76", family="aarch64", features={"dotprod": True, "i8mm": False}, logical_cores=4, cores=2, quota_cores=2,
        memory_bytes=8 << 30, memory_limit_bytes=3 << 29, nvidia_driver=False, system="Linux 6.1", python="3.11.2",
    )  # fmt: skip
    findings = (
        Finding(level="problem", text="onnxruntime is installed and does not work: crash", remedy="reinstall it"),
        Finding(level="note", text="this is so", remedy=None),
    )
    examination = Examination(
        machine=machine,
        packages={"numpy": "2.4.6", "blip-toolkit": "0.1.0"},
        engines={"ort": ProbedEngine(library="onnxruntime", offer=None, error="crash")},
        recipes=(),
        artifacts=(),
        findings=findings,
    )
    assert render(examination) == (
        "Machine\n"
        "  cpu       Cortex-A76 (aarch64)\n"
        "  features  dotprod; without i8mm\n"
        "  cores     2 usable of 4 logical; container quota 2\n"
        "  memory    8.0 GiB; container limit 1.5 GiB\n"
        "  gpu       no NVIDIA driver\n"
        "  system    Linux 6.1, Python 3.11.2\n"
        "\n"
        "Packages\n"
        "  numpy         2.4.6\n"
        "  blip-toolkit  0.1.0\n"
        "\n"
        "Engines\n"
        "  onnxruntime  does not work: crash\n"
        "\n"
        "Best recipes for this machine\n"
        "  none\n"
        "\n"
        "Artifacts that fit, best first\n"
        "  none\n"
        "\n"
        "✗ onnxruntime is installed and does not work: crash\n"
        "    → reinstall it\n"
        "· this is so\n"
        "\n"
        "1 problem found.\n"
    )
