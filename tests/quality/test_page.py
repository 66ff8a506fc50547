"""The page on quality, from hand-written sections."""

import pytest

from tests.paths import GOLDEN
from tests.quality.page import KIND, NOT_MEASURED, PAGE, TABLES, show
from tests.quality.sections import read_section, write_section

BOUNDS = {"drift": 0.01, "drift_low": 0.004, "drift_high": 0.016}
ROWS = {
    "stress": [
        {"kind": kind, "scale": scale, "case": "onnx-int8", "smoothed": smoothed, **BOUNDS, "drift": 0.001 * scale}
        for kind, scale in (("channel", 1), ("channel", 100), ("token", 100))
        for smoothed in (False, True)
    ],
    "int4": [
        {"case": "GPTQ", "stage": "selection", "block": 32, "smoothed": True, "images": 121, "kl": 0.02, "bytes": 5_560_000},
        {"case": "GPTQ", "stage": "confirmation", "block": 32, **BOUNDS, "kl": 0.021, "kl_low": 0.019, "kl_high": 0.023, "default": True},
    ],
    "sensitivity": [
        {"layer": "encoder.layers.0.fc1", "component": "encoder", "mode": "only", "drift": 0.0},
        {"layer": "encoder.layers.11.fc1", "component": "encoder", "mode": "only", "drift": 0.008},
        {"layer": "encoder.layers.11.fc2", "component": "encoder", "mode": "only", "drift": -0.001},
        {"layer": "head", "component": "decoder", "mode": "only", "drift": 0.004},
        {"layer": "head", "component": "decoder", "mode": "except", "drift": 0.1},
    ],
    "matching": [
        {
            "case": "onnx-int8",
            "recall_1": 0.28,
            "recall_1_low": 0.2,
            "recall_1_high": 0.36,
            "recall_5": 0.69,
            "recall_1_head": 0.33,
            "same_best": 0.9,
            "similarity_change": 0.01,
            "probability_change": 0.002,
            "gate": True,
            "bytes": 28_000_000,
        },
    ],
    "qat": [
        {"case": "onnx-int4", "stage": "before", **BOUNDS, "drift_limit": 0.05, "kl": 0.02},
        {"case": "onnx-int4", "stage": "after", **BOUNDS, "drift_high": 0.06, "drift_limit": 0.05, "spread": 0.1, "seconds": 1500},
        {"case": "onnx-int4", "stage": "difference", "kl_ratio": 0.5, "kl_ratio_low": 0.45, "kl_ratio_high": 0.55},
    ],
}


@pytest.fixture
def folder(tmp_path):
    for name, rows in ROWS.items():
        write_section(
            tmp_path / f"{name}.json", checkpoint="c", dataset="d", images=83, command="toolkit x", rows=rows, notes=["First.", "Second."]
        )
    return tmp_path


def lines(folder, name):
    """Return the cells of each line of a section's tables."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in show(name, folder).splitlines() if line.startswith("|")]


def test_outliers_have_a_column_per_scale(folder):
    text = show("stress", folder)
    assert [line for line in text.splitlines() if line.startswith("Outliers")] == [
        "Outliers of kind `channel`, drift in nat/token:",
        "Outliers of kind `token`, drift in nat/token:",
    ]
    table = lines(folder, "stress")
    assert table[0] == ["recipe", "smoothed", "1x", "10x", "30x", "100x"]
    assert (
        table[2:4]
        == table[6:8]
        == [["`onnx-int8`", smoothed, "+0.0010 [+0.0040, +0.0160]", "-", "-", "+0.1000 [+0.0040, +0.0160]"] for smoothed in ("no", "yes")]
    )


def test_methods_have_a_table_per_stage(folder):
    table = lines(folder, "int4")
    assert table[2] == ["GPTQ", "32", "yes", "121", "-", "0.0200", "5.56", ""]
    assert table[5] == ["GPTQ", "32", "no", "83", "+0.0100 [+0.0040, +0.0160]", "0.0210 [0.0190, 0.0230]", "-", "default"]


def test_layers_have_a_heat_map_per_component(folder):
    table = lines(folder, "sensitivity")
    assert table[0] == ["layer", "0", "11"]
    assert table[2:4] == [["`fc1`", "+0.0", "█ +8.0"], ["`fc2`", "", "-1.0"]]
    assert table[4:] == [["layer", "one"], ["---", "---"], ["`head`", "▒ +4.0"]]


def test_training_is_judged_by_the_recipes_limit(folder):
    assert [row[-2:] for row in lines(folder, "qat")[2:]] == [["no loss", "-"], ["loss", "25"], ["-", "-"]]
    assert "0.5000 [0.4500, 0.5500] of before" in show("qat", folder)


def test_retrieval_has_a_row_per_recipe(folder):
    row = ["`onnx-int8`", "0.280 [0.200, 0.360]", "0.690", "0.330", "0.900", "0.0100", "0.0020", "passed", "28.00"]
    assert lines(folder, "matching")[2:] == [row]


@pytest.mark.parametrize("name", ROWS)
def test_every_section_has_its_source(folder, name):
    section = read_section(folder / f"{name}.json")
    assert show(name, folder).splitlines()[-5:] == [
        "- First.",
        "- Second.",
        f"- 83 images of d, checkpoint c, {section.host}.",
        f"- {section.measured_at[:10]}, commit {section.commit[:7]}{'+dirty' if 'dirty' in section.commit else ''}.",
        "- Measured with `toolkit x`.",
    ]


def test_recipes_have_the_tables_of_a_report(tmp_path):
    (tmp_path / "recipes.jsonl").write_bytes((GOLDEN / "records.jsonl").read_bytes())
    text = show("recipes", tmp_path)
    assert "no verdict (4 of 20 images)" in text
    assert "s/image" not in text.split("Host:")[0]


def test_sections_without_records_are_named(tmp_path):
    names = [*TABLES, "recipes"]
    assert [show(name, tmp_path) for name in names] == [NOT_MEASURED] * len(names)
    page = PAGE.read_text(encoding="utf-8")
    assert all(f"<!-- {KIND} {name} -->" in page for name in names)
