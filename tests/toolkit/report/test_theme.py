"""Contrast of the colours in both themes, by the formula of WCAG."""

import pytest

from toolkit.report.svg import COLOURS
from toolkit.report.theme import DARK, LIGHT

TEXT, GRAPHICS = 4.5, 3.0


def luminance(colour):
    """Relative luminance of #rrggbb (WCAG 2.2)."""
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(colour, other):
    light, dark = sorted((luminance(colour), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_contrast_of_known_colours():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_colours_have_enough_contrast(theme):
    on_paper = {name: contrast(theme[name], theme["paper"]) for name in theme}
    assert {name: round(on_paper[name], 2) for name in ("ink", "muted", "accent") if on_paper[name] < TEXT} == {}
    assert {name: round(on_paper[name], 2) for name in ("first", "second", "third", "fourth") if on_paper[name] < GRAPHICS} == {}
    assert contrast(theme["ink"], theme["mark"]) >= TEXT


def test_both_themes_have_every_colour_of_a_plot():
    assert set(LIGHT) == set(DARK) == {*COLOURS, "mark"}
