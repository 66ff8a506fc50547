"""Whole tables: aligned columns, marks at the best figures, and tables that are split because they are too wide."""

from toolkit.tables.columns import Column, number
from toolkit.tables.markdown import WIDTH, table

NAME = Column("case", lambda row: row["case"])


def test_columns_are_aligned_and_the_best_figures_are_marked():
    columns = (
        NAME,
        Column("s", number("s", "{:.2f}"), lowest="s"),
        Column("rate", number("rate", "{:.0f}"), highest="rate"),
        Column("MB", number("mb", "{:.0f} (x)"), lowest="mb"),
        Column("note", number("s", "{:.1f}")),
    )
    rows = [
        {"case": "one", "s": 1.004, "rate": None, "mb": 7.0},
        {"case": "three", "s": 1.003, "rate": 3.0, "mb": 7.0},
        {"case": "two", "s": 2.5, "rate": 20.0, "mb": 7.0},
    ]
    assert table(columns, rows).splitlines() == [
        "| case  | s      | rate | MB    | note |",
        "|-------|--------|------|-------|------|",
        "| one   | 1.00 * | -    | 7 (x) | 1.0  |",
        "| three | 1.00 * | 3    | 7 (x) | 1.0  |",
        "| two   | 2.50   | 20 * | 7 (x) | 2.5  |",
    ], "figures with the same text are all marked; a column with equal texts has no mark"
    assert " *" not in table(columns, rows[:1])


def test_a_table_that_is_too_wide_is_split():
    rows = [{"case": "a" * 20, "x": 1.0}]
    columns = [NAME, *(Column(f"column {index:02}".ljust(30, "-"), number("x", "{:.0f}")) for index in range(5))]
    first, second, third = table(columns, rows).split("\n\n")
    assert [part.splitlines()[0].count("column") for part in (first, second, third)] == [2, 2, 1]
    assert [part.splitlines()[0].split("|")[1].strip() for part in (first, second, third)] == ["case"] * 3
    assert max(len(line) for part in (first, second, third) for line in part.splitlines()) == 90 <= WIDTH


def test_a_table_of_exactly_the_maximum_width_is_not_split():
    """The first column takes 4 + 3 + 1 characters; the others take the rest of 100."""
    rows = [{"case": "a", "x": 1.0}]
    for length, tables in ((WIDTH - 8 - 3, 1), (WIDTH - 8 - 2, 2)):
        columns = [NAME, Column("x" * (length - 8), number("x", "{:.0f}")), Column("y" * 5, number("x", "{:.0f}"))]
        assert len(table(columns, rows).split("\n\n")) == tables
