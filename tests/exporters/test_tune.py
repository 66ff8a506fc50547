"""Test the search for formats that meet a budget, on the tiny checkpoint."""

import json
import shutil

import pytest

from exporters.calibration.activations import Calibration
from exporters.checkpoint.checkpoint import open_checkpoint
from exporters.export import export
from exporters.mixed_precision.budget import Budget
from exporters.mixed_precision.journal import DriftJournal
from exporters.recipes import find_recipe
from exporters.tune import GRAPH_BYTES, check_disjoint, paths_of, tune, write_recipe
from runtimes.artifact.folder import open_artifact
from runtimes.errors import BudgetError, DatasetError


def run(checkpoint, images, folder, budget, objective="size"):
    """Tune with 4 calibration images, 4 search images and the others for the confirmation."""
    return tune(
        checkpoint,
        find_recipe("onnx-int8"),
        budget,
        objective,
        images[4:8],
        images[8:],
        DriftJournal(folder / "search.jsonl", {}),
        calibration=Calibration(paths_of(images[:4])),
        threads=1,
    )


@pytest.mark.full
def test_a_recipe_within_the_budget_is_found_and_an_export_reproduces_it(tiny_checkpoint, drawn_images, tmp_path):
    checkpoint = open_checkpoint(str(tiny_checkpoint))
    tuned = run(checkpoint, drawn_images, tmp_path, Budget(drift_nat=0.01))
    assert tuned.evaluations <= 20
    assert tuned.verdict in ("met", "met on average")
    assert len({each for formats in tuned.formats.values() for each in formats.values()}) > 1
    write_recipe(tuned.recipe, tmp_path / "tuned.json")
    recipe = find_recipe(str(tmp_path / "tuned.json"))
    assert recipe == tuned.recipe
    (path,) = export(checkpoint, [recipe], tmp_path / "out", drawn_images[8:], on_gate_failure="write")
    manifest = open_artifact(path).manifest
    assert manifest.gate["drift_nat_per_token"] == tuned.drift.nat
    assert open_artifact(path).total_bytes == tuned.size_bytes
    rows = [json.loads(line) for line in (tmp_path / "search.jsonl").read_text().splitlines()]
    assert sum(row.get("key", "").startswith("drift ") for row in rows) <= tuned.evaluations
    again = run(checkpoint, drawn_images, tmp_path, Budget(drift_nat=0.01))  # from the journal alone
    assert (again.recipe, again.drift.nat, again.size_bytes) == (tuned.recipe, tuned.drift.nat, tuned.size_bytes)
    with pytest.raises(BudgetError, match="the nearest has a drift of"):
        run(checkpoint, drawn_images, tmp_path, Budget(drift_nat=1e-12, size_bytes=GRAPH_BYTES + tuned.size_bytes))
    with pytest.raises(BudgetError, match="the smallest artifact has"):
        run(checkpoint, drawn_images, tmp_path, Budget(drift_nat=0.01, size_bytes=1000))


def test_an_image_in_two_sets_is_an_error_that_names_it(drawn_images, tmp_path):
    copy = tmp_path / "renamed.png"
    shutil.copy(drawn_images[0].path, copy)
    with pytest.raises(DatasetError) as caught:
        check_disjoint({"calibration": [drawn_images[0].path], "search": [drawn_images[1].path], "confirmation": [copy]})
    assert str(copy) in str(caught.value)
    assert drawn_images[0].path.name in str(caught.value)
    check_disjoint({"search": [drawn_images[0].path, copy], "confirmation": [drawn_images[1].path]})
    with pytest.raises(DatasetError):
        check_disjoint({"search": [tmp_path / "missing.png"]})
