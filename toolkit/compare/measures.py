"""The measures of a comparison, as a table: key in a report's row, title, format and the computation of the change."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from exporters.gate.intervals import Change, Float64, Statistic, change_of_images, change_of_repeats, medians, relative
from exporters.gate.retrieval import TOP
from runtimes.tasks.registry import TASKS
from toolkit.compare.case_pair import CasePair
from toolkit.records.record import ImageTimes
from toolkit.stats.figures import FIGURES, speedups

NOT_COMPARED = Change(None, None, None)
TEXTS, CAPTIONS, ANSWERS, MATCHES = ("caption", "vqa"), ("caption",), ("vqa",), ("matching",)
"""Tasks of a measure."""


@dataclass(frozen=True)
class Measure:
    """A measure; one line of a comparison."""

    key: str
    """Key in a row of a report, and name in a limit."""
    title: str
    """Title with unit."""
    pattern: str
    words: tuple[str, str]
    """Words for a lower and a higher value of B."""
    change: Callable[[CasePair], Change]
    """Compute the change, relative unless `absolute`. Its bounds are None without an interval, and equal to the change if it is exact."""
    scale: float = 1.0
    """Factor from the value's SI unit to the unit of the title."""
    absolute: bool = False
    """Whether the change is a difference; for values that may be 0."""
    shown: bool = True
    """Whether the Markdown table shows it; JSON and limits have every measure."""
    tasks: tuple[str, ...] = tuple(TASKS)
    """Tasks whose cases have it."""


def _images(values: Callable[[ImageTimes], tuple[float, ...]], statistic: Statistic) -> Callable[[CasePair], Change]:
    def change(pair: CasePair) -> Change:
        a, b = pair.times(values)
        return change_of_images(a, b, statistic, paired=pair.same_images) if a.size and b.size else NOT_COMPARED

    return change


def _if_measured(measured: Callable[[ImageTimes], bool], compared: Callable[[CasePair], Change]) -> Callable[[CasePair], Change]:
    """Compare only if both cases have a measured image: the stages of a loop in one graph are not measured."""

    def change(pair: CasePair) -> Change:
        both = all(any(measured(time) for record in case.good for time in record.times) for case in (pair.a, pair.b))
        return compared(pair) if both else NOT_COMPARED

    return change


def _stage(seconds: Callable[[ImageTimes], float | None]) -> Callable[[CasePair], Change]:
    return _if_measured(lambda t: seconds(t) is not None, _images(lambda t: (seconds(t) or 0.0,), medians))


def _repeats(key: str) -> Callable[[CasePair], Change]:
    def change(pair: CasePair) -> Change:
        a, b = ([value for record in case.good if (value := FIGURES[key](record)) is not None] for case in (pair.a, pair.b))
        return change_of_repeats(a, b)

    return change


def _speedup(pair: CasePair) -> Change:
    a, b = (speedups(case.good, case.baseline) for case in (pair.a, pair.b))
    return change_of_repeats(a, b)


def _exact(key: str) -> Callable[[CasePair], Change]:
    def change(pair: CasePair) -> Change:
        change = relative(pair.a.row[key], pair.b.row[key]).change
        return Change(change, change, change)

    return change


def _score(key: str) -> Callable[[CasePair], Change]:
    ends = ("", "_low", "_high") if key == "drift" else ("_change", "_change_low", "_change_high")

    def change(pair: CasePair) -> Change:
        return Change(*(pair.quality.get(f"{key}{end}") for end in ends))

    return change


def _difference(key: str) -> Callable[[CasePair], Change]:
    def change(pair: CasePair) -> Change:
        a, b = pair.a.row[key], pair.b.row[key]
        return NOT_COMPARED if a is None or b is None else Change(b - a, None, None)

    return change


def _p90(numbers: Float64) -> Float64:
    return np.asarray(np.quantile(numbers[:, :, 0], 0.9, axis=1))


def _rate(numbers: Float64) -> Float64:
    """Return counts per second: f64[S,P,2] → f64[S]; 0 where the seconds are 0."""
    sums = numbers.sum(axis=1)
    return np.asarray(np.divide(sums[:, 0], sums[:, 1], out=np.zeros(len(sums)), where=sums[:, 1] != 0))


_TOKEN_RATE = _if_measured(lambda t: bool(t.token_s), _images(lambda t: (len(t.token_s), sum(t.token_s)), _rate))
_TIME = ("faster", "slower")
_RATE = ("slower", "faster")
_SIZE = ("smaller", "larger")
_USE = ("less", "more")
_LOSS = ("better", "worse")
_SCORE = ("worse", "better")


