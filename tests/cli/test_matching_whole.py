"""A matcher from export to device: every command that works on its artifacts, with the trained matcher where the machine has it."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from exporters.recipes import deployable_recipes
from runtimes.artifact.manifest import MANIFEST_NAME
from runtimes.host.facts import read_host
from toolkit.cli import main

pytestmark = pytest.mark.full


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


@pytest.mark.parametrize("recipe", ["onnx-int8", "onnx-int4", "pytorch-fp32"])
def test_a_matcher_is_exported_packaged_verified_and_used(recipe, trained_matcher, sample_images, tmp_path):
    gate = [] if trained_matcher.name == "blip-mini-itm" else ["--on-gate-failure", "write"]
    artifact = run("export", trained_matcher, "--recipe", recipe, "--output", tmp_path / "artifacts", *gate).stdout.strip()
    report = json.loads(run("info", artifact, "--json").stdout)
    assert (report["task"], report["contract"]) == ("matching", "matching/1")
    package = tmp_path / "matcher.tar.gz"
    digest = run("package", artifact, "--output", package).stdout.split()[-1]
    verified = json.loads(run("verify", package, "--digest", digest, "--json").stdout)
    assert verified["golden"]["equal"] == verified["golden"]["captions"] == 18  # 3 images, 3 texts, 2 scores
    assert verified["golden"]["logits_difference"] <= 1e-4
    run("unpack", package, "--output", tmp_path / "device")
    card = (tmp_path / "device" / "README.md").read_text()
    assert "toolkit match" in card
    assert "toolkit caption" not in card
    image, other = sample_images[0], sample_images[1]
    row = json.loads(run("match", tmp_path / "device", image.path, "--text", image.texts[0], "--text", other.texts[0], "--json").stdout)
    if trained_matcher.name == "blip-mini-itm":
        own, foreign = (match["similarity"] for match in row["matches"])
        assert own > foreign
    run("embed", tmp_path / "device", image.path.parent, "--output", tmp_path / "sample.npz")


def test_the_default_export_makes_what_passes_the_gate(trained_matcher, tmp_path):
    """Of the deployable recipes, pytorch-int8 is made by name only (decision 58)."""
    gate = [] if trained_matcher.name == "blip-mini-itm" else ["--on-gate-failure", "write"]
    paths = run("export", trained_matcher, "--output", tmp_path, *gate).stdout.split()
    made = {json.loads((Path(path) / MANIFEST_NAME).read_text())["recipe"]["name"] for path in paths}
    expected = {recipe.name for recipe in deployable_recipes(cuda=read_host().cuda)} - {"pytorch-int8"}
    assert made == expected


def test_changed_weights_and_changed_golden_scores_are_found(matcher_artifacts, tmp_path):
    package = tmp_path / "matcher.tar.gz"
    run("package", matcher_artifacts["onnx-fp32"], "--output", package)
    run("unpack", package, "--output", tmp_path / "device")
    golden = tmp_path / "device" / next((tmp_path / "device").glob("golden*.json")).name
    content = json.loads(golden.read_text())
    assert content["sensitivity"]["noticed"]
    content["images"][0]["similarities"][0] += 0.01
    changed = json.dumps(content).encode()
    broken = shutil.copytree(tmp_path / "device", tmp_path / "broken")
    (broken / golden.name).write_bytes(changed)
    assert "CORRUPT" in json.loads(run("verify", broken, "--json", code=1).stdout)["code"]
    manifest = json.loads((broken / MANIFEST_NAME).read_text())
    entry = next(entry for entry in manifest["files"].values() if entry["role"] == "golden")
    entry |= {"bytes": len(changed), "sha256": hashlib.sha256(changed).hexdigest()}
    (broken / MANIFEST_NAME).write_text(json.dumps(manifest))
    assert json.loads(run("verify", broken, "--json", code=1).stdout)["code"] == "GOLDEN_DIFFERS"
    assert run("verify", tmp_path / "device").stdout.count("scores") == 2
