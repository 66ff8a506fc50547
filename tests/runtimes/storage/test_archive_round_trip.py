"""Unpacking an archive restores the same bytes for any file names and sizes."""

import hashlib
import string
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from exporters.recipes import find_recipe
from runtimes.artifact.manifest import MANIFEST_NAME, FileEntry
from runtimes.storage.archive import read_archive_manifest, unpack, write_archive
from tests.runtimes.selection.test_ranking import manifest

STEM = st.text(string.ascii_letters + string.digits + "_+-", max_size=41)
SIZES = st.one_of(st.sampled_from([0, 1, 511, 512, 513, 1024]), st.integers(0, 5000))
"""Sizes of files: near multiples of tar's blocks, and any."""


@settings(derandomize=True, deadline=None, max_examples=15)
@given(st.dictionaries(STEM.map(lambda stem: f"f{stem}.bin"), SIZES, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_unpacking_restores_what_was_packed(sizes, random):
    content = {name: random.randbytes(size) for name, size in sizes.items()}
    files = {
        name: FileEntry(role=f"r{number}", bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        for number, (name, data) in enumerate(content.items())
    }
    sealed = replace(manifest(find_recipe("onnx-int8")), files=files)
    with TemporaryDirectory() as temporary:
        archive, target = Path(temporary, "a.tar.gz"), Path(temporary, "b")
        with archive.open("wb") as stream:
            write_archive(stream, archive, sealed, iter([iter([data]) for data in content.values()]))
        assert read_archive_manifest(archive).digest == unpack(archive, target).digest == sealed.digest
        restored = {file.name: file.read_bytes() for file in target.iterdir()}
        assert restored == content | {MANIFEST_NAME: sealed.content}
