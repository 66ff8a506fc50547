"""Benchmark records: the raw measurements of one case in one process, stored as one JSON line each.

Records contain no statistics; a report is computed from records alone.
"""

import math
from dataclasses import dataclass, field
from typing import Any

from runtimes.tasks.registry import TASKS
from toolkit.records.image_quality import ImageQuality, require_at_least

SCHEMA = 2
# Schema history; it may change until the first release tag. 1 (2026-11): first. 2 (2026-11): forced tokens instead of a minimum length;
# names of the images and the checkpoint; the limits of the recipe.

BASELINE = "hf-fp32"
"""Name of the baseline case: transformers' `generate` in FP32."""


@dataclass(frozen=True, kw_only=True)
class HostFacts:
    """The machine that ran the benchmark."""

    cpu: str
    """Model name of the CPU."""
    cpu_features: tuple[str, ...]
    """Names of `runtimes.host.facts.CPU_FEATURES`."""
    cores: int
    """Physical cores that the run could use."""
    memory_bytes: int | None
    """Physical memory, or the limit of the container; None if unknown."""
    system: str
    """Operating system and processor family."""
    python: str
    """Version of Python."""
    gpu: str | None = None
    """Model of the NVIDIA GPU; None without one."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The settings that all cases of a run share."""

    dataset: str
    """Name of the dataset or of the folder of images."""
    dataset_sha256: str
    """sha256 over the images and their references."""
    images: int
    """Number of measured images."""
    prompt: str | None
    """Start of every caption; None without a prompt."""
    num_beams: int
    """Beams of the search; 1 is greedy."""
    min_length: int | None
    """Minimum caption length in tokens, including [DEC] and the prompt; None with forced tokens."""
    max_length: int | None
    """Maximum caption length in tokens, including [DEC] and the prompt; None with forced tokens."""
    threads: int
    """Threads of the engine."""
    warmup: int
    """Captions before the measurement."""
    repeats: int
    """How many times each case ran, each time in a fresh process."""
    metric_counter: str | None
    """The backend that counted n-grams: evaluate, nltk or own; None without references."""
    batch_size: int = 1
    """Images per run of the model."""
    forced_tokens: int | None = None
    """Number of tokens that each caption generates after [DEC] and the prompt; None: the model ends its captions."""
    limit: int | None = None
    """Number of images taken from the dataset; None: all."""
    dataset_path: str | None = None
    """The value of --dataset; None if it was not given."""
    images_path: str | None = None
    """The value of --images; None if it was not given."""
    checkpoint: str | None = None
    """The baseline's checkpoint as the user or the artifact names it; None if unknown."""
    generation: dict[str, Any] = field(default_factory=dict)
    """Other settings of the search, if they differ from transformers' defaults or the artifact's."""
    device: str | None = None
    """Device of all cases, the baseline included: "cuda"; None for the CPU."""
    draft: bool | None = None
    """False: artifacts caption without drafts; None: as their manifests say."""
    task: str = "caption"
    """Task of the cases, see `runtimes.tasks.registry`. With "vqa", an image is an image and one question about it."""
    texts: int | None = None
    """Number of texts that a matcher compares each image with; None for other tasks."""

    def __post_init__(self) -> None:
        """Raise ValueError if a count is below 1 or the task is unknown."""
        require_at_least(1, self, "images", "threads", "repeats", "batch_size", "forced_tokens", "limit", "texts")
        if self.task not in TASKS:
            raise ValueError(f"unknown task {self.task!r}; known: {', '.join(TASKS)}")

    @property
    def runs(self) -> int:
        """Number of batches; the last batch may be smaller."""
        return math.ceil(self.images / self.batch_size)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The artifact, checkpoint or peer that a case ran."""

    runtime: str
    """Engine of the case."""
    checkpoint_sha256: str
    """sha256 of the checkpoint's weight file."""
    recipe: str | None
    """Name of the recipe; None for the baseline and for peers."""
    recipe_sha256: str | None
    """sha256 of the recipe's JSON."""
    manifest_digest: str | None
    """sha256 of manifest.json; None without an artifact."""
    artifact_bytes: int
    """Size of all files of an artifact; for the baseline, 4 bytes per unique parameter."""
    disk_bytes: int
    """Size on disk; for the baseline, of its weight files."""
    components: dict[str, int] = field(default_factory=dict)
    """Role of an artifact's file → its bytes."""
    precision: str | None = None
    """Precision of the recipe, for example int8; None if there is no recipe."""
    approximate: bool | None = None
    """Whether the recipe changes the computation to gain speed (smaller images); None without a recipe."""
    drift_limit_nat: float | None = None
    """Maximum drift that the recipe allows, in nat per token; None without a limit or a recipe."""


