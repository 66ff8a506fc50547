"""What all rows of a report share: records go in; lines on machine, workload, and what the figures mean come out."""

from collections.abc import Sequence

from toolkit.records.record import BASELINE, Limits, Record
from toolkit.records.settings import setting_of, settings_of, values
from toolkit.records.source_commit import shown_commit
from toolkit.tables.columns import UNSTABLE
from toolkit.tables.markdown import BEST


def facts(records: Sequence[Record]) -> str:
    """Return what all rows share: machine, workload, and what the figures mean."""
    host, work = records[0].host, records[0].workload
    versions = ", ".join(f"{name} {version}" for name, version in versions_of(records).items())
    search = "greedy" if work.num_beams == 1 else f"{work.num_beams} beams"
    memory = f", {host.memory_bytes / 2**30:.0f} GiB" if host.memory_bytes else ""
    lines = [
        f"Host: {host.cpu} ({', '.join(host.cpu_features)}), {host.cores} cores{memory}, {host.system}, Python {host.python}; {versions}.",
        f"Workload: {work.images} images of {work.dataset} (sha256 {work.dataset_sha256[:12]}), "
        f"{_settings(records, search)}, {work.warmup} warm-up, {_count(work.repeats, 'repeat')} interleaved, "
        "each case in its own process.",
        "Time is the median over images and repeats ± half the range of the repeats' medians; a speed-up is the median of the repeats' "
        f"ratios to {BASELINE} [lowest, highest]. Peak: highest resident memory from start to last caption.",
        _energy(records),
    ]
    if len({(record.case, setting_of(record)) for record in records}) > 1:
        lines.append(f"Marks:{BEST} the best figure of a column (quality has a verdict instead);{UNSTABLE} times that cannot be trusted.")
    if records[0].measured_at:
        lines.insert(1, f"Measured: {records[0].measured_at}, {_source(records[0].commit)}.")
    if len(settings_of(records)) > 1:
        lines.append("Cases: b images per run of the model (times are per image, a batch's divided), t threads, tok forced tokens.")
    if work.metric_counter:
        lines.append(
            f"BLEU: COCO's (closest reference length, no smoothing), n-grams counted by {work.metric_counter}; changes are relative to "
            f"{BASELINE} with a paired bootstrap 95 % interval over images; drift: rise of the references' negative log-probability."
        )
    if limits := limits_of(records):
        lines.append(
            f"Limits: before the cases, {'; '.join(map(_reached, limits))} (best of several); an encode cannot take less than "
            "its products at that rate, a token not less than reading its weights and cross K/V, unless they fit in the cache."
        )
    return "\n".join(lines)


def _source(commit: str | None) -> str:
    return f"commit {shown_commit(commit)}" if commit else "installed toolkit"


def _energy(records: Sequence[Record]) -> str:
    if all(record.energy_j is None for record in records):
        return "Energy: not measured (no RAPL counter can be read here); CPU s/image is the processor time of all threads."
    return "Energy: RAPL's processor packages while captioning, whatever else ran and idling included; memory and disks not."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _settings(records: Sequence[Record], search: str) -> str:
    """Say how many images at a time, how, how long and with how many threads."""
    batches, threads, tokens = (values(records, axis) for axis in ("batch_size", "threads", "tokens"))
    forced = [count for count in tokens if count is not None]
    lengths = [f"{_either(forced)} forced tokens"] if forced else []
    longest = [record.workload.max_length for record in records if setting_of(record).tokens is None]
    lengths += [f"at most {longest[0]} tokens with [DEC]"] if longest else []
    at_a_time = "one" if batches == [1] else _either(batches)
    return f"{at_a_time} at a time, {search}, {' or '.join(lengths)}, {_either(threads)} {'thread' if threads == [1] else 'threads'}"


def _either(values: Sequence[int | None]) -> str:
    return " or ".join(filter(None, (", ".join(map(str, values[:-1])), *map(str, values[-1:]))))


def versions_of(records: Sequence[Record]) -> dict[str, str]:
    """Return library → version."""
    return dict(sorted(item for record in records for item in record.versions.items()))


def limits_of(records: Sequence[Record]) -> list[Limits]:
    """Return the machine's limits, one for each number of threads."""
    return list({record.limits.threads: record.limits for record in records if record.limits}.values())


def _reached(limits: Limits) -> str:
    integers = "" if limits.int8_macs_per_s is None else f" and {limits.int8_macs_per_s / 1e9:.0f} in INT8"
    return (
        f"{_count(limits.threads, 'thread')} read {limits.bytes_per_s / 1e9:.1f} GB/s and {limits.library} "
        f"multiplied {limits.float_macs_per_s / 1e9:.0f} GMAC/s in FP32{integers}"
    )
