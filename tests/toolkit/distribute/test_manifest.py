"""The manifest: rows in order, equal bytes found, a digest of the rows, and further files."""

import hashlib
import random
from dataclasses import replace

import pytest

from runtimes.errors import DatasetError
from toolkit.distribute.entry import Entry
from toolkit.distribute.manifest import ManifestReader, shards_of, write_manifest
from toolkit.distribute.stores.local import LocalStore

STORE = LocalStore()


def entry(name, content=None):
    return Entry(image=name, path=name.encode(), sha256=None if content is None else hashlib.sha256(content).digest())


def write(folder, entries, size=4, earlier=(), name="manifest"):
    return write_manifest(iter(entries), size, f"{folder}/{name}", STORE, [(file, f"{folder}/{file.file}") for file in earlier])


def rows(folder, file, size=4):
    reader = ManifestReader(file, f"{folder}/{file.file}", STORE)
    shards = [reader.shard(file.first_shard + number) for number in range(shards_of(file, size))]
    assert [shard.start for shard in shards] == [file.start + size * number for number in range(len(shards))]
    return [row for shard in shards for row in zip(shard.entries, shard.first, strict=True)]


@pytest.mark.parametrize("seed", range(5))
def test_the_first_row_with_the_same_bytes(tmp_path, seed):
    chance = random.Random(seed)
    entries = [entry(f"{number}", chance.choice([None, bytes([chance.randrange(9)])])) for number in range(41)]
    file = write(tmp_path, entries)
    assert (file.rows, file.start, file.first_shard) == (41, 0, 0)
    hashes = [each.sha256 for each in entries]
    expected = [hashes.index(each) if each and hashes.index(each) < number else None for number, each in enumerate(hashes)]
    assert rows(tmp_path, file) == list(zip(entries, expected, strict=True))


def test_every_field_is_kept(tmp_path):
    odd = Entry(image="\\xff/\u00e9", path=b"\xff", offset=1 << 40, size=3, row=7, sha256=b"x" * 32, problem="it is cut")
    assert rows(tmp_path, write(tmp_path, [odd])) == [(odd, None)]


def test_the_digest_is_that_of_the_rows(tmp_path):
    entries = [entry("a", b"1"), entry("b", b"2")]
    digest = write(tmp_path, entries).digest
    assert write(tmp_path, entries, size=1, name="again").digest == digest
    others = [entries[::-1], entries[:1], [entries[0], entry("b", b"3")], [entries[0], replace(entries[1], offset=1)]]
    assert len({digest, *(write(tmp_path, other, name="other").digest for other in others)}) == 5


def test_a_further_file_has_only_new_rows_and_counts_on(tmp_path):
    first = write(tmp_path, [entry(f"{number}", bytes([number])) for number in range(6)])
    more = [entry("5", b"\x05"), entry("5", b"changed"), entry("new", b"\x02"), entry("6", b"\x06")]
    second = write(tmp_path, more, earlier=[first], name="second")
    assert (second.rows, second.start, second.first_shard) == (3, 6, 2)
    assert [(each.image, same) for each, same in rows(tmp_path, second)] == [("5", None), ("new", 2), ("6", None)]
    assert write(tmp_path, more, earlier=[first, second], name="third") is None


def test_another_file_is_refused(tmp_path):
    file = write(tmp_path, [entry("a")])
    other = write(tmp_path, [entry("b")], name="other")
    for path in (other.file, "none"):
        with pytest.raises(DatasetError, match=path):
            ManifestReader(file, f"{tmp_path}/{path}", STORE)
