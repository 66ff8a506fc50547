"""Tables and images of results are those of the committed records, and a recipe is the same in all of them."""

import pytest

from tests.docs.pages import kinds, name_of, pages, rendered
from tests.docs.tables import PUBLISHED, RENDERERS, THROUGHPUT, file_of, images, plot, texts
from toolkit.records.record_file import read_records


@pytest.mark.parametrize("page", [page for page in pages() if kinds(page) & set(RENDERERS)], ids=name_of)
def test_tables_and_images_are_those_of_the_committed_records(page):
    assert rendered(page, RENDERERS) == page.read_text(encoding="utf-8"), "run make docs"


@pytest.mark.parametrize(("host", "name"), images())
def test_image_files_show_the_committed_records(host, name):
    assert texts(file_of(host, name).read_text(encoding="utf-8")) == texts(plot(host, name).svg), "run make docs"


def test_every_published_recipe_has_one_hash_per_folder():
    hashes = {}
    for file in sorted(set(PUBLISHED.glob("*/*.jsonl")) - set(PUBLISHED.glob(f"*/{THROUGHPUT}.jsonl"))):
        for record in read_records(file):
            if record.subject and record.subject.recipe:
                hashes.setdefault((file.parent.name, record.subject.recipe), set()).add(record.subject.recipe_sha256)
    assert {recipe: len(values) for recipe, values in hashes.items()} == dict.fromkeys(hashes, 1), "in a folder, all runs have one version"
    assert {recipe for _, recipe in hashes} >= {"pytorch-int8", "onnx-int8"}