def _process(key: str, title: str, words: tuple[str, str] = _TIME, pattern: str = "{:.2f}", *, shown: bool = True) -> Measure:
    return Measure(key, title, pattern, words, _repeats(key), shown=shown)


def _bytes(key: str, title: str, change: Callable[[CasePair], Change], *, shown: bool = True) -> Measure:
    return Measure(key, title, "{:.1f}", _SIZE, change, scale=1e-6, shown=shown)


MEASURES = (
    Measure("seconds_per_image", "s/image", "{:.3f}", _TIME, _images(lambda t: (t.total_s,), medians)),
    Measure("seconds_per_image_p90", "p90 s/image", "{:.3f}", _TIME, _images(lambda t: (t.total_s,), _p90)),
    Measure("images_per_second", "images/s", "{:.2f}", _RATE, _images(lambda t: (1.0, t.total_s), _rate), shown=False),
    Measure("speedup", "speed-up", "{:.2f}", _RATE, _speedup),
    Measure("encode_seconds", "encode ms", "{:.2f}", _TIME, _stage(lambda t: t.encode_s), scale=1e3),
    Measure("text_seconds", "texts ms", "{:.2f}", _TIME, _stage(lambda t: t.text_s), scale=1e3, tasks=(*ANSWERS, *MATCHES)),
    Measure("first_token_seconds", "first token ms", "{:.2f}", _TIME, _stage(lambda t: t.first_token_s), scale=1e3, tasks=TEXTS),
    Measure("tokens_per_second", "tokens/s", "{:.1f}", _RATE, _TOKEN_RATE, tasks=TEXTS),
    _process("cpu_seconds_per_image", "CPU s/image", _USE, "{:.3f}"),
    _process("joules_per_image", "J/image", _USE),
    _process("import_seconds", "import s", shown=False),
    _process("load_seconds", "load s", shown=False),
    _process("hash_seconds", "hash s", shown=False),
    _process("first_caption_seconds", "first caption s", shown=False),
    _process("startup_seconds", "start-up s"),
    _bytes("loaded_rss_bytes", "loaded MB", _repeats("loaded_rss_bytes"), shown=False),
    _bytes("peak_rss_bytes", "peak MB", _repeats("peak_rss_bytes")),
    _bytes("artifact_bytes", "size MB", _exact("artifact_bytes")),
    _bytes("disk_bytes", "disk MB", _exact("disk_bytes"), shown=False),
    Measure("drift", "drift nat/token", "{:+.4f}", _LOSS, _score("drift"), absolute=True, tasks=TEXTS),
    Measure("kl", "KL nat/token", "{:.4f}", _LOSS, _difference("kl"), absolute=True, tasks=TEXTS),
    Measure("bleu4", "BLEU-4", "{:.3f}", _SCORE, _score("bleu4"), tasks=CAPTIONS),
    Measure("cider", "CIDEr-D", "{:.3f}", _SCORE, _score("cider"), tasks=CAPTIONS),
    Measure("rouge_l", "ROUGE-L", "{:.3f}", _SCORE, _score("rouge_l"), tasks=CAPTIONS),
    Measure("vqa_accuracy", "VQA accuracy", "{:.3f}", _SCORE, _score("vqa_accuracy"), tasks=ANSWERS),
    Measure("similarity_change", "change of similarity", "{:.4f}", _LOSS, _difference("similarity_change"), absolute=True, tasks=MATCHES),
    Measure(
        "probability_change", "change of probability", "{:.4f}", _LOSS, _difference("probability_change"), absolute=True, tasks=MATCHES
    ),
    *(
        Measure(
            f"agreement_{k}", f"FP32's best image among {k}", "{:.3f}", _SCORE, _difference(f"agreement_{k}"), absolute=True, tasks=MATCHES
        )
        for k in TOP
    ),
    *(
        Measure(f"{what}_recall_{k}", f"{what} R@{k}", "{:.3f}", _SCORE, _score(f"{what}_recall_{k}"), tasks=MATCHES)
        for what in ("image", "text")
        for k in TOP
    ),
    Measure("exact_match", "same captions as FP32", "{:.3f}", _SCORE, _difference("exact_match"), absolute=True, shown=False),
)
"""In the order of the Markdown table."""
