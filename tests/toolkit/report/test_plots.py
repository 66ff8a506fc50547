"""Plots: the Pareto front, the structure of the SVG, and its description."""

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from tests.paths import GOLDEN
from toolkit.records.record_file import read_records
from toolkit.report.axes import shown_time
from toolkit.report.pareto import MEASURES, front, pareto_plot
from toolkit.report.plots import make_plots
from toolkit.report.svg import COLOURS, standalone
from toolkit.report.theme import DARK, LIGHT
from toolkit.stats.rows import make_rows

RECORDS = read_records(GOLDEN / "records.jsonl")
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def plots():
    rows = make_rows(RECORDS)
    return make_plots(RECORDS, rows, rows[1])


@pytest.mark.parametrize(
    ("points", "best"),
    [
        ([(1, 1)], [0]),
        ([(1, 3), (2, 2), (3, 1)], [0, 1, 2]),
        ([(3, 1), (1, 3), (2, 2)], [1, 2, 0]),
        ([(1, 1), (2, 2), (1, 5)], [0]),
        ([(1, 2), (2, 2), (3, 1)], [0, 2]),
        ([(1, 1), (1, 1)], [0]),
    ],
)
def test_pareto_front(points, best):
    assert front(points) == best


@pytest.mark.parametrize(("seconds", "text"), [(0.0354, "35.4 ms"), (0.9, "900 ms"), (0.9996, "1 s"), (2.2041, "2.2 s"), (12, "12 s")])
def test_times_have_a_unit(seconds, text):
    assert shown_time(seconds) == text


def test_which_plots_are_drawn(plots):
    assert [plot.name for plot in plots] == ["pareto-drift", "pareto-cider-change", "size", "stages", "spread", "start"]


def test_every_plot_is_themed_and_has_a_text_alternative(plots):
    for plot in plots:
        root = ElementTree.fromstring(plot.svg)
        assert [child.tag for child in root[:2]] == [f"{SVG}title", f"{SVG}desc"]
        assert (root[0].text, root[1].text) == (plot.title, plot.description)
        assert root.get("aria-labelledby") == f"{root[0].get('id')} {root[1].get('id')}"
        assert root.get("role") == "img"
        assert "#0100" not in plot.svg, "a placeholder colour is left"
        assert "var(--" in plot.svg
        assert "DejaVu" not in plot.svg
        assert root.find(f".//{SVG}style") is None


def test_ids_within_a_page_are_unique_and_all_references_resolve(plots):
    ids, used = [], set()
    for plot in plots:
        for element in ElementTree.fromstring(plot.svg).iter():
            ids += [element.get("id")] if element.get("id") else []
            used |= {value.split("#")[1].rstrip(")") for value in element.attrib.values() if "url(#" in value or value.startswith("#")}
    assert len(ids) == len(set(ids))
    assert used <= set(ids)


def test_the_description_has_the_figures(plots):
    of = {plot.name: plot.description for plot in plots}
    assert of["pareto-drift"].startswith("hf-fp32: ") or "hf-fp32: " in of["pareto-drift"]
    row = next(row for row in make_rows(RECORDS) if row["case"] == "onnx-int8")
    assert f"onnx-int8: size {row['artifact_bytes'] / 1e6:.0f} MB, peak memory {row['peak_rss_bytes'] / 1e6:.0f} MB" in of["size"]
    assert f"{row['drift']:+.4f} nat/token [{row['drift_low']:+.4f}, {row['drift_high']:+.4f}]" in of["pareto-drift"]


def test_every_case_is_named_in_every_plot(plots):
    cases = [row["case"] for row in make_rows(RECORDS) if row["seconds_per_image"] is not None]
    for plot in plots:
        words = [element.text for element in ElementTree.fromstring(plot.svg).iter(f"{SVG}text")]
        assert [case for case in cases if case not in words] == [], plot.name


def test_without_quality_the_size_is_drawn_against_time():
    bare = [
        replace(
            record,
            quality=tuple(
                replace(
                    image,
                    matches=None,
                    totals=None,
                    hypothesis_length=None,
                    reference_length=None,
                    cider=None,
                    rouge_l=None,
                    log_probability=None,
                )
                for image in record.quality
            ),
        )
        for record in RECORDS
    ]
    assert [plot.name for plot in make_plots(bare, make_rows(bare), None)][:2] == ["pareto-artifact-bytes", "size"]


def test_a_sweep_has_a_throughput_plot():
    swept = [
        replace(record, workload=replace(record.workload, batch_size=size), times=record.times[:: size])
        for size in (1, 2)
        for record in RECORDS
    ]  # fmt: skip
    rows = make_rows(swept)
    plots = {plot.name: plot for plot in make_plots(swept, rows, None)}
    assert "onnx-int8: " in plots["throughput"].description
    of = {(row["case"], row["batch_size"]): row["images_per_second"] for row in rows}
    assert f"onnx-int8: {of['onnx-int8', 1]:.2f} at 1, {of['onnx-int8', 2]:.2f} at 2" in plots["throughput"].description
    assert "onnx-int8 b1" in plots["size"].description
    assert "b2" not in plots["size"].description


def test_a_standalone_file_has_both_themes(plots):
    text = standalone(plots[0], LIGHT, DARK)
    root = ElementTree.fromstring(text)
    (sheet,) = [element.text for element in root.iter(f"{SVG}style")]
    assert all(f"--{name}:{theme[name]}" in sheet for theme in (LIGHT, DARK) for name in COLOURS)
    assert "prefers-color-scheme:dark" in sheet


def test_the_same_records_give_the_same_bytes():
    rows = make_rows(RECORDS)
    first, second = (pareto_plot(rows, MEASURES[0], rows[1]) for _ in range(2))
    assert first == second
