"""What is compared, as data: each measure names its figure in a report's row, how people read it, and where its interval comes from."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from exporters.gate.intervals import Change, Float64, Statistic, change_of_images, change_of_repeats, medians, relative
from toolkit.compare.sides import Pair
from toolkit.records.record import ImageTimes
from toolkit.stats.figures import FIGURES, speedups

NOT_COMPARED = Change(None, None, None)


@dataclass(frozen=True)
class Measure:
    """One line of a comparison."""

    key: str
    """Of a row of a report; also its name in a limit."""
    title: str
    """With its unit."""
    pattern: str
    words: tuple[str, str]
    """What B is where its figure is lower, and where it is higher."""
    change: Callable[[Pair], Change]
    """Relative unless `absolute`; without ends where no interval can be told, with ends equal to it where there is nothing to doubt."""
    scale: float = 1.0
    """From the figure's SI unit to the title's."""
    absolute: bool = False
    """The change is a difference: of a figure that may be 0."""
    shown: bool = True
    """In people's table; the others are in JSON, and limits know them."""


def _images(values: Callable[[ImageTimes], tuple[float, ...]], statistic: Statistic) -> Callable[[Pair], Change]:
    def change(pair: Pair) -> Change:
        a, b = pair.times(values)
        return change_of_images(a, b, statistic, paired=pair.same_images) if a.size and b.size else NOT_COMPARED

    return change


def _told(tells: Callable[[ImageTimes], bool], compared: Callable[[Pair], Change]) -> Callable[[Pair], Change]:
    """Compare only where both sides tell it: a whole loop that is one run has no stages."""

    def change(pair: Pair) -> Change:
        told = all(any(tells(time) for record in side.good for time in record.times) for side in (pair.a, pair.b))
        return compared(pair) if told else NOT_COMPARED

    return change


def _stage(seconds: Callable[[ImageTimes], float | None]) -> Callable[[Pair], Change]:
    return _told(lambda t: seconds(t) is not None, _images(lambda t: (seconds(t) or 0.0,), medians))


def _repeats(key: str) -> Callable[[Pair], Change]:
    def change(pair: Pair) -> Change:
        a, b = ([value for record in side.good if (value := FIGURES[key](record)) is not None] for side in (pair.a, pair.b))
        return change_of_repeats(a, b)

    return change


def _speedup(pair: Pair) -> Change:
    a, b = (speedups(side.good, side.baseline) for side in (pair.a, pair.b))
    return change_of_repeats(a, b)


def _exact(key: str) -> Callable[[Pair], Change]:
    def change(pair: Pair) -> Change:
        change = relative(pair.a.row[key], pair.b.row[key]).change
        return Change(change, change, change)

    return change


def _score(key: str) -> Callable[[Pair], Change]:
    ends = ("", "_low", "_high") if key == "drift" else ("_change", "_change_low", "_change_high")

    def change(pair: Pair) -> Change:
        return Change(*(pair.quality.get(f"{key}{end}") for end in ends))

    return change


def _difference(key: str) -> Callable[[Pair], Change]:
    def change(pair: Pair) -> Change:
        a, b = pair.a.row[key], pair.b.row[key]
        return NOT_COMPARED if a is None or b is None else Change(b - a, None, None)

    return change


def _p90(numbers: Float64) -> Float64:
    return np.asarray(np.quantile(numbers[:, :, 0], 0.9, axis=1))


def _rate(numbers: Float64) -> Float64:
    """Things over seconds: f64[S,P,2] → f64[S]; 0 where there were none."""
    sums = numbers.sum(axis=1)
    return np.asarray(np.divide(sums[:, 0], sums[:, 1], out=np.zeros(len(sums)), where=sums[:, 1] != 0))


_TOKEN_RATE = _told(lambda t: bool(t.token_s), _images(lambda t: (len(t.token_s), sum(t.token_s)), _rate))
_TIME = ("faster", "slower")
_RATE = ("slower", "faster")
_SIZE = ("smaller", "larger")
_USE = ("less", "more")
_LOSS = ("better", "worse")
_SCORE = ("worse", "better")


def _process(key: str, title: str, words: tuple[str, str] = _TIME, pattern: str = "{:.2f}", *, shown: bool = True) -> Measure:
    return Measure(key, title, pattern, words, _repeats(key), shown=shown)


def _bytes(key: str, title: str, change: Callable[[Pair], Change], *, shown: bool = True) -> Measure:
    return Measure(key, title, "{:.1f}", _SIZE, change, scale=1e-6, shown=shown)


MEASURES = (
    Measure("seconds_per_image", "s/image", "{:.3f}", _TIME, _images(lambda t: (t.total_s,), medians)),
    Measure("seconds_per_image_p90", "p90 s/image", "{:.3f}", _TIME, _images(lambda t: (t.total_s,), _p90)),
    Measure("images_per_second", "images/s", "{:.2f}", _RATE, _images(lambda t: (1.0, t.total_s), _rate), shown=False),
    Measure("speedup", "speed-up", "{:.2f}", _RATE, _speedup),
    Measure("encode_seconds", "encode ms", "{:.2f}", _TIME, _stage(lambda t: t.encode_s), scale=1e3),
    Measure("first_token_seconds", "first token ms", "{:.2f}", _TIME, _stage(lambda t: t.first_token_s), scale=1e3),
    Measure("tokens_per_second", "tokens/s", "{:.1f}", _RATE, _TOKEN_RATE),
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
    Measure("drift", "drift nat/token", "{:+.4f}", _LOSS, _score("drift"), absolute=True),
    Measure("bleu4", "BLEU-4", "{:.3f}", _SCORE, _score("bleu4")),
    Measure("cider", "CIDEr-D", "{:.3f}", _SCORE, _score("cider")),
    Measure("rouge_l", "ROUGE-L", "{:.3f}", _SCORE, _score("rouge_l")),
    Measure("exact_match", "same captions as FP32", "{:.3f}", _SCORE, _difference("exact_match"), absolute=True, shown=False),
)
"""In the order of people's table."""
