"""Select and draw the plots of a page."""

from collections.abc import Callable, Sequence
from statistics import fmean

from toolkit.records.record import ImageTimes, Record
from toolkit.report.bars import Bars, Segment, bars_plot, stack_plot
from toolkit.report.pareto import MEASURES, SIZE, pareto_plot
from toolkit.report.recommendation import recommend
from toolkit.report.spread import spread_plot
from toolkit.report.svg import FIFTH, FIRST, FOURTH, SECOND, THIRD, Plot
from toolkit.report.throughput import throughput_plot
from toolkit.stats.rows import Row, group, make_rows
from toolkit.tables.columns import shown_case
from toolkit.tables.words import words_of

STAGES: tuple[tuple[str, str, Callable[[ImageTimes], float | None]], ...] = (
    ("read", FIRST, lambda time: time.read_s),
    ("encode", SECOND, lambda time: time.encode_s),
    ("texts", FIFTH, lambda time: time.text_s),
    ("first token", THIRD, lambda time: time.first_token_s),
    ("further tokens", FOURTH, lambda time: sum(time.token_s)),
)
START = (("import", FIRST, "import_seconds"), ("load", SECOND, "load_seconds"), ("first caption", THIRD, "first_caption_seconds"))

PEAK = "Size of the artifact's files, and peak resident memory from process start to the last caption."


def make_plots(records: Sequence[Record], rows: Sequence[Row], chosen: Row | None) -> list[Plot]:
    """Return the plots for which the records have data.

    For a sweep, all plots but the throughput show one setting: that of the chosen row, or the first.
    """
    measured = [row for row in rows if row["seconds_per_image"] is not None]
    if not measured:
        return []
    of_setting = chosen or measured[0]
    shown = sorted((row for row in measured if _setting(row) == _setting(of_setting)), key=lambda row: row["seconds_per_image"])
    cases, mark = [shown_case(row) for row in shown], shown_case(chosen) if chosen else None
    groups = {(case, *vars(setting).values()): case_records for (case, setting), case_records in group(records).items()}
    pooled = [[time for record in groups[row["case"], *_setting(row)] for time in record.times] for row in shown]
    plots = [pareto_plot(shown, measure, chosen) for measure in MEASURES]
    if not any(plots):
        plots = [pareto_plot(shown, SIZE, chosen)]
    plots += [
        bars_plot(
            "size",
            "Size and memory",
            PEAK,
            cases,
            mark,
            [_megabytes("size", "artifact_bytes", shown), _megabytes("peak memory", "peak_rss_bytes", shown)],
        ),
        _stages_plot(shown, pooled, mark),
        spread_plot(cases, mark, [[time.total_s for time in times] for times in pooled]),
    ]
    started = [row for row in shown if all(row[key] is not None for _, _, key in START)]
    if started:
        parts = [Segment(title=title, colour=colour, values=[row[key] for row in started]) for title, colour, key in START]
        note = "Measured in a fresh process, to the end of the first caption."
        plots.append(stack_plot("start", "Start-up, s", note, [shown_case(row) for row in started], mark, parts, "{:.2f}"))
    plots.append(throughput_plot(measured, chosen))
    return [plot for plot in plots if plot]


def first_plot(records: Sequence[Record]) -> Plot | None:
    """Return the most important plot: quality, or size, against time; None if there is nothing to compare."""
    rows = make_rows(records)
    return next(iter(make_plots(records, rows, recommend(rows, words_of(records)).chosen)), None)


def _stages_plot(rows: Sequence[Row], times: Sequence[Sequence[ImageTimes]], mark: str | None) -> Plot | None:
    """Draw the stages of a caption, without single-graph artifacts, whose stages cannot be timed."""
    staged = [(shown_case(row), row_times) for row, row_times in zip(rows, times, strict=True) if row["encode_seconds"] is not None]
    parts = [
        Segment(title=title, colour=colour, values=[fmean(stage(time) or 0.0 for time in row_times) * 1e3 for _, row_times in staged])
        for title, colour, stage in STAGES
        if any(stage(time) is not None for _, row_times in staged for time in row_times)
    ]
    cases, note = [case for case, _ in staged], "Means over images and repeats."
    return stack_plot("stages", "Time by stage, ms per image", note, cases, mark, parts, "{:.1f}") if staged else None


def _setting(row: Row) -> tuple[int, int, int | None]:
    return row["batch_size"], row["threads"], row["forced_tokens"]


def _megabytes(title: str, key: str, rows: Sequence[Row]) -> Bars:
    return Bars(title=title, unit="MB", values=[None if row[key] is None else row[key] / 1e6 for row in rows])
