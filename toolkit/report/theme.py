"""The colours of a page and of its plots, in the light and the dark theme.

The stages have hues of Okabe and Ito (2008), which can be distinguished without colour vision. They are darkened or lightened to a contrast
of 3:1 with the page (WCAG 2.2, 1.4.11). Text has a contrast of 4.5:1 (1.4.3). tests/toolkit/report/test_theme.py computes both.
"""

LIGHT = {
    "paper": "#fdfcf9",
    "ink": "#1d2126",
    "muted": "#5c636b",
    "rule": "#dedcd5",
    "accent": "#0a5ea8",
    "first": "#7d858e",
    "second": "#0072b2",
    "third": "#b46a00",
    "fourth": "#008a64",
    "fifth": "#a8507f",
    "mark": "#ffe9a8",
}
DARK = {
    "paper": "#15181c",
    "ink": "#e9e7e1",
    "muted": "#a3a9b1",
    "rule": "#353a41",
    "accent": "#79b8f2",
    "first": "#8f97a1",
    "second": "#56b4e9",
    "third": "#e69f00",
    "fourth": "#2fbf91",
    "fifth": "#d68ab3",
    "mark": "#5a4708",
}
"""Name → colour. Both themes have the same names; `mark` is the background of words that differ."""
