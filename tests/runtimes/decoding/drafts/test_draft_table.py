"""The file of a draft table: what is written is read, and nothing else is."""

import io
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtimes.decoding.drafts.draft_table import MAX_BYTES, MAX_ENTRIES, read_table, write_table

VOCABULARY = 50
PROPERTIES = settings(derandomize=True, deadline=None, max_examples=60)
TOKENS = st.integers(0, VOCABULARY - 1)
TABLES = st.dictionaries(
    st.lists(TOKENS, min_size=1, max_size=3).map(tuple), st.tuples(TOKENS, st.integers(0, 1000).map(lambda n: n / 1000)), max_size=30
)
TABLE = {(1,): (2, 0.5), (1, 2): (3, 0.75), (4, 5, 6): (7, 1.0)}


@PROPERTIES
@given(TABLES)
def test_a_table_is_read_as_it_was_written(table):
    content = write_table(table)
    assert read_table(content, VOCABULARY) == table
    assert np.load(io.BytesIO(content), allow_pickle=False).shape == (len(table), 5)


def test_equal_tables_give_equal_bytes_in_any_order():
    assert write_table(dict(reversed(TABLE.items()))) == write_table(TABLE)


def test_the_largest_table_has_at_most_300_kb():
    table = {(number,): (0, 0.5) for number in range(MAX_ENTRIES)}
    assert len(content := write_table(table)) <= MAX_BYTES
    assert len(read_table(content, MAX_ENTRIES)) == MAX_ENTRIES


def saved(rows, dtype="<i4", **options):
    stream = io.BytesIO()
    np.save(stream, np.asanyarray(rows, dtype), **options)
    return stream.getvalue()


def zipped():
    stream = io.BytesIO()
    np.savez(stream, table=np.zeros((1, 5), "<i4"))
    return stream.getvalue()


def with_header(header):
    text = header.encode() + b" " * (118 - len(header)) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


HUGE = with_header("{'descr': '<i4', 'fortran_order': False, 'shape': (1000000000000, 5), }")
ROW = [-1, -1, 1, 2, 500]
FORGED = {
    "empty": b"",
    "text": b"not an array",
    "pickle": pickle.dumps([ROW]),
    "objects": saved([ROW], object, allow_pickle=True),
    "zip": zipped(),
    "another version": b"\x93NUMPY\x03\x00" + saved([ROW])[8:],
    "cut header": saved([ROW])[:40],
    "cut data": saved([ROW])[:-1],
    "more data": saved([ROW]) + b"\0",
    "more rows than data": HUGE,
    "no dictionary": with_header("[1, 2, 3]"),
    "code as header": with_header("__import__('os').system('true')"),
    "deep header": with_header("(" * 60 + ")" * 50),
    "another type": saved([ROW], "<i8"),
    "big-endian": saved([ROW], ">i4"),
    "floats": saved([ROW], "<f4"),
    "four columns": saved([ROW[1:]]),
    "three axes": saved([[ROW]]),
    "one axis": saved(ROW),
    "columns first": saved(np.asfortranarray([ROW, ROW], "<i4")),
    "token of another vocabulary": saved([[-1, -1, 1, VOCABULARY, 500]]),
    "context of another vocabulary": saved([[-1, -1, VOCABULARY, 2, 500]]),
    "negative token": saved([[-1, -1, 1, -1, 500]]),
    "negative context": saved([[-1, -2, 1, 2, 500]]),
    "no context": saved([[-1, -1, -1, 2, 500]]),
    "padding after a token": saved([[1, -1, 1, 2, 500]]),
    "confidence above 1": saved([[-1, -1, 1, 2, 1001]]),
    "negative confidence": saved([[-1, -1, 1, 2, -1]]),
    "too large": saved([ROW] * 20_000),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_file_is_refused_with_one_line(name):
    with pytest.raises(ValueError, match=r"^(is not|has) ") as caught:
        read_table(FORGED[name], VOCABULARY)
    assert "\n" not in str(caught.value)


@PROPERTIES
@given(st.integers(0, len(write_table(TABLE)) - 1), st.integers(0, 255))
def test_a_changed_byte_gives_a_table_or_a_value_error(position, value):
    content = bytearray(write_table(TABLE))
    content[position] = value
    try:
        table = read_table(bytes(content), VOCABULARY)
    except ValueError:
        return
    assert all(0 <= token < VOCABULARY and 0 <= confidence <= 1 for token, confidence in table.values())
    assert all(1 <= len(context) <= 3 for context in table)
