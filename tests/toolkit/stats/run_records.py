"""Records of short runs, for tests of statistics."""

from toolkit.records.image_quality import ImageQuality
from toolkit.records.record import BASELINE, SCHEMA, HostFacts, ImageTimes, Record, Subject, Workload
from toolkit.stats.rows import make_rows

HOST = HostFacts(cpu="one", cpu_features=("avx2",), cores=2, memory_bytes=2**34, system="Linux x86_64", python="3.11.9")
WORKLOAD = Workload(
    dataset="made up",
    dataset_sha256="0" * 64,
    images=3,
    prompt=None,
    num_beams=1,
    min_length=0,
    max_length=20,
    threads=2,
    warmup=1,
    repeats=2,
    metric_counter="own",
)


def image(total_s, encode_s=0.0, token_s=()):
    return ImageTimes(total_s=total_s, read_s=total_s / 100, encode_s=encode_s, first_token_s=total_s / 10, token_s=token_s)


def record(case, repeat, totals, quality=(), artifact_bytes=1000, **figures):
    subject = Subject(
        runtime="transformers" if case == BASELINE else "ort",
        checkpoint_sha256="c" * 64,
        recipe=None if case == BASELINE else case,
        recipe_sha256=None if case == BASELINE else "f" * 64,
        manifest_digest=None,
        artifact_bytes=artifact_bytes,
        disk_bytes=artifact_bytes // 2,
    )
    times = tuple(total if isinstance(total, ImageTimes) else image(total) for total in totals)
    defaults = {
        "import_s": 1.0,
        "load_s": 1.0,
        "first_caption_s": 1.0,
        "cpu_s": 1.0,
        "loaded_rss_bytes": 100,
        "peak_rss_bytes": 100,
    } | figures
    return Record(
        schema=SCHEMA,
        case=case,
        repeat=repeat,
        host=HOST,
        workload=WORKLOAD,
        subject=subject,
        versions={},
        providers=(),
        times=times,
        quality=tuple(quality),
        **defaults,
    )


def failed(case, repeat, error):
    return Record(
        schema=SCHEMA, case=case, repeat=repeat, host=HOST, workload=WORKLOAD, subject=None, versions={}, providers=(), error=error
    )


def quality(caption="a dog", tokens=3, cider=1.0, rouge_l=0.5, log_probability=-10.0, words=8, closest=8, matches=(8, 7, 6, 5)):
    return ImageQuality(
        file="one.jpg",
        caption=caption,
        tokens=tokens,
        matches=matches,
        totals=(words, words - 1, words - 2, words - 3),
        hypothesis_length=words,
        reference_length=closest,
        cider=cider,
        rouge_l=rouge_l,
        log_probability=log_probability,
        scored_tokens=10,
    )


def unscored(caption, error=None):
    return ImageQuality(file="one.jpg", caption=caption, tokens=4, error=error)


def rows_of(*records):
    return {row["case"]: row for row in make_rows(records)}
