"""Counters, gauges and histograms in Prometheus' text format, version 0.0.4. Names and units follow its conventions.

Own code instead of a client library: 60 lines, and a start without the library's 0.2 s of imports.
"""

import math
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, TypeAlias

Labels: TypeAlias = tuple[tuple[str, str], ...]

BUCKETS_S = tuple(round(0.01 * 1.5**i, 4) for i in range(23))
"""Bounds of the histograms, from 10 ms to 75 s: each one is 1.5 times the bound before it."""
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metric(ABC):
    """Base of the metrics. A metric has one series per set of labels.

    Args:
        name: Name with its unit as suffix.
        text: One line of help.
        kind: Type in the exposition.
    """

    def __init__(self, name: str, text: str, kind: Literal["counter", "gauge", "histogram"]) -> None:
        self.name, self._text, self._kind = name, text, kind

    @abstractmethod
    def samples(self) -> Iterable[tuple[str, Labels, float]]:
        """Return suffix of the name, labels and value of each sample."""

    def lines(self) -> list[str]:
        """Return the metric as lines of text."""
        head = [f"# HELP {self.name} {self._text}", f"# TYPE {self.name} {self._kind}"]
        return head + [f"{self.name}{suffix}{_labels(labels)} {_number(value)}" for suffix, labels, value in self.samples()]


class Counter(Metric):
    """A number that only rises."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(name, text, "counter")
        self._values: dict[Labels, float] = defaultdict(float)

    def add(self, amount: float = 1, **labels: str) -> None:
        """Add to the series of these labels."""
        self._values[tuple(labels.items())] += amount

    def samples(self) -> Iterable[tuple[str, Labels, float]]:
        """See `Metric.samples`."""
        return [("", labels, value) for labels, value in self._values.items()]


class Gauge(Metric):
    """A number that is read when it is collected. The function returns label values → number."""

    def __init__(
        self, name: str, text: str, read: Callable[[], Mapping[Labels, float]], kind: Literal["counter", "gauge"] = "gauge"
    ) -> None:
        super().__init__(name, text, kind)
        self._read = read

    def samples(self) -> Iterable[tuple[str, Labels, float]]:
        """See `Metric.samples`."""
        return [("", labels, value) for labels, value in self._read().items()]


class Histogram(Metric):
    """Seconds, counted in `BUCKETS_S`."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(name, text, "histogram")
        self._counts: dict[Labels, list[int]] = defaultdict(lambda: [0] * (len(BUCKETS_S) + 1))
        self._sums: dict[Labels, float] = defaultdict(float)

    def observe(self, seconds: float, **labels: str) -> None:
        """Count a value in the series of these labels."""
        key = tuple(labels.items())
        self._counts[key][bisect_left(BUCKETS_S, seconds)] += 1
        self._sums[key] += seconds

    def samples(self) -> Iterable[tuple[str, Labels, float]]:
        """See `Metric.samples`."""
        for labels, counts in self._counts.items():
            total = 0
            for bound, count in zip((*BUCKETS_S, math.inf), counts, strict=True):
                total += count
                yield "_bucket", (*labels, ("le", _number(bound))), total
            yield "_sum", labels, self._sums[labels]
            yield "_count", labels, total


def exposition(metrics: Iterable[Metric]) -> str:
    """Return metrics as the body of a response."""
    return "".join(f"{line}\n" for metric in metrics for line in metric.lines())


def _labels(labels: Labels) -> str:
    escaped = (f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels)
    return f"{{{','.join(escaped)}}}" if labels else ""


_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def _number(value: float) -> str:
    return "+Inf" if value == math.inf else repr(float(value))
