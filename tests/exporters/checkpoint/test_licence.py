"""The licence of a model card. A damaged card is a card without a licence: it never stops an export."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporters.checkpoint.files import read_licence


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: apache-2.0\ntags: [a]\n---\n# A model\n", "apache-2.0"),
        ("---\nlicense: mit\nmodel-index: 5\n---\n", "mit"),  # other metadata is not read
        ("---\nlanguage: en\n---\n", None),
        ("---\nlicense: [a, b]\n---\n", None),
        ("# Only a text\n", None),
        ("---\n- a\n- b\n---\n", None),
        ("---\nlicense: 'open\n---\n", None),
        ("---\nlicense: !!python/object/apply:os.getcwd []\n---\n", None),
        ("---\nlicense: mit\ndate: 2026-99-99\n---\n", None),
        ("---\n" + "[" * 5000 + "\n---\n", None),
        ("---\nlicense: mit\n\xff\n---\n".encode("latin-1"), None),
    ],
)
def test_the_licence_is_read_or_absent(tmp_path, card, licence):
    (tmp_path / "README.md").write_bytes(card if isinstance(card, bytes) else card.encode())
    assert read_licence(tmp_path) == licence


def test_without_a_card_there_is_no_licence(tmp_path):
    assert read_licence(tmp_path) is None


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="-:!&*[]{}<>|#'\"?%@,.019eE_+\n tl", max_size=80))
def test_no_metadata_raises_an_error(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("card")
    (folder / "README.md").write_text(f"---\nlicense: mit\n{text}\n---\n", encoding="utf-8")
    assert isinstance(read_licence(folder), str | None)
