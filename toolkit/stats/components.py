"""What an artifact's bytes are spent on: records go in; a row per case goes out, a column per component."""

from collections.abc import Sequence

from toolkit.records.record import Record
from toolkit.stats.rows import Row
from toolkit.tables.columns import NOT_MEASURED, Column


def component_rows(records: Sequence[Record]) -> list[Row]:
    """Return the bytes of every artifact's components and their sum, null for what it does not have; none where no record tells."""
    found = {record.case: record.subject.components for record in reversed(records) if record.subject and record.subject.components}
    cases = [case for case in dict.fromkeys(record.case for record in records) if case in found]
    names = list(dict.fromkeys(name for case in cases for name in found[case]))
    names.sort(key=lambda name: -max(found[case].get(name, 0) for case in cases))
    return [{"case": case, **{name: found[case].get(name) for name in names}, "total": sum(found[case].values())} for case in cases]


def component_columns(rows: Sequence[Row]) -> list[Column]:
    """Return the columns of these rows."""
    return [Column("case", lambda row: row["case"]), *(_megabytes(name) for name in rows[0] if name != "case")]


def _megabytes(name: str) -> Column:
    return Column(f"{name} MB", lambda row: NOT_MEASURED if row[name] is None else f"{row[name] / 1e6:.2f}")
