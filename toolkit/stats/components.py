"""What an artifact's bytes are spent on: records go in; a row per case goes out, a column per component."""

from collections.abc import Sequence

from toolkit.records.record import Record
from toolkit.stats.rows import Row


def component_rows(records: Sequence[Record]) -> list[Row]:
    """Return the bytes of every artifact's components and their sum, null for what it does not have; none where no record tells."""
    found = {record.case: record.subject.components for record in reversed(records) if record.subject and record.subject.components}
    cases = [case for case in dict.fromkeys(record.case for record in records) if case in found]
    names = list(dict.fromkeys(name for case in cases for name in found[case]))
    names.sort(key=lambda name: -max(found[case].get(name, 0) for case in cases))
    return [{"case": case, **{name: found[case].get(name) for name in names}, "total": sum(found[case].values())} for case in cases]
