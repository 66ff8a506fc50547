"""Benchmark records: what one case did in one process, raw; one JSON line each. No statistics are stored.

Lines go in, frozen dataclasses come out; and back. A report is computed from records alone.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runtimes.artifact import json_dataclass
from runtimes.errors import OutputError, RecordError
from runtimes.storage.atomic_write import write_atomically

SCHEMA = 2
# Schema history, free to change until the first release tag. 1 (2026-11): first. 2 (2026-11): forced tokens, not a least length; names
# of the images and the checkpoint, what a recipe allows.

MAX_BYTES = 1 << 30
"""Of a file; a line is a few kB, so that this is hundreds of thousands of cases."""
MOST = 1e18
"""Largest number that anything is measured as."""

BASELINE = "hf-fp32"
"""The case that others are compared with: transformers' own `generate` in FP32."""


def _at_least(least: int, value: object, *names: str) -> None:
    if low := [name for name in names if (number := getattr(value, name)) is not None and number < least]:
        raise ValueError(f"{', '.join(low)} must be {least} or more")


@dataclass(frozen=True, kw_only=True)
class HostFacts:
    """The machine."""

    cpu: str
    cpu_features: tuple[str, ...]
    cores: int
    memory_bytes: int | None
    system: str
    python: str


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What every case of a run did."""

    dataset: str
    dataset_sha256: str
    images: int
    prompt: str | None
    num_beams: int
    min_length: int | None
    max_length: int | None
    """Shortest and longest caption, in tokens with [DEC] and the prompt; None where tokens are forced."""
    threads: int
    warmup: int
    repeats: int
    metric_counter: str | None
    """Who counted n-grams: evaluate, nltk or own; None without references."""
    batch_size: int = 1
    """Images per run of the model."""
    forced_tokens: int | None = None
    """Tokens that every caption generates after [DEC] and the prompt; None: captions end where the model ends them."""
    limit: int | None = None
    """Images that were taken of the dataset; None: all."""
    dataset_path: str | None = None
    """The dataset as it was named to the benchmark, as the next two; None where it was not, or is not known."""
    images_path: str | None = None
    checkpoint: str | None = None

    def __post_init__(self) -> None:
        """Raise ValueError where a count is below 1."""
        _at_least(1, self, "images", "threads", "repeats", "batch_size", "forced_tokens", "limit")

    @property
    def runs(self) -> int:
        """Times that the model runs, the last with what is left."""
        return math.ceil(self.images / self.batch_size)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a case ran."""

    runtime: str
    checkpoint_sha256: str
    recipe: str | None
    recipe_sha256: str | None
    manifest_digest: str | None
    artifact_bytes: int
    """Every file in an artifact's folder; of the baseline, unique parameters x 4 bytes."""
    disk_bytes: int
    """Of the baseline, the weight files as they are on disk."""
    components: dict[str, int] = field(default_factory=dict)
    """What a file of an artifact is → its bytes."""
    approximate: bool | None = None
    """Whether the artifact trades quality for speed on purpose; None where that is not known, as of what no recipe made."""
    drift_limit_nat: float | None = None
    """The drift that the artifact's recipe allows, in nat per token; None without a limit, or where that is not known."""


@dataclass(frozen=True, kw_only=True)
class ImageTimes:
    """Seconds of one run of the model: of one image, or of a batch."""

    total_s: float
    read_s: float
    """Read and preprocess."""
    encode_s: float | None
    """None, as the next: not told apart, for the whole loop is one run."""
    first_token_s: float | None
    token_s: tuple[float, ...]
    """Each further token."""

    def __post_init__(self) -> None:
        """Raise ValueError where the whole is not more than 0."""
        if self.total_s <= 0:
            raise ValueError("a time is not more than 0")


