"""README: its tables and images are those of the committed records, and the same recipes stand in both."""

import re

from tests.readme import PUBLISHED, README, file_of, images, plot, rendered, said
from toolkit.records.record import read_records


def test_tables_and_images_are_those_of_the_committed_records():
    assert rendered(README.read_text()) == README.read_text(), "run make readme"


def test_image_files_say_what_the_committed_records_say():
    names = images(README.read_text())
    assert names == ["quality"]
    for name in names:
        assert said(file_of(name).read_text(encoding="utf-8")) == said(plot(name).svg), "run make readme"


def test_every_published_recipe_has_one_hash():
    hashes = {}
    for file in sorted(PUBLISHED.glob("*.jsonl")):
        for record in read_records(file):
            if record.subject and record.subject.recipe:
                hashes.setdefault(record.subject.recipe, set()).add(record.subject.recipe_sha256)
    assert {recipe: len(found) for recipe, found in hashes.items()} == dict.fromkeys(hashes, 1)
    assert set(hashes) >= {"pytorch-int8", "onnx-int8"}


def test_commands_of_the_first_screen_are_make_targets():
    makefile = (README.parent / "Makefile").read_text()
    for target in re.findall(r"^make ([a-z-]+)", README.read_text(), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
