"""Test export: which artifacts the gate accepts, and that a failed export loses no file and leaves no partial one."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from exporters.checkpoint.checkpoint import Checkpoint, open_checkpoint
from exporters.export import export
from exporters.gate.gate import Agreement, compare
from exporters.gate.labelled_image import LabelledImage
from exporters.recipe import Layer, Recipe
from exporters.recipes import RECIPES, find_recipe
from runtimes.artifact import json_dataclass
from runtimes.artifact.folder import open_artifact
from runtimes.errors import ExportError, GateError, OutputError, OutputExistsError
from runtimes.loading import load

FP32 = find_recipe("pytorch-fp32")
INT8 = find_recipe("pytorch-int8")
STRICT = replace(INT8, drift_limit_nat=-1.0)
"""A limit that every INT8 artifact exceeds: its drift would have to be below -1 nat/token."""


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint) -> Checkpoint:
    return open_checkpoint(str(tiny_checkpoint))


@pytest.fixture
def images(drawn_images) -> list[LabelledImage]:
    return drawn_images[:4]


def make(checkpoint: Checkpoint, output: Path, images: list[LabelledImage], *recipes: Recipe, **options: object) -> list[Path]:
    return list(export(checkpoint, recipes, output, images, **{"on_gate_failure": "fail", **options}))


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return name → (bytes, modification time) of every file below a folder."""
    return {
        str(file.relative_to(folder)): (file.read_bytes(), file.stat().st_mtime_ns) for file in sorted(folder.rglob("*")) if file.is_file()
    }


def names(folder: Path) -> list[str]:
    """Return the names in a folder, with hidden files."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def references(tmp_path_factory, monkeypatch) -> Path:
    """Return the folder of cached reference runs; it is empty and used by one test only."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    return cache / "blip-toolkit" / "references"


def reference_file(folder: Path) -> Path:
    (file,) = folder.iterdir()

    return file


