"""Write the footnotes of a report: machine, workload, and the definitions of its figures."""

from collections.abc import Sequence

from toolkit.records.record import BASELINE, MachineLimits, Record
from toolkit.records.settings import setting_of, settings_of, values
from toolkit.records.source_commit import shown_commit
from toolkit.tables.columns import UNSTABLE
from toolkit.tables.markdown import BEST
from toolkit.tables.words import words_of


def facts(records: Sequence[Record]) -> str:
    """Return the footnotes, one per line."""
    host, work, words = records[0].host, records[0].workload, words_of(records)
    versions = ", ".join(f"{name} {version}" for name, version in versions_of(records).items())
    search = "greedy search" if work.num_beams == 1 else f"beam search with {work.num_beams} beams"
    search += "".join(f", {name} {value}" for name, value in work.generation.items())
    memory = f", {host.memory_bytes / 2**30:.0f} GiB" if host.memory_bytes else ""
    gpu = f", {host.gpu}" if host.gpu and work.device else ""
    lines = [
        f"Host: {host.cpu} ({', '.join(host.cpu_features)}), {host.cores} cores{memory}{gpu}, {host.system}, Python {host.python}; "
        f"{versions}.",
        f"Workload: {work.images} {words.sample}s of {work.dataset} (sha256 {work.dataset_sha256[:12]}), {_settings(records, search)}.",
        f"Repeats: {work.repeats}; each repeat runs all cases. Each case has its own process and "
        f"{_count(work.warmup, f'warm-up {words.request}')}.",
        f"Time: the median over {words.sample}s and repeats ± half the range of the repeats' medians.",
        f"Speed-up: the time of {BASELINE} divided by the time of the case; the median over repeats [lowest, highest].",
        f"Peak memory: the highest resident memory from process start to the last {words.request}.",
        _energy(records),
    ]
    if len({(record.case, setting_of(record)) for record in records}) > 1:
        lines.append(f"Marks:{BEST} is the best figure of a column (quality has a verdict instead);{UNSTABLE} marks unstable times.")
    if records[0].measured_at:
        lines.insert(1, f"Measured: {records[0].measured_at}, {_source(records[0].commit)}.")
    if len(settings_of(records)) > 1:
        lines.append(
            f"Case names: b is the batch size, t the number of threads, tok the number of forced tokens. Times are per {words.sample}."
        )
    if work.metric_counter:
        lines.append(
            f"BLEU: as in COCO's evaluation (closest reference length, no smoothing). N-grams are counted by {work.metric_counter}."
        )
    quality = [image for record in records for image in record.quality]
    answered, ranked = (any(getattr(image, field) is not None for image in quality) for field in ("vqa_accuracy", "retrieval"))
    if answered:
        lines.append(
            "VQA accuracy: as VQAv2 defines it: min(n / 3, 1) for an answer that n people gave, leaving out each of the ten in turn."
        )
    if ranked:
        lines += [
            "Image R@k: share of texts that rank their image among the k best by similarity. "
            "Text R@k: share of images that rank one of their texts among the k best.",
            f"Change of a score: mean difference from {BASELINE}'s, over each image with its own texts and {work.texts} others.",
        ]
    if work.metric_counter or answered or ranked:
        lines.append(
            f"Changes: relative to {BASELINE}, with a paired bootstrap 95 % confidence interval over images. It is wider for few images."
        )
    if work.metric_counter or answered:
        lines += [
            f"Drift: the increase over {BASELINE} of the references' negative log-probability per token.",
            f"KL: the mean divergence of the next-token distributions from {BASELINE}'s at the references' tokens.",
        ]
    if limits := limits_of(records):
        lines += [
            f"Limits of this machine, measured before the cases: {'; '.join(map(_rates, limits))}.",
            "Limit of an encode: the time of its matrix products at this rate.",
            "Limit of a token: the time to read its weights and its cross K/V from memory. Data in the cache is read faster.",
        ]
    return "\n".join(lines)


def _source(commit: str | None) -> str:
    return f"commit {shown_commit(commit)}" if commit else "installed toolkit"


def _energy(records: Sequence[Record]) -> str:
    if all(record.energy_j is None for record in records):
        return "Energy: not measured, because no RAPL counter is readable here. CPU s/image is the processor time of all threads."
    return "Energy: of the processor packages (RAPL), including other programs and idle power. It excludes memory and disks."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _settings(records: Sequence[Record], search: str) -> str:
    """Return batch size, search, caption length and threads in words."""
    batches, threads, tokens = (values(records, axis) for axis in ("batch_size", "threads", "tokens"))
    if (texts := records[0].workload.texts) is not None:
        return f"batch size {_either(batches)}, each image is compared with {texts} texts, {_threads(threads)}"
    forced = [count for count in tokens if count is not None]
    lengths = [f"{_either(forced)} forced tokens"] if forced else []
    longest = [record.workload.max_length for record in records if setting_of(record).tokens is None]
    lengths += [f"at most {longest[0]} tokens with [DEC]"] if longest else []
    return f"batch size {_either(batches)}, {search}, {' or '.join(lengths)}, {_threads(threads)}"


def _threads(threads: Sequence[int | None]) -> str:
    return f"{_either(threads)} {'thread' if threads == [1] else 'threads'}"


def _either(values: Sequence[int | None]) -> str:
    return " or ".join(filter(None, (", ".join(map(str, values[:-1])), *map(str, values[-1:]))))


def versions_of(records: Sequence[Record]) -> dict[str, str]:
    """Return library → version."""
    return dict(sorted(item for record in records for item in record.versions.items()))


def limits_of(records: Sequence[Record]) -> list[MachineLimits]:
    """Return the machine's limits, one per number of threads."""
    return list({record.limits.threads: record.limits for record in records if record.limits}.values())


def _rates(limits: MachineLimits) -> str:
    int8 = "" if limits.int8_macs_per_s is None else f" and {limits.int8_macs_per_s / 1e9:.0f} GMAC/s in INT8"
    problem = "" if limits.bandwidth_problem is None else f" (not reproducible: {limits.bandwidth_problem}; no share of it is shown)"
    return (
        f"{_count(limits.threads, 'thread')} read {limits.bytes_per_s / 1e9:.1f} GB/s{problem}, "
        f"and {limits.library} computes {limits.float_macs_per_s / 1e9:.0f} GMAC/s in FP32{int8}"
    )
