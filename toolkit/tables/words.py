"""The words of each task in tables, pages and footnotes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from toolkit.records.record import Record
from toolkit.tables.columns import Column


@dataclass(frozen=True, kw_only=True)
class Words:
    """How the tables of a task name things."""

    sample: str
    """What a time is of."""
    text: str
    """What a case returns, and what is compared between cases."""
    request: str
    """What a case does for a sample."""
    reference: str
    """Texts of people, in the plural."""

    def of_task(self, text: str) -> str:
        """Return a text about captions of images in the words of the task."""
        for word, other in (("first caption", f"first {self.request}"), ("caption", self.text), ("image", self.sample)):
            text = text.replace(word, other).replace(word.capitalize(), other.capitalize())
        return text


WORDS = {
    "caption": Words(sample="image", text="caption", request="caption", reference="captions"),
    "vqa": Words(sample="question", text="answer", request="answer", reference="answers"),
    "matching": Words(sample="image", text="best text", request="comparison", reference="captions"),
}
"""Task → its words."""


def words_of(records: Sequence[Record]) -> Words:
    """Return the words of the records' task."""
    return WORDS[records[0].workload.task]


def in_words(columns: Sequence[Column], words: Words) -> list[Column]:
    """Return columns with the titles of a task."""
    return [replace(column, title=words.of_task(column.title)) for column in columns]