class TestGate:
    def test_a_quantized_artifact_with_too_much_drift_fails_and_leaves_no_file(self, checkpoint, images, tmp_path):
        with pytest.raises(GateError) as caught:
            make(checkpoint, tmp_path, images, STRICT)
        message = str(caught.value)
        assert message.startswith("pytorch-int8: no verdict (4 of 20 images): drift is ")
        assert "the recipe allows -1.0. Nothing was written." in message
        assert "\n" not in message
        assert names(tmp_path) == []

    @pytest.mark.parametrize("recipe", ["pytorch-int8", "onnx-int8"])
    def test_a_quantized_artifact_within_its_limit_passes_and_records_its_drift(self, checkpoint, images, tmp_path, recipe):
        (path,) = make(checkpoint, tmp_path, images, replace(find_recipe(recipe), drift_limit_nat=0.1))
        gate = open_artifact(path).manifest.gate
        assert (gate["passed"], gate["problem"], gate["images"], gate["drift_limit"]) == (True, None, 4, 0.1)
        assert -0.05 < gate["drift_low"] <= gate["drift_nat_per_token"] <= gate["drift_high"] < 0.05
        assert gate["drift_nat_per_token"] != 0
        assert gate["device"] == "cpu"
        assert gate["reference"].startswith("transformers 4.")

    def test_drift_is_the_increase_in_negative_log_probability_per_token(self, checkpoint, images, tmp_path):
        first, second = make(checkpoint, tmp_path, images, FP32, replace(INT8, drift_limit_nat=0.1))
        paths, captions = [image.path for image in images], [image.texts for image in images]
        before, after = (sum(float(row.sum()) for row in load(path).score(paths, captions=captions)) for path in (first, second))
        tokens = sum(
            len(caption.split()) + 1 for references in captions for caption in references
        )  # each word is one token, plus the end token
        assert open_artifact(second).manifest.gate["drift_nat_per_token"] == pytest.approx((before - after) / tokens, abs=1e-5)

    def test_with_write_a_failed_artifact_is_written_and_its_manifest_records_the_failure(self, checkpoint, images, tmp_path):
        (path,) = make(checkpoint, tmp_path, images, STRICT, on_gate_failure="write")
        gate = open_artifact(path).manifest.gate
        assert gate["passed"] is False
        assert gate["problem"].startswith("no verdict (4 of 20 images): drift is ")
        assert load(path).caption([images[0].path])[0].error is None

    @pytest.mark.parametrize("recipe", ["pytorch-fp32", "onnx-fp32"])
    def test_an_fp32_artifact_with_another_token_than_transformers_fails(self, checkpoint, images, tmp_path, references, recipe):
        """The cached reference is edited: the fourth token of the third image is another. The artifact then differs from it."""
        make(checkpoint, tmp_path, images, FP32)
        cached = json.loads(reference_file(references).read_bytes())
        cached["token_ids"][2][3] = 5 if cached["token_ids"][2][3] != 5 else 6
        cached["margins_nat"][2] = [1.0] * len(cached["margins_nat"][2])
        reference_file(references).write_text(json.dumps(cached))
        shutil.rmtree(tmp_path / "tiny-pytorch-fp32")
        with pytest.raises(GateError) as caught:
            make(checkpoint, tmp_path, images, find_recipe(recipe))
        expected = f"{recipe}: captions of 1 of 4 images differ from transformers' (first: {images[2].path.name}, token 3)."
        assert str(caught.value).startswith(expected)
        assert names(tmp_path) == []

    def test_a_difference_at_a_small_margin_of_the_reference_is_a_tie(self, checkpoint, images, tmp_path, references):
        make(checkpoint, tmp_path, images, FP32)
        cached = json.loads(reference_file(references).read_bytes())
        cached["token_ids"][2][3] = 5 if cached["token_ids"][2][3] != 5 else 6
        cached["margins_nat"][2][2] = 0.0005  # index 2 belongs to token 3: the first generated token has position 1
        reference_file(references).write_text(json.dumps(cached))
        (path,) = make(checkpoint, tmp_path, images, FP32, overwrite=True)
        gate = open_artifact(path).manifest.gate
        assert (gate["passed"], gate["exact_captions"], gate["ties"]) == (True, 3, 1)

    def test_drift_that_is_not_a_number_fails(self, checkpoint, images, tmp_path, references):
        make(checkpoint, tmp_path, images, FP32)
        cached = json.loads(reference_file(references).read_bytes())
        cached["log_probabilities"][1][0] = float("nan")
        reference_file(references).write_text(json.dumps(cached))
        with pytest.raises(GateError, match="nan"):
            make(checkpoint, tmp_path, images, INT8)

    def test_a_failure_does_not_stop_the_recipes_after_it(self, checkpoint, images, tmp_path):
        finished = export(checkpoint, [FP32, STRICT, find_recipe("onnx-fp32")], tmp_path, images)
        assert [next(finished).name, next(finished).name] == ["tiny-pytorch-fp32", "tiny-onnx-fp32"]
        with pytest.raises(GateError):
            next(finished)
        assert names(tmp_path) == ["tiny-onnx-fp32", "tiny-pytorch-fp32"]
        assert load(tmp_path / "tiny-onnx-fp32").caption([images[0].path])[0].error is None

    def test_several_failures_are_raised_as_one_error_with_all_of_them(self, checkpoint, images, tmp_path):
        recipes = [STRICT, replace(STRICT, name="stricter"), FP32]
        with pytest.raises(ExportError) as caught:
            make(checkpoint, tmp_path, images, *recipes)
        assert [str(failure).partition(":")[0] for failure in caught.value.failures] == ["pytorch-int8", "stricter"]
        assert "2 recipes" in str(caught.value)
        assert names(tmp_path) == ["tiny-pytorch-fp32"]

    def test_an_output_that_cannot_be_written_ends_the_export(self, checkpoint, images, tmp_path):
        output = tmp_path / "out"
        finished = export(checkpoint, [STRICT, FP32, find_recipe("onnx-fp32"), find_recipe("onnx-int8")], output, images)
        assert next(finished) == output / "tiny-pytorch-fp32"
        output.rename(tmp_path / "moved")
        output.write_text("a file")
        with pytest.raises(ExportError) as caught:
            next(finished)
        assert [failure.code for failure in caught.value.failures] == ["GATE_FAILED", "OUTPUT_UNWRITABLE"]
        assert names(tmp_path / "moved") == ["tiny-pytorch-fp32"]


@pytest.mark.full
def test_every_recipe_of_the_shipped_model_passes_its_gate(mini_checkpoint, sample_images, tmp_path):
    for path in make(open_checkpoint(str(mini_checkpoint)), tmp_path, sample_images, *RECIPES):
        gate = open_artifact(path).manifest.gate
        assert (gate["passed"], gate["images"], gate["ties"]) == (True, len(sample_images), 0)
        if gate["drift_limit"] is None:
            assert gate["exact_captions"] == len(sample_images)
        else:
            assert gate["drift_high"] < gate["drift_limit"]


