"""Compare the captions of all cases with the baseline's, word by word."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal, TypeAlias

from toolkit.records.image_quality import ImageQuality
from toolkit.records.record import BASELINE, Record

DiffSpan: TypeAlias = tuple[str, Literal["same", "new", "gone"]]
"""Consecutive words: the same as in the baseline's caption, new (inserted or replaced), or gone (only in the baseline's caption)."""


@dataclass(frozen=True, kw_only=True)
class CaptionGroup:
    """One caption of an image, and the cases that generated it."""

    cases: tuple[str, ...]
    spans: tuple[DiffSpan, ...]
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class ImageComparison:
    """The captions of one image."""

    index: int
    """Index of the image in its dataset."""
    file: str
    question: str | None
    """What the captions answer; None if they are no answers."""
    groups: tuple[CaptionGroup, ...]
    """The baseline's group first, then by increasing distance."""
    distances: dict[str, float]
    """Case → share of words that differ from the baseline's caption, 0 to 1; 1 for a failure."""

    @property
    def disagreement(self) -> float:
        """Return the mean distance over the cases."""
        return sum(self.distances.values()) / len(self.distances) if self.distances else 0.0


def comparisons(records: Sequence[Record]) -> list[ImageComparison]:
    """Return one comparison per image, in order of decreasing disagreement.

    Args:
        records: Of one setting.
    """
    captions: dict[str, Sequence[ImageQuality]] = {}
    for record in records:
        if record.quality:
            captions.setdefault(record.case, record.quality)
    base = base_case(records)
    if base is None:
        return []
    compared = [_compare(index, {case: quality[index] for case, quality in captions.items()}, base) for index in range(len(captions[base]))]
    return sorted(compared, key=lambda comparison: -comparison.disagreement)


def base_case(records: Sequence[Record]) -> str | None:
    """Return the case that captions are compared with: the baseline, or the first case without a baseline; None without captions."""
    cases = [record.case for record in records if record.quality]
    return BASELINE if BASELINE in cases else next(iter(cases), None)


def difference(words: Sequence[str], base: Sequence[str]) -> tuple[tuple[DiffSpan, ...], float]:
    """Return the word diff of a caption against the base caption, and the share of both captions' words that differ."""
    matcher = SequenceMatcher(None, base, words, autojunk=False)
    spans: list[DiffSpan] = []
    for operation, base_start, base_end, start, end in matcher.get_opcodes():
        if operation == "delete":
            spans.append((" ".join(base[base_start:base_end]), "gone"))
        else:
            spans.append((" ".join(words[start:end]), "same" if operation == "equal" else "new"))
    return tuple(spans), 1 - matcher.ratio()


def _compare(index: int, images: dict[str, ImageQuality], base: str) -> ImageComparison:
    """Group the cases by caption."""
    cases_of: dict[tuple[str | None, str], list[str]] = {}
    for case, image in images.items():
        cases_of.setdefault((image.error, image.caption), []).append(case)
    reference = images[base].caption.split()
    groups: list[tuple[float, CaptionGroup]] = []
    distances: dict[str, float] = {}
    for (error, caption), cases in cases_of.items():
        spans, distance = difference(caption.split(), reference)
        distance = distance if error is None else 1.0
        groups.append((-1.0 if base in cases else distance, CaptionGroup(cases=tuple(cases), spans=spans, error=error)))
        distances |= {case: distance for case in cases if case != base}
    ordered = tuple(group for _, group in sorted(groups, key=lambda pair: pair[0]))
    return ImageComparison(index=index, file=images[base].file, question=images[base].question, groups=ordered, distances=distances)
