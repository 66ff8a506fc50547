"""The plots of a page: records and their rows go in; a plot for each question they can answer comes out."""

from collections.abc import Callable, Sequence
from statistics import fmean

from toolkit.records.record import ImageTimes, Record
from toolkit.report.bars import Bars, Part, bars_plot, stack_plot
from toolkit.report.pareto import MEASURES, SIZE, pareto_plot
from toolkit.report.recommendation import recommend
from toolkit.report.spread import spread_plot
from toolkit.report.svg import FIRST, FOURTH, SECOND, THIRD, Plot
from toolkit.report.throughput import throughput_plot
from toolkit.stats.rows import Row, group, make_rows
from toolkit.tables.columns import shown_case

STAGES: tuple[tuple[str, str, Callable[[ImageTimes], float | None]], ...] = (
    ("read", FIRST, lambda time: time.read_s),
    ("encode", SECOND, lambda time: time.encode_s),
    ("first token", THIRD, lambda time: time.first_token_s),
    ("further tokens", FOURTH, lambda time: sum(time.token_s)),
)
START = (("import", FIRST, "import_seconds"), ("load", SECOND, "load_seconds"), ("first caption", THIRD, "first_caption_seconds"))

PEAK = "Files of the artifact; highest resident memory from the process's start to its last caption."


def make_plots(records: Sequence[Record], rows: Sequence[Row], chosen: Row | None) -> list[Plot]:
    """Return the plots that the records have figures for.

    Of a sweep, all but the throughput show one setting: the chosen row's, else the first.
    """
    measured = [row for row in rows if row["seconds_per_image"] is not None]
    if not measured:
        return []
    of_setting = chosen or measured[0]
    one = sorted((row for row in measured if _setting(row) == _setting(of_setting)), key=lambda row: row["seconds_per_image"])
    cases, mark = [shown_case(row) for row in one], shown_case(chosen) if chosen else None
    times = {(case, *vars(setting).values()): listed for (case, setting), listed in group(records).items()}
    pooled = [[time for record in times[row["case"], *_setting(row)] for time in record.times] for row in one]
    found = [pareto_plot(one, measure, chosen) for measure in MEASURES]
    if not any(found):
        found = [pareto_plot(one, SIZE, chosen)]
    found += [
        bars_plot(
            "size",
            "Size and memory",
            PEAK,
            cases,
            mark,
            [_megabytes("size", "artifact_bytes", one), _megabytes("peak memory", "peak_rss_bytes", one)],
        ),
        _stages_plot(one, pooled, mark),
        spread_plot(cases, mark, [[time.total_s for time in listed] for listed in pooled]),
    ]
    started = [row for row in one if all(row[key] is not None for _, _, key in START)]
    if started:
        parts = [Part(title=title, colour=colour, values=[row[key] for row in started]) for title, colour, key in START]
        note = "In a fresh process, up to the first caption's end."
        found.append(stack_plot("start", "Start-up, s", note, [shown_case(row) for row in started], mark, parts, "{:.2f}"))
    found.append(throughput_plot(measured, chosen))
    return [plot for plot in found if plot]


def first_plot(records: Sequence[Record]) -> Plot | None:
    """Return the one plot to show where there is room for one: quality against time; None where there is nothing to compare."""
    rows = make_rows(records)
    return next(iter(make_plots(records, rows, recommend(rows).chosen)), None)


def _stages_plot(rows: Sequence[Row], times: Sequence[Sequence[ImageTimes]], mark: str | None) -> Plot | None:
    """Leave out what runs its whole loop at once: its stages cannot be told apart."""
    told = [(shown_case(row), listed) for row, listed in zip(rows, times, strict=True) if row["encode_seconds"] is not None]
    parts = [
        Part(title=title, colour=colour, values=[fmean(stage(time) or 0.0 for time in listed) * 1e3 for _, listed in told])
        for title, colour, stage in STAGES
    ]
    cases, note = [case for case, _ in told], "Means over images and repeats."
    return stack_plot("stages", "Where the time goes, ms per image", note, cases, mark, parts, "{:.1f}") if told else None


def _setting(row: Row) -> tuple[int, int, int | None]:
    return row["batch_size"], row["threads"], row["forced_tokens"]


def _megabytes(title: str, key: str, rows: Sequence[Row]) -> Bars:
    return Bars(title=title, unit="MB", values=[None if row[key] is None else row[key] / 1e6 for row in rows])