class TestCompare:
    MARGINS = ((0.5, 0.0009, 0.2),)

    @pytest.mark.parametrize(
        ("token_ids", "expected"),
        [
            ((9, 1, 2, 3), Agreement(equal=1, ties=0, different=())),
            ((9, 1, 7, 8, 9), Agreement(equal=0, ties=1, different=())),  # tokens after a tie are not compared
            ((9, 7, 2, 3), Agreement(equal=0, ties=0, different=((0, 1),))),
            ((9, 1, 2, 7), Agreement(equal=0, ties=0, different=((0, 3),))),
            ((9, 1), Agreement(equal=0, ties=1, different=())),
            ((9, 1, 2, 3, 4), Agreement(equal=0, ties=0, different=((0, 4),))),
            ((7, 1, 2, 3), Agreement(equal=0, ties=0, different=((0, 0),))),  # the first token is not generated, so it has no margin
        ],
    )
    def test_the_first_difference_decides(self, token_ids, expected):
        assert compare([token_ids], [(9, 1, 2, 3)], self.MARGINS) == expected


class TestReference:
    def test_it_is_computed_once_per_checkpoint_and_images(self, checkpoint, images, tmp_path, references):
        make(checkpoint, tmp_path, images, FP32)
        before = reference_file(references).stat().st_ino
        make(checkpoint, tmp_path, images, find_recipe("onnx-fp32"))
        assert reference_file(references).stat().st_ino == before
        make(checkpoint, tmp_path, images[:3], FP32, overwrite=True)
        assert len(names(references)) == 2

    @pytest.mark.parametrize("damaged", [b"", b"{", b'{"transformers": "4.57.6"}', b"[]"])
    def test_a_damaged_cached_file_is_computed_again(self, checkpoint, images, tmp_path, references, damaged):
        make(checkpoint, tmp_path, images[:1], FP32)
        expected = reference_file(references).read_bytes()
        reference_file(references).write_bytes(damaged)
        make(checkpoint, tmp_path, images[:1], FP32, overwrite=True)
        assert reference_file(references).read_bytes() == expected


class TestExistingOutput:
    def test_it_is_refused_and_not_changed(self, checkpoint, images, tmp_path):
        make(checkpoint, tmp_path, images, FP32)
        before = contents(tmp_path)
        with pytest.raises(OutputExistsError) as caught:
            make(checkpoint, tmp_path, images, INT8, FP32)
        expected = f"{tmp_path / 'tiny-pytorch-fp32'}: exists already; nothing was changed. Use --overwrite to replace it."
        assert str(caught.value) == expected
        assert contents(tmp_path) == before  # the other recipe was not started either

    def test_overwrite_replaces_it_and_removes_its_old_files(self, checkpoint, images, tmp_path):
        (path,) = make(checkpoint, tmp_path, images, replace(INT8, drift_limit_nat=0.1))
        before = open_artifact(path).manifest
        changed = replace(INT8, drift_limit_nat=0.1, components={"*": replace(INT8.component("*"), layers={"*fc1": Layer()})})
        assert make(checkpoint, tmp_path, images, changed, overwrite=True) == [path]
        after = open_artifact(path).manifest
        assert after.recipe["components"]["*"]["layers"] == {"*fc1": json_dataclass.dump(Layer())}
        assert after.file_of("weights") != before.file_of("weights")
        assert sorted(file.name for file in path.iterdir()) == sorted([*after.files, "manifest.json"])
        assert load(path).caption([images[0].path])[0].error is None

    def test_it_is_unchanged_if_the_gate_fails_during_an_overwrite(self, checkpoint, images, tmp_path):
        make(checkpoint, tmp_path, images, replace(INT8, drift_limit_nat=0.1))
        before = contents(tmp_path)
        with pytest.raises(GateError):
            make(checkpoint, tmp_path, images, STRICT, overwrite=True)
        assert contents(tmp_path) == before

    def test_a_folder_that_is_no_artifact_is_not_overwritten(self, checkpoint, images, tmp_path):
        (tmp_path / "tiny-pytorch-fp32").mkdir()
        (tmp_path / "tiny-pytorch-fp32" / "thesis.txt").write_text("important")
        before = contents(tmp_path)
        with pytest.raises(OutputError, match="it is not an artifact, so --overwrite does not replace it"):
            make(checkpoint, tmp_path, images, FP32, overwrite=True)
        assert contents(tmp_path) == before

    def test_the_same_export_gives_the_same_files(self, checkpoint, images, tmp_path):
        recipes = [FP32, find_recipe("onnx-int8")]
        first, second = (
            {
                path.name: open_artifact(path).manifest
                for path in make(checkpoint, tmp_path / run, images, *recipes, on_gate_failure="write")
            }
            for run in ("one", "two")
        )
        assert first == second