@dataclass(frozen=True, kw_only=True)
class ImageTimes:
    """Seconds of one batch."""

    total_s: float
    """From the images' paths to their captions."""
    read_s: float
    """Reading and preprocessing."""
    encode_s: float | None
    """None, like `first_token_s`, if one graph contains the whole loop, so that stages cannot be timed."""
    first_token_s: float | None
    """First step of the decoder, with the start token and the prompt."""
    token_s: tuple[float, ...]
    """One entry for each token after the first. Tokens of one step have equal shares of its time."""
    steps: int | None = None
    """Number of steps of the decoder; None if they were not counted."""
    text_s: float | None = None
    """Reading given texts: the question encoder, or a matcher's text encoder with the image; None for captions."""

    def __post_init__(self) -> None:
        """Raise ValueError if the total is not positive."""
        if self.total_s <= 0:
            raise ValueError("total_s must be positive")


@dataclass(frozen=True, kw_only=True)
class MachineLimits:
    """Maximum throughput of the machine: the best of several measurements."""

    threads: int
    """Threads of the measurement."""
    bytes_per_s: float
    """Bandwidth of reading memory outside the caches."""
    float_macs_per_s: float
    """Multiply-accumulates per second in FP32, for a matrix product of an encoder's size."""
    int8_macs_per_s: float | None
    """Multiply-accumulates per second in INT8; None without onnxruntime."""
    library: str
    """The library that computed the products: onnxruntime, or numpy without it."""
    bandwidth_problem: str | None = None
    """Why `bytes_per_s` is unreliable, in a few words; None if its measurements agree."""

    def __post_init__(self) -> None:
        """Raise ValueError if a rate is not positive."""
        if min(self.bytes_per_s, self.float_macs_per_s, 1.0 if self.int8_macs_per_s is None else self.int8_macs_per_s) <= 0:
            raise ValueError("a rate must be positive")


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """Minimum work of one image and of one token."""

    encode_float_macs: int
    """Multiply-accumulates of floats for one image: attention, the patches, and products that are not quantized."""
    encode_int8_macs: int
    """Multiply-accumulates of integers for one image."""
    token_weight_bytes: int
    """Bytes of the decoder's weight matrices, read once per token for any number of rows."""
    token_cross_bytes: int
    """Bytes of the cross-attention keys and values of one image, read once per token."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One case in one process."""

    schema: int
    """Version of this format."""
    case: str
    """Name of the case: an artifact's name, a peer's name, or `hf-fp32`."""
    repeat: int
    """Number of the repeat, from 0."""
    host: HostFacts
    """The machine."""
    workload: Workload
    """Settings that all cases share."""
    subject: Subject | None
    """What the case ran; None if it failed before that was known."""
    versions: dict[str, str]
    """Package → version."""
    providers: tuple[str, ...]
    """Execution providers or devices in use."""
    error: str | None = None
    """Why the case failed; None if it has measurements."""
    import_s: float | None = None
    """Seconds to import the engine and the runtime."""
    load_s: float | None = None
    """Seconds to load the artifact or checkpoint."""
    first_caption_s: float | None = None
    """Seconds of the first caption after loading, which is part of the warm-up."""
    cpu_s: float | None = None
    """CPU seconds of all threads over the measured images."""
    loaded_rss_bytes: int | None = None
    """Resident memory after loading."""
    peak_rss_bytes: int | None = None
    """Peak resident memory from process start to the last measured caption."""
    peak_gpu_bytes: int | None = None
    """Peak memory that torch allocated on the GPU; None without torch or GPU."""
    warmup_s: tuple[float, ...] = ()
    """Seconds of each warm-up caption."""
    times: tuple[ImageTimes, ...] = ()
    """One entry per batch."""
    quality: tuple[ImageQuality, ...] = ()
    """One entry per image in the first repeat of each setting; later repeats have the same captions."""
    limits: MachineLimits | None = None
    """Limits of the machine with the workload's threads, measured before the first case."""
    arithmetic: Arithmetic | None = None
    """Minimum work of the case."""
    hash_s: float | None = None
    """Part of `load_s`: hashing the artifact's files to compare them with the manifest."""
    energy_j: float | None = None
    """Joules of the processor packages over the measured images, including other programs and idle power; None if there is no readable
    counter."""
    throttled_s: float | None = None
    """Seconds of throttling by heat or a CPU quota over the measured images; None if the system has no counter."""
    measured_at: str | None = None
    """Start of the case in UTC, as 2026-11-24T09:30:00Z."""
    commit: str | None = None
    """Commit of the toolkit's source tree, with +dirty if it has changes; None for an installed wheel."""
