"""A damaged manifest: flipped bits, truncation and mutants are refused or read as another manifest."""

import json
import os
import random
from dataclasses import replace

import pytest

from runtimes.artifact.manifest import parse_manifest, read_manifest
from runtimes.errors import ManifestError, ManifestTooOldError, ManifestVersionError
from tests.runtimes.artifact.test_manifest import NAMED, small_manifest


@pytest.mark.slow
@pytest.mark.full
def test_every_flipped_bit_is_refused_or_changes_the_digest(tmp_path):
    """All bits are tested. A flip that keeps the value (1e-05 and 1E-05) changes the digest too."""
    content = small_manifest().content
    path = tmp_path / "manifest.json"
    path.write_bytes(content)
    digests, refused = set(), 0
    with path.open("r+b", buffering=0) as file:
        for position in range(len(content)):
            for bit in range(8):
                os.pwrite(file.fileno(), bytes([content[position] ^ 1 << bit]), position)
                try:
                    digests.add(read_manifest(path).digest)
                except (ManifestError, ManifestVersionError, ManifestTooOldError) as error:
                    assert str(error).isprintable()  # noqa: PT017 - twenty thousand `raises` are slow
                    refused += 1
            os.pwrite(file.fileno(), content[position : position + 1], position)
    assert read_manifest(path) == small_manifest()
    assert len(digests) + refused == 8 * len(content)
    assert small_manifest().digest not in digests


def test_every_truncation_is_refused(tmp_path):
    content = small_manifest().content
    path = tmp_path / "manifest.json"
    path.write_bytes(content)
    for length in reversed(range(len(content) - 1)):  # without the last line feed it is whole
        os.truncate(path, length)
        with pytest.raises(ManifestError):
            read_manifest(path)


@pytest.mark.slow
@pytest.mark.full
def test_mutants_are_read_or_refused_with_a_problem(tmp_path):
    """Values of other types at random locations."""
    draw = random.Random(3)
    values = [None, True, -1, 0, 2**70, 1.5, -0.0, "", "x", "../x", "\U0001f600", "a\nb", [], ["a"], {}, {"a": 1}, [[]], 10**400]
    read = 0
    for number in range(1500):
        parsed = json.loads(small_manifest().content)
        for _ in range(draw.choice((1, 1, 2))):
            holder, key = draw.choice(list(locations(parsed)))
            if draw.random() < 0.15:
                holder.pop(key)
            else:
                holder[key] = draw.choice(values)
        path = tmp_path / f"{number}.json"  # a new file: rewriting one makes the file system wait for the disk
        path.write_text(json.dumps(parsed))
        try:
            manifest = read_manifest(path)
        except (ManifestError, ManifestVersionError, ManifestTooOldError) as error:
            assert NAMED.search(str(error)), error  # noqa: PT017
            assert str(error).isprintable()  # noqa: PT017
        else:
            assert parse_manifest(replace(manifest).content, path) == manifest
            read += 1
    assert 100 < read < 1000


def locations(value):
    """Every (container, key) of JSON values."""
    for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(item, dict | list):
            yield from locations(item)
