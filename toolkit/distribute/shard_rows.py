"""The rows of a shard while it is captioned: images with equal bytes are captioned once."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from runtimes.errors import ImageChangedError, ToolkitError
from runtimes.images.reading import image_name, upright_size
from runtimes.pool.job import Item
from runtimes.pool.rows import Row
from toolkit.distribute.entry import Entry
from toolkit.distribute.manifest import ShardEntries
from toolkit.distribute.reading import Content
from toolkit.distribute.tally import News

COPIED: Final = ("caption", "token_ids", "score", "finish_reason", "alternatives", "code", "sha256", "width", "height")
"""Fields of a row that depend only on the bytes of the image."""


class ShardRows:
    """Collects the rows of a shard. `items` may run in another thread than the other methods.

    Args:
        shard: The inputs.
        kept: Place in the shard → row of an earlier run.
        earlier_row: Returns a row of an earlier shard by its index, or None if it is not finished.
    """

    def __init__(self, shard: ShardEntries, kept: Mapping[int, Row], earlier_row: Callable[[int], Row | None]) -> None:
        self._shard, self._earlier_row = shard, earlier_row
        self._rows: dict[int, Row] = {}
        self._errors: list[tuple[str, str]] = []
        for position, row in kept.items():
            self._put(position, row)
        self._missing = [position for position in range(len(shard.entries)) if position not in kept]
        self._position_of = {row["sha256"]: position for position, row in kept.items() if row["sha256"] and row["error"] is None}
        self._same_as: dict[int, int] = {}
        self._read: dict[int, tuple[str, bytes]] = {}
        self._reported = (len(self._rows), len(self._errors))

    def missing(self) -> list[Entry]:
        """Return the inputs that need a row, in order."""
        return [self._shard.entries[position] for position in self._missing]

    def items(self, contents: Iterable[Content]) -> Iterator[Item]:
        """Yield the images that must be captioned. `Item.index` is the position in the shard.

        Args:
            contents: The bytes of the inputs of `missing`, in order.
        """
        for position, content in zip(self._missing, contents, strict=True):
            entry = self._shard.entries[position]
            if isinstance(content, ToolkitError):
                self._put(position, self._row(position, error=str(content), code=content.code))
                continue
            digest = hashlib.sha256(content)
            sha256 = digest.hexdigest()
            if entry.sha256 is not None and entry.sha256 != digest.digest():
                error = ImageChangedError(entry.image)
                self._put(position, self._row(position, error=str(error), code=error.code, sha256=sha256))
            elif (same := self._position_of.setdefault(sha256, position)) != position:
                self._same_as[position] = same
            elif (row := self._finished_elsewhere(position, sha256)) is not None:
                self._put(position, self._copied(position, row))
            else:
                self._read[position] = (sha256, content)
                yield Item(entry.image, content, position)

    def add(self, batch: Sequence[Item], captions: Sequence[Row]) -> None:
        """Add the rows of captioned images."""
        for item, caption in zip(batch, captions, strict=True):
            sha256, content = self._read.pop(item.index)
            # The header was decoded in a subprocess before, which did not crash.
            width, height = (None if "error" in caption else upright_size(content)) or (None, None)
            if "error" in caption:  # the subprocess knows the bytes, not the name
                caption = {**caption, "error": caption["error"].replace(image_name(content), self._image(item.index), 1)}
            more = {"sha256": sha256, "width": width, "height": height, "duplicate_of": self._shard.first[item.index]}
            self._put(item.index, self._row(item.index, **{**caption, **more}))

    def news(self) -> News:
        """Return what was added since the last call."""
        (rows, errors), self._reported = self._reported, (len(self._rows), len(self._errors))
        return News(rows=self._reported[0] - rows, errors=tuple(self._errors[errors : self._reported[1]]))

    def finished(self) -> list[Row]:
        """Return all rows in order."""
        for position, same in self._same_as.items():
            self._put(position, self._copied(position, self._rows[same]))
        assert len(self._rows) == len(self._shard.entries)
        return [self._rows[position] for position in range(len(self._rows))]

    def _put(self, position: int, row: Row) -> None:
        self._rows[position] = row
        if row.get("error") is not None:
            self._errors.append((row["code"], row["error"]))

    def _row(self, position: int, **fields: Any) -> Row:  # noqa: ANN401 - values of a row
        return {**fields, "index": self._shard.start + position, "image": self._image(position)}

    def _image(self, position: int) -> str:
        return self._shard.entries[position].image

    def _finished_elsewhere(self, position: int, sha256: str) -> Row | None:
        """Return the finished row of an earlier shard with the same bytes."""
        first = self._shard.first[position]
        row = None if first is None or first >= self._shard.start else self._earlier_row(first)
        return row if row is not None and row["sha256"] == sha256 and row["error"] is None else None

    def _copied(self, position: int, row: Row) -> Row:
        """Return the row of an image with the same bytes as that of another row."""
        error, first = row.get("error"), row.get("duplicate_of")
        return self._row(
            position,
            **{name: row.get(name) for name in COPIED},
            duplicate_of=row["index"] if first is None else first,
            error=None if error is None else self._image(position) + error.removeprefix(row["image"]),
        )