@dataclass(frozen=True, kw_only=True)
class ImageQuality:
    """What was said of one image, and the counts that scores are made of."""

    file: str
    caption: str
    tokens: int
    """Generated ones."""
    error: str | None = None
    matches: tuple[int, int, int, int] | None = None
    totals: tuple[int, int, int, int] | None = None
    hypothesis_length: int | None = None
    reference_length: int | None = None
    cider: float | None = None
    rouge_l: float | None = None
    log_probability: float | None = None
    """Of the references, teacher-forced, summed, natural log."""
    scored_tokens: int | None = None

    def __post_init__(self) -> None:
        """Raise ValueError where some of the scores are missing."""
        counts = (self.matches, self.totals, self.hypothesis_length, self.reference_length)
        if len({count is None for count in counts}) > 1:
            raise ValueError("matches, totals and both lengths are there together, or none of them")
        if self.log_probability is not None and self.scored_tokens is None:
            raise ValueError("has a log-probability and no number of tokens")
        _at_least(1, self, "scored_tokens")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the machine can do at most: the best of several runs each."""

    threads: int
    bytes_per_s: float
    """Reading memory outside every cache."""
    float_macs_per_s: float
    """Multiplications with additions in FP32, of a product as an encoder has it."""
    int8_macs_per_s: float | None
    """The same in INT8; None without onnxruntime."""
    library: str
    """What multiplied: onnxruntime, or numpy where that is absent."""

    def __post_init__(self) -> None:
        """Raise ValueError where a rate is not more than 0."""
        if min(self.bytes_per_s, self.float_macs_per_s, 1.0 if self.int8_macs_per_s is None else self.int8_macs_per_s) <= 0:
            raise ValueError("a rate is not more than 0")


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """The least work of one image and of one token."""

    encode_float_macs: int
    """Multiplications of floats (each with its addition) for one image: attention, the patches, and products left in float."""
    encode_int8_macs: int
    """Multiplications of integers for one image."""
    token_weight_bytes: int
    """Every weight of the decoder's products, read once per token however many rows there are."""
    token_cross_bytes: int
    """Cross-attention's keys and values of one image, read once per token."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One case in one fresh process."""

    schema: int
    case: str
    repeat: int
    host: HostFacts
    workload: Workload
    subject: Subject | None
    versions: dict[str, str]
    providers: tuple[str, ...]
    error: str | None = None
    """Why the case has no figures."""
    import_s: float | None = None
    load_s: float | None = None
    first_caption_s: float | None = None
    """Of the first caption after loading: what the warm-up saves the others."""
    cpu_s: float | None = None
    """Of all threads, over the measured images."""
    loaded_rss_bytes: int | None = None
    peak_rss_bytes: int | None = None
    """Highest resident memory from process start to the last measured caption."""
    warmup_s: tuple[float, ...] = ()
    times: tuple[ImageTimes, ...] = ()
    quality: tuple[ImageQuality, ...] = ()
    """Of each setting's first repeat; captions do not change."""
    limits: Limits | None = None
    """Of the machine with the workload's threads, measured before the run's first case."""
    arithmetic: Arithmetic | None = None
    """The least that the case must compute and read."""
    hash_s: float | None = None
    """Part of `load_s`: checking that the artifact's files are what its manifest says."""
    energy_j: float | None = None
    """Of the processor packages over the measured images, whatever else ran and idling included; None where no counter can be read."""
    throttled_s: float | None = None
    """Over the measured images, that heat or a CPU quota held cores back; None where the system does not tell."""
    measured_at: str | None = None
    """When the case began: UTC, as 2026-11-24T09:30:00Z."""
    commit: str | None = None
    """Of the toolkit's source tree, with +dirty where it was changed; None of an installed wheel."""


def to_lines(records: Sequence[Record]) -> bytes:
    """Return records as they are kept: a line of JSON each."""
    return b"".join(json_dataclass.canonical_json(json_dataclass.dump(record)) + b"\n" for record in records)


def write_records(path: Path, records: Sequence[Record]) -> None:
    """Write all records so far; the file is whole at any moment.

    Raises:
        OutputError: No room, no permission.
    """
    try:
        write_atomically(path, to_lines(records))
    except OSError as error:
        raise OutputError(path, error.strerror or str(error)) from error


def read_records(path: Path) -> list[Record]:
    """Read records.

    Raises:
        RecordError: A line cannot be read; says which and why.
    """
    try:
        with path.open("rb") as stream:
            lines = stream.read(MAX_BYTES).splitlines()
    except OSError as error:
        raise RecordError(str(path), f"cannot be read: {error.strerror}") from error
    records: list[Record] = []
    for number, line in enumerate(lines, start=1):
        try:
            parsed = json_dataclass.parse(line)
        except ValueError as error:
            raise RecordError(f"{path}:{number}", f"not JSON ({error})") from error
        if isinstance(parsed, dict) and isinstance(parsed.get("schema"), int) and parsed["schema"] != SCHEMA:
            remedy = "update blip-toolkit" if parsed["schema"] > SCHEMA else "measure again"
            raise RecordError(f"{path}:{number}", f"has record schema {parsed['schema']}, and this toolkit reads {SCHEMA}; {remedy}")
        record, problems = json_dataclass.load(Record, parsed)
        if record is None:
            raise RecordError(f"{path}:{number}", "; ".join(problems))
        if wrong := next(_out_of_range(parsed), None):
            raise RecordError(f"{path}:{number}", f"{wrong[0]} is {wrong[1]}, which nothing measures")
        images = record.workload.images
        if record.error is None and (
            record.subject is None
            or len(record.times) != record.workload.runs
            or len(record.quality) not in (0, images)
            or (record.quality and all(image.error is not None for image in record.quality))
        ):
            raise RecordError(f"{path}:{number}", f"has no error, and not the figures of {images} images")
        records.append(record)
    if not records:
        raise RecordError(str(path), "holds no records")
    return records


def _out_of_range(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    """Yield the name and value of each number of a JSON value that is negative or immense; only log-probabilities are below 0."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _out_of_range(each, key)
    elif isinstance(value, list):
        for each in value:
            yield from _out_of_range(each, name)
    elif isinstance(value, int | float) and not (-MOST if name == "log_probability" else 0) <= value <= MOST:
        yield name, value
