"""What every case said of every image: records go in; comparisons with the baseline, word by word, come out."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal, TypeAlias

from toolkit.records.record import BASELINE, ImageQuality, Record

Run: TypeAlias = tuple[str, Literal["same", "new", "gone"]]
"""Words in a row: in the baseline's caption too, in its place, or, where it goes on without a replacement, only there."""


@dataclass(frozen=True, kw_only=True)
class Saying:
    """One caption and who said it."""

    cases: tuple[str, ...]
    runs: tuple[Run, ...]
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What was said of one image."""

    place: int
    """Of the image in its dataset."""
    file: str
    sayings: tuple[Saying, ...]
    """The baseline's first, then by rising distance."""
    distances: dict[str, float]
    """Case → part of the words that differ from the baseline's, 0 to 1; a failure counts 1."""

    @property
    def disagreement(self) -> float:
        """Mean distance over the cases."""
        return sum(self.distances.values()) / len(self.distances) if self.distances else 0.0


def comparisons(records: Sequence[Record]) -> list[Comparison]:
    """Return a comparison for each image, the most disagreement first.

    Args:
        records: Of one setting.
    """
    said: dict[str, Sequence[ImageQuality]] = {}
    for record in records:
        if record.quality:
            said.setdefault(record.case, record.quality)
    base = base_case(records)
    if base is None:
        return []
    found = [_compare(place, {case: quality[place] for case, quality in said.items()}, base) for place in range(len(said[base]))]
    return sorted(found, key=lambda one: -one.disagreement)


def base_case(records: Sequence[Record]) -> str | None:
    """Return the case that captions are compared with: the baseline or, where a run has none, the first; None without captions."""
    said = [record.case for record in records if record.quality]
    return BASELINE if BASELINE in said else next(iter(said), None)


def difference(words: Sequence[str], base: Sequence[str]) -> tuple[tuple[Run, ...], float]:
    """Cut a caption into runs of words that the other one has there or not; return also the part of both captions' words that differ."""
    matcher = SequenceMatcher(None, base, words, autojunk=False)
    runs: list[Run] = []
    for operation, base_start, base_end, start, end in matcher.get_opcodes():
        if operation == "delete":
            runs.append((" ".join(base[base_start:base_end]), "gone"))
        else:
            runs.append((" ".join(words[start:end]), "same" if operation == "equal" else "new"))
    return tuple(runs), 1 - matcher.ratio()


def _compare(place: int, images: dict[str, ImageQuality], base: str) -> Comparison:
    """Group the cases that said the same."""
    said: dict[tuple[str | None, str], list[str]] = {}
    for case, image in images.items():
        said.setdefault((image.error, image.caption), []).append(case)
    reference = images[base].caption.split()
    sayings: list[tuple[float, Saying]] = []
    distances: dict[str, float] = {}
    for (error, caption), cases in said.items():
        marked, distance = difference(caption.split(), reference)
        distance = distance if error is None else 1.0
        sayings.append((-1.0 if base in cases else distance, Saying(cases=tuple(cases), runs=marked, error=error)))
        distances |= {case: distance for case in cases if case != base}
    ordered = tuple(saying for _, saying in sorted(sayings, key=lambda pair: pair[0]))
    return Comparison(place=place, file=images[base].file, sayings=ordered, distances=distances)
