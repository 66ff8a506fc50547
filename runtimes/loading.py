"""Open an artifact for captioning: a path and a device go in, a Captioner comes out.

The path is one artifact, or a folder of artifacts of one checkpoint, from which the one that fits this machine is chosen.
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

from runtimes.artifact.folder import Artifact, open_artifact
from runtimes.artifact.manifest import MANIFEST_NAME, Manifest
from runtimes.artifact.verified_files import VerifiedFiles, open_verified
from runtimes.caption import LoadTimings
from runtimes.captioner import Captioner
from runtimes.decoding.session import LoopSession, Session
from runtimes.decoding.tokenizer import CaptionTokenizer
from runtimes.engine_registry import ENGINES, load_target
from runtimes.engines.ort.providers import PROVIDERS, Options, check_options
from runtimes.errors import (
    ArtifactCorruptError,
    ArtifactMissingError,
    MissingDependencyError,
    RequestError,
    ToolkitError,
    UnavailableError,
    UnknownNameError,
    translate_errors,
)
from runtimes.host.facts import read_host
from runtimes.host.malloc import returning_freed_memory
from runtimes.images.reading import MAX_PIXELS
from runtimes.selection.fitness import check_cpu, drop_incorrect, int8_selftest_for

if TYPE_CHECKING:
    from runtimes.selection.ranking import Choice

logger = logging.getLogger(__name__)

DEVICES = ("auto", *PROVIDERS)

TASKS = {"caption": "toolkit caption"}
"""Task of a manifest → the command that does it."""


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """How an artifact is to be opened; see `load`."""

    task: str
    device: str
    threads: int
    max_pixels: int
    verify: bool
    tune_allocator: bool
    provider_options: Options


def load(
    path: str | Path,
    *,
    task: Literal["caption"] = "caption",
    device: str = "auto",
    threads: int | None = None,
    max_pixels: int = MAX_PIXELS,
    verify: bool = True,
    tune_allocator: bool = True,
    provider_options: Options | None = None,
) -> Captioner:
    """Load an artifact, or the best one of a folder of artifacts, and return a `Captioner`.

    Several captioners may be open in one process, and each may be used from several threads. Each uses its own number of threads. Torch
    keeps that number, and the engine that packs INT8 weights, per process: they are changed for the time of one call and put back.

    Args:
        path: An artifact's folder, or a folder of artifacts of one checkpoint. Of several, the best one that works here is loaded; each
            that is damaged or cannot run here costs a warning.
        task: What the artifact is for; it decides what is returned. "caption": a `Captioner`.
        device: "auto": the GPU if the artifact targets one and it works, else the CPU. "cpu", "cuda" or another execution provider of ONNX
            Runtime by its name in `runtimes.engines.ort.providers`: required, an error if it is unavailable or runs nothing of the model.
        threads: CPU threads of this captioner; None: the physical cores within the process's affinity and CPU quota at this moment.
        max_pixels: An image with more pixels is refused before it is decoded.
        verify: False skips the files' hashes; their sizes are checked all the same.
        tune_allocator: Return freed memory to the system while the model loads, which lowers the peak (glibc only). glibc's mmap threshold
            is 256 kB meanwhile and stays at 32 MB afterwards, for the whole process; False leaves the allocator alone.
        provider_options: Options of the device's execution provider, name → text, number or boolean, beside or in place of its defaults.

    Raises:
        ArtifactMissingError, ArtifactCorruptError, ManifestError, ManifestVersionError: The path holds no artifact that can be read; of a
            folder in which all are unusable, the first one's error.
        GraphRefusedError: A graph contains what no exporter writes.
        UnavailableError, MissingDependencyError: The device or the engine's library is not available here.
        UnknownNameError: The task, the device or the manifest's runtime is not known.
        RequestError: The artifact is for another task, `threads` is below 1, `provider_options` lack a device, or the folder contains
            artifacts of different checkpoints.
        OutOfMemoryError: The model does not fit in memory.
    """
    path = Path(path)
    if task not in TASKS:
        raise UnknownNameError("task", task, TASKS)
    if device not in DEVICES:
        raise UnknownNameError("device", device, DEVICES)
    if threads is not None and threads < 1:
        raise RequestError("threads must be at least 1")
    if provider_options and device == "auto":
        raise RequestError("provider_options belong to one device; name it")
    options = LoadOptions(
        task=task,
        device=device,
        threads=threads or read_host().cores,
        max_pixels=max_pixels,
        verify=verify,
        tune_allocator=tune_allocator,
        provider_options=check_options(provider_options or {}),
    )
    if (path / MANIFEST_NAME).is_file():
        return _open_with_retry(path, options)
    return _choose(path, options)


def _choose(path: Path, options: LoadOptions) -> Captioner:
    """Open the best artifact of a folder; one that is damaged, or that cannot run here, costs a warning and the next best."""
    candidates = find_candidates(path, options.device)
    unusable = list(candidates.unusable)
    for choice in candidates.ranked:
        try:
            captioner = _open_with_retry(path / choice.name, replace(options, device=choice.device))
        except ToolkitError as error:
            logger.warning("%s: %s; trying the next best", choice.name, error)
            unusable += [] if isinstance(error, (UnavailableError, MissingDependencyError)) else [error]
            continue
        level = logging.WARNING if candidates.manifests[choice.name].target.approximate else logging.INFO
        logger.log(level, "using %s: %s", choice.name, choice.why)
        return captioner
    if unusable:
        raise unusable[0]
    raise UnavailableError(f"{path}: none of {', '.join(candidates.manifests)} can run here with device '{options.device}'")


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The artifacts of a folder."""

    manifests: Mapping[str, Manifest]
    ranked: Sequence["Choice"]
    """Those that can run here, best first."""
    unusable: Sequence[ToolkitError]
    """Why the others cannot be read."""


