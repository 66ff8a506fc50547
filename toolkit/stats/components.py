"""Compute the table of an artifact's size by component."""

from collections.abc import Sequence

from toolkit.records.record import Record
from toolkit.stats.rows import Row


def component_rows(records: Sequence[Record]) -> list[Row]:
    """Return one row per artifact: bytes of each component and the total. Components that it does not have are None.

    There are no rows if no record has components.
    """
    parts = {record.case: record.subject.components for record in reversed(records) if record.subject and record.subject.components}
    cases = [case for case in dict.fromkeys(record.case for record in records) if case in parts]
    names = list(dict.fromkeys(name for case in cases for name in parts[case]))
    names.sort(key=lambda name: -max(parts[case].get(name, 0) for case in cases))
    return [{"case": case, **{name: parts[case].get(name) for name in names}, "total": sum(parts[case].values())} for case in cases]
