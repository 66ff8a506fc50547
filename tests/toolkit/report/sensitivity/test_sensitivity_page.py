"""Test the heat map and the page of `toolkit sensitivity` on a small hand-made result."""

from xml.etree import ElementTree

from toolkit.report.sensitivity.heat_map import heat_map
from toolkit.report.sensitivity.page import render_sensitivity

LAYERS = {
    "vision_model.encoder.layers.0.mlp.fc1": 0.004,
    "vision_model.encoder.layers.1.mlp.fc1": -0.001,
    "text_decoder.bert.encoder.layer.1.attention.self.qkv": 0.001,
    "text_decoder.cls.predictions.decoder": 0.002,
}


def of(drift: float) -> dict[str, float]:
    return {"drift": drift, "drift_low": drift - 0.001, "drift_high": drift + 0.001}


ROWS = [
    {"layer": name, "format": "qint8", "only": of(drift), "except": of(0.01 - drift), "bytes": 4096, "seconds": 0.0021}
    for name, drift in LAYERS.items()
]
RESULT = {"checkpoint": "<mine>", "recipe": "onnx-int8", "dataset": "sample", "images": 21, **of(0.01), "layers": ROWS}


def test_the_heat_map_has_one_cell_per_layer_and_the_largest_drift_is_opaque():
    plot = heat_map(ROWS)
    assert "vision mlp.fc1 0: 0.0040" in plot.description
    assert "head decoder 0: 0.0020" in plot.description
    assert "text attention.self.qkv 1: 0.0010" in plot.description
    root = ElementTree.fromstring(plot.svg)
    styles = [element.get("style", "") for element in root.iter() if "var(--accent)" in element.get("style", "")]
    assert len(styles) == len(LAYERS)
    assert sum("opacity" not in style or "opacity: 1" in style for style in styles) == 1


def test_the_page_has_a_row_per_layer_and_escapes_names():
    page = render_sensitivity(RESULT)
    assert "&lt;mine&gt;" in page
    assert "<mine>" not in page
    for name in LAYERS:
        assert f'<th scope="row">{name}</th>' in page
    assert "+0.0040 [+0.0030, +0.0050]" in page
    assert "<script" not in page