class TestOutputThatCannotBeWritten:
    def test_a_path_below_a_file(self, checkpoint, images, tmp_path):
        (tmp_path / "taken").write_text("mine")
        for output in (tmp_path / "taken", tmp_path / "taken" / "below"):
            with pytest.raises(OutputError) as caught:
                make(checkpoint, output, images, FP32)
            assert str(caught.value).startswith(f"{output}: cannot write: ")
        assert contents(tmp_path).keys() == {"taken"}
        assert (tmp_path / "taken").read_text() == "mine"

    def test_without_enough_free_disk_space_nothing_is_started(self, checkpoint, images, tmp_path):
        """The weight file is a sparse file as large as the free disk space; an export needs four times as much."""
        huge = tmp_path / "model.safetensors"
        huge.touch()
        os.truncate(huge, min(shutil.disk_usage(tmp_path).free, 1 << 42))
        output = tmp_path / "out"
        with pytest.raises(OutputError, match=r"an export of this checkpoint needs about \d+ MB and \d+ MB are free"):
            make(replace(checkpoint, weight_files=(huge,)), output, images, FP32)
        assert names(output) == []

    @pytest.mark.full
    def test_a_full_disk_gives_a_one_line_error_and_leaves_no_file(self, tiny_checkpoint, images, tmp_path):
        recipes = ["pytorch-fp32", "onnx-fp32", "onnx-int8"]
        for outcome in run_limited(tiny_checkpoint, images, tmp_path, recipes):
            assert outcome["error"] == "OutputError"
            assert outcome["message"].startswith(f"{tmp_path}: cannot write: ")
            assert "\n" not in outcome["message"]
        assert names(tmp_path) == []

    @pytest.mark.full
    def test_a_full_disk_during_an_overwrite_keeps_the_old_artifact(self, tiny_checkpoint, checkpoint, images, tmp_path):
        recipes = ["pytorch-int8", "onnx-int8"]
        make(checkpoint, tmp_path, images, *map(find_recipe, recipes), on_gate_failure="write")
        before = contents(tmp_path)
        outcomes = run_limited(tiny_checkpoint, images, tmp_path, recipes)
        assert [outcome["error"] for outcome in outcomes] == ["OutputError", "OutputError"]
        assert contents(tmp_path) == before


LIMIT_BYTES = 60_000
"""Larger than a reference run, smaller than any file of weights."""

LIMITED = """
import json, resource, sys
from pathlib import Path
from exporters.export import export
from exporters.checkpoint.checkpoint import open_checkpoint
from exporters.gate.labelled_image import LabelledImage
from exporters.recipes import find_recipe

source, output, recipes, limit, images = json.loads(sys.argv[1])
checkpoint = open_checkpoint(source)
images = [LabelledImage(Path(path), tuple(captions)) for path, captions in images]
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
for recipe in recipes:
    try:
        list(export(checkpoint, [find_recipe(recipe)], Path(output), images, overwrite=True, on_gate_failure="write"))
    except Exception as error:
        print("outcome", json.dumps({"error": type(error).__name__, "message": str(error)}))
    else:
        print("outcome", json.dumps({"error": None, "message": ""}))
"""


def run_limited(source: Path, images: list[LabelledImage], output: Path, recipes: list[str]) -> list[dict[str, str]]:
    """Export each recipe in a process with a limit on file size, so that writes fail half-way, as on a full disk."""
    rows = [[str(image.path), list(image.texts)] for image in images]
    argument = json.dumps([str(source), str(output), recipes, LIMIT_BYTES, rows])
    done = subprocess.run([sys.executable, "-c", LIMITED, argument], capture_output=True, text=True, check=True)
    outcomes = [json.loads(line.removeprefix("outcome ")) for line in done.stdout.splitlines() if line.startswith("outcome ")]
    assert len(outcomes) == len(recipes)
    return outcomes
