"""The colours of a page and of its plots, in light and dark: tables go in, nothing else.

Told apart without colour vision: the stages are Okabe and Ito's hues (2008), darkened or lightened until they stand out from the page
by 3:1 (WCAG 2.2, 1.4.11); text by 4.5:1 (1.4.3). tests/toolkit/test_theme.py computes both.
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
    "mark": "#5a4708",
}
"""Name → colour, the same names in both; `mark` lies behind words that differ."""
