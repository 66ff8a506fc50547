"""Test the journal of searches: results are computed once, by one process at a time."""

import pytest

from exporters.mixed_precision.journal import DriftJournal, open_journal
from runtimes.errors import OutputError, RequestError


def test_results_are_computed_once_and_survive_a_cut_line(tmp_path):
    path = tmp_path / "search.jsonl"
    assert DriftJournal(path, {"recipe": "a"}).result("one", lambda: {"drift": 0.5}) == {"drift": 0.5}
    with path.open("ab") as stream:
        stream.write(b'{"key": "two", "resu')  # a process that was killed while it wrote
    journal = DriftJournal(path, {"recipe": "a"})
    assert journal.result("one", lambda: pytest.fail("computed again")) == {"drift": 0.5}
    assert journal.result("two", lambda: 2) == 2
    assert DriftJournal(path, {"recipe": "a"}).result("two", lambda: pytest.fail("computed again")) == 2


def test_other_settings_are_refused_unless_overwritten(tmp_path):
    path = tmp_path / "search.jsonl"
    DriftJournal(path, {"recipe": "a"}).result("one", lambda: 1)
    before = path.read_bytes()
    with pytest.raises(RequestError, match="other settings"):
        DriftJournal(path, {"recipe": "b"})
    assert path.read_bytes() == before
    assert DriftJournal(path, {"recipe": "b"}, overwrite=True).result("one", lambda: 3) == 3


def test_one_process_at_a_time_writes_a_journal(tmp_path):
    path = tmp_path / "search.jsonl"
    with open_journal(path, {"recipe": "a"}) as journal:
        journal.result("one", lambda: 1)
        with pytest.raises(OutputError, match="another process"), open_journal(path, {"recipe": "a"}):
            pytest.fail("two processes have the journal")
    with open_journal(path, {"recipe": "a"}) as journal:
        assert journal.result("one", lambda: pytest.fail("computed again")) == 1