def find_candidates(path: Path, device: str = "auto") -> Candidates:
    """Read the artifacts of a folder and rank them for this machine; each that is damaged costs a warning.

    Raises:
        ArtifactMissingError: The folder contains no artifact.
        RequestError: It contains artifacts of different checkpoints.
    """
    from runtimes.selection.ranking import rank_candidates  # for folders alone, and importing counts at every start

    found = sorted(child.parent.name for child in path.glob(f"[!.]*/{MANIFEST_NAME}"))  # hidden ones are being made
    if not found:
        raise ArtifactMissingError(path)
    manifests: dict[str, Manifest] = {}
    unusable: list[ToolkitError] = []
    for name in found:
        try:
            manifests[name] = open_artifact(path / name).manifest
        except ToolkitError as error:
            logger.warning("%s; trying the others", error)
            unusable.append(error)
    if len({manifest.source.sha256 for manifest in manifests.values()}) > 1:
        raise RequestError(f"{path}: holds artifacts of different checkpoints; name one of {', '.join(manifests)}")
    host = read_host()
    right = drop_incorrect(manifests, host, int8_selftest_for(manifests.values()))
    ranked = rank_candidates(right, host, device)
    best = next(iter(rank_candidates(right, replace(host, libraries=frozenset(ENGINES)), device)), None)
    if best is not None and best not in ranked:
        logger.warning("%s; trying the next best", _missing(best.name, manifests[best.name].runtime))
    return Candidates(manifests=manifests, ranked=ranked, unusable=unusable)


def _for_task(artifact: Artifact, task: str) -> Artifact:
    """Return an artifact that is made for a task.

    Raises:
        RequestError: It is for another one.
    """
    if (other := artifact.manifest.task) != task:
        command = f", or use `{TASKS[other]}`" if other in TASKS else ""
        raise RequestError(f"{artifact.path}: is for the task '{other}', not '{task}'; load it with task='{other}'{command}")
    return artifact


def _open_with_retry(path: Path, options: LoadOptions) -> Captioner:
    """Open an artifact; if an export replaced it between reading its manifest and its files, read the new manifest."""
    artifact = _for_task(open_artifact(path), options.task)
    while True:
        try:
            with open_verified(artifact, verify=options.verify) as files:
                return load_verified(files, options)
        except ArtifactCorruptError:
            again = open_artifact(path)
            if again.manifest.digest == artifact.manifest.digest:
                raise
            artifact = again


def load_verified(files: VerifiedFiles, options: LoadOptions) -> Captioner:
    """Return the captioner of an artifact whose files are being hashed; see `load`. The engine is imported meanwhile."""
    manifest = files.artifact.manifest
    begun = perf_counter()
    open_engine = _session_opener(files.artifact.path.name, manifest)
    import_s = perf_counter() - begun
    with returning_freed_memory() if options.tune_allocator else nullcontext():
        session = _open_session(open_engine, files, options)
    tokens = _tokens(files)
    files.check_unchanged()
    return Captioner(session, tokens, manifest, options.max_pixels, LoadTimings(import_s=import_s, hash_s=files.hash_s))


def _tokens(files: VerifiedFiles) -> CaptionTokenizer:
    content, path = files.read("tokenizer"), files.artifact.path_of("tokenizer")
    with translate_errors(lambda problem: ArtifactCorruptError(path, f"is not a tokenizer: {problem}")):
        return CaptionTokenizer(content, files.artifact.manifest.tokenizer)


def _session_opener(artifact: str, manifest: Manifest) -> Any:  # noqa: ANN401 - a function of `EngineSpec.sessions`
    targets = {f"{engine.name} {contract}": target for engine in ENGINES.values() for contract, target in engine.sessions.items()}
    if (wanted := f"{manifest.runtime} {manifest.contract}") not in targets:
        raise UnknownNameError("runtime", wanted, targets)
    try:
        return load_target(targets[wanted])
    except ModuleNotFoundError as error:
        raise _missing(artifact, manifest.runtime, error.name) from error
    except ImportError as error:  # it is there, and something that it is linked with is not
        raise UnavailableError(f"{ENGINES[manifest.runtime].library} is installed but cannot be imported: {error}") from error


def _open_session(open_engine: Any, files: VerifiedFiles, options: LoadOptions) -> Session | LoopSession:  # noqa: ANN401
    name, manifest = files.artifact.path.name, files.artifact.manifest
    if problem := check_cpu(manifest, read_host(), int8_selftest_for([manifest])):
        logger.warning("%s %s; use a portable recipe, for example onnx-int8", name, problem.why)
    if options.device == "auto" and manifest.target.device == "cuda":
        if read_host().cuda:
            try:
                return open_engine(files, "cuda", options.threads, {})  # type: ignore[no-any-return]
            except UnavailableError as error:
                logger.warning("%s; running %s on the CPU", error, name)
        else:
            logger.warning("%s is meant for a GPU and there is none here; running it on the CPU, which is slow", name)
    device = "cpu" if options.device == "auto" else options.device
    return open_engine(files, device, options.threads, options.provider_options)  # type: ignore[no-any-return]


def _missing(artifact: str, runtime: str, package: str | None = None) -> MissingDependencyError:
    engine = ENGINES[runtime]
    return MissingDependencyError(package or engine.library, f"{artifact} (runtime '{runtime}')", engine.extra)
