"""`load`: open an artifact, or the best artifact of a folder for this machine, and return the class of its task."""

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, overload

from runtimes.artifact.folder import Artifact, open_artifact
from runtimes.artifact.manifest import MANIFEST_NAME, Manifest
from runtimes.artifact.verified_files import VerifiedFiles, open_verified
from runtimes.decoding.drafts.open_drafter import DraftMode, check_draft, open_drafter
from runtimes.decoding.session import LoopSession, Session
from runtimes.decoding.tokenizer import CaptionTokenizer
from runtimes.engine_registry import ENGINES, load_target, missing_library
from runtimes.engines.ort.providers import PROVIDERS, Options, check_options
from runtimes.errors import (
    ArtifactCorruptError,
    DigestError,
    MissingDependencyError,
    RequestError,
    ToolkitError,
    UnavailableError,
    UnknownNameError,
    check_count,
    translate_errors,
)
from runtimes.host.facts import read_host, usable_cpus
from runtimes.host.malloc import returning_freed_memory
from runtimes.images.reading import MAX_PIXELS
from runtimes.selection.fitness import check_cpu, int8_selftest_for
from runtimes.tasks.registry import find_task, wrong_task
from runtimes.tasks.results import LoadTimings

if TYPE_CHECKING:
    from runtimes.tasks.answerer import Answerer
    from runtimes.tasks.captioner import Captioner
    from runtimes.tasks.loaded_model import LoadedModel
    from runtimes.tasks.matcher import Matcher

logger = logging.getLogger(__name__)

DEVICES = ("auto", *PROVIDERS)
MAX_THREADS_PER_CPU = 8
"""Starting a thread takes up to 0.2 s where there are far more threads than CPUs."""


class LoadArguments(TypedDict, total=False):
    """Keyword arguments of `load`, without the task."""

    device: str
    threads: int | None
    max_pixels: int
    reduce_large: bool
    verify: bool
    tune_allocator: bool
    draft: DraftMode
    provider_options: Options | None


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """Arguments of `load`, after their checks."""

    task: str
    device: str
    threads: int
    max_pixels: int
    reduce_large: bool
    verify: bool
    tune_allocator: bool
    draft: DraftMode
    provider_options: Options


@overload
def load(path: str | Path, *, task: Literal["caption"] = "caption", **arguments: Unpack[LoadArguments]) -> "Captioner": ...
@overload
def load(path: str | Path, *, task: Literal["vqa"], **arguments: Unpack[LoadArguments]) -> "Answerer": ...
@overload
def load(path: str | Path, *, task: Literal["matching"], **arguments: Unpack[LoadArguments]) -> "Matcher": ...
@overload
def load(path: str | Path, *, task: str, **arguments: Unpack[LoadArguments]) -> "LoadedModel": ...
def load(
    path: str | Path,
    *,
    task: str = "caption",
    device: str = "auto",
    threads: int | None = None,
    max_pixels: int = MAX_PIXELS,
    reduce_large: bool = False,
    verify: bool = True,
    tune_allocator: bool = True,
    draft: DraftMode = None,
    provider_options: Options | None = None,
) -> "LoadedModel":
    """Load an artifact, or the best one of a folder of artifacts, and return the class of its task.

    A process may load several models, and several threads may use each. Each model has its own number of threads. In torch, the number of
    threads and the quantized engine are settings of the process: they are set for the duration of a call and restored.

    Args:
        path: Folder of an artifact, or folder of several artifacts of one checkpoint. From several, the best one that works on this machine
            is loaded. If a better one is damaged or does not work, a warning is logged.
        task: Task of the artifact, which determines the class of the result, see `runtimes.tasks.registry`. "caption": `Captioner`;
            "vqa": `Answerer`; "matching": `Matcher`.
        device: "auto": the GPU if the artifact targets a GPU and the GPU works, otherwise the CPU. "cpu", "cuda" or another name of
            `runtimes.engines.ort.providers`: this device is required; an error is raised if it is unavailable or runs no part of the model.
        threads: CPU threads of this model. None: the physical cores in the CPU affinity and CPU quota of the process.
        max_pixels: Images with more pixels are refused before they are decoded.
        reduce_large: Decode JPEG files with more than `max_pixels` pixels at 1/2, 1/4 or 1/8 of their size instead of refusing them.
        verify: False skips the hashes of the files. Sizes are always checked.
        tune_allocator: True lowers peak memory with glibc: its mmap threshold is 256 kB during the load and 32 MB afterwards, for the
            whole process. False does not change the allocator.
        draft: How greedy search of one image drafts tokens, which makes it faster. None: the manifest's setting. False: not at all. True:
            from the artifact's draft table. "learn": also from the texts that this model generates; for FP32 artifacts only.
        provider_options: Options of the device's execution provider, name → text, number or boolean. They override its defaults.

    Raises:
        ArtifactMissingError, ArtifactCorruptError, ManifestError, ManifestVersionError: The path has no readable artifact. For a folder
            without a usable artifact, the first artifact's error is raised.
        GraphRefusedError: A graph contains an operator or attribute that no exporter writes.
        UnavailableError, MissingDependencyError: The device or the engine's library is not available.
        UnknownNameError: The task, the device or the manifest's runtime is unknown.
        RequestError: An argument has a wrong type, the artifact has another task, `threads` is below 1 or far above the number of CPUs,
            `provider_options` are given without a device, the folder contains artifacts of different checkpoints, or the artifact cannot
            draft as `draft` requires.
        OutOfMemoryError: The model does not fit in memory.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise RequestError(f"the path of an artifact must be a str or a Path, not {type(path).__name__}")
    path = Path(path)
    find_task(task)
    if device not in DEVICES:
        raise UnknownNameError("device", device, DEVICES)
    if threads is not None:
        check_count("threads", threads)
        if threads > (most := MAX_THREADS_PER_CPU * usable_cpus()):
            raise RequestError(f"threads must be at most {most} on this machine, not {threads}; more than its CPUs make a model slower")
    check_count("max_pixels", max_pixels)
    check_draft(draft)
    if provider_options and device == "auto":
        raise RequestError("provider_options belong to one device; name it")
    options = LoadOptions(
        task=task,
        device=device,
        threads=threads or read_host().cores,
        max_pixels=max_pixels,
        reduce_large=reduce_large,
        verify=verify,
        tune_allocator=tune_allocator,
        draft=draft,
        provider_options=check_options(provider_options or {}),
    )
    if (path / MANIFEST_NAME).is_file():
        return _open_with_retry(path, options)
    return _choose(path, options)


def _choose(path: Path, options: LoadOptions) -> "LoadedModel":
    """Open the best artifact of a folder. Log a warning for one that is damaged or does not work, and open the next best.

    Raises:
        RequestError: The artifacts have another task.
        ToolkitError: No artifact works; see `load`.
    """
    from runtimes.selection.candidates import find_candidates  # only folders need it; a global import would slow down every start

    candidates = find_candidates(path, options.device)
    ranked = [choice for choice in candidates.ranked if candidates.manifests[choice.name].task == options.task]
    if candidates.ranked and not ranked:
        best = candidates.ranked[0].name
        raise RequestError(wrong_task(path / best, candidates.manifests[best].task, options.task))
    unusable = list(candidates.unusable)
    for choice in ranked:
        try:
            model = _open_with_retry(path / choice.name, replace(options, device=choice.device))
        except ToolkitError as error:
            logger.warning("%s: %s; trying the next best", choice.name, error)
            unusable += [] if isinstance(error, (UnavailableError, MissingDependencyError)) else [error]
            continue
        level = logging.WARNING if candidates.manifests[choice.name].target.approximate else logging.INFO
        logger.log(level, "using %s: %s", choice.name, choice.why)
        return model
    if unusable:
        raise unusable[0]
    raise UnavailableError(f"{path}: none of {', '.join(candidates.manifests)} can run here with device '{options.device}'")


def _for_task(artifact: Artifact, task: str) -> Artifact:
    """Return the artifact, after a check of its task.

    Raises:
        RequestError: The artifact has another task.
    """
    if (other := artifact.manifest.task) != task:
        raise RequestError(wrong_task(artifact.path, other, task))
    return artifact


def _open_with_retry(path: Path, options: LoadOptions) -> "LoadedModel":
    """Open an artifact. If an export replaced it after its manifest was read, read the new manifest and open it again."""
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


def load_verified(files: VerifiedFiles, options: LoadOptions) -> "LoadedModel":
    """Return the loaded model of an artifact; see `load`. Its files are hashed in a thread while the engine is imported."""
    manifest = files.artifact.manifest
    begun = perf_counter()
    open_engine = _session_opener(files.artifact.path.name, manifest)
    import_s = perf_counter() - begun
    with ThreadPoolExecutor(1, thread_name_prefix="tokenizer") as pool:
        tokenizer = pool.submit(load_tokenizer, files)  # parsed while the engine prepares weights
        with returning_freed_memory() if options.tune_allocator else nullcontext():
            session = _open_session(open_engine, files, options)
    drafter = open_drafter(files, options.draft, stepwise="step" in session.capabilities)
    files.check_unchanged()
    timings = LoadTimings(import_s=import_s, hash_s=files.hash_s)
    model: LoadedModel = load_target(find_task(manifest.task).model)(
        session, tokenizer.result(), manifest, options.max_pixels, timings, reduce_large=options.reduce_large
    )
    model.drafter = drafter
    model.reload = load_again, (files.artifact.path.resolve(), manifest.digest, options)
    return model


def load_again(path: Path, digest: str, options: LoadOptions) -> "LoadedModel":
    """Load the artifact of a pickled model.

    Raises:
        DigestError: Another artifact is at the path now.
        ToolkitError: See `load`.
    """
    model = _open_with_retry(path, options)
    if model.manifest.digest != digest:
        raise DigestError(path, model.manifest.digest, digest)
    return model


def load_tokenizer(files: VerifiedFiles) -> CaptionTokenizer:
    """Return the tokenizer of an artifact.

    Raises:
        ArtifactCorruptError: The file differs from the manifest, or is not a tokenizer.
    """
    content, path = files.read("tokenizer"), files.artifact.path_of("tokenizer")
    with translate_errors(lambda problem: ArtifactCorruptError(path, f"is not a valid tokenizer file: {problem}")):
        return CaptionTokenizer(content, files.artifact.manifest.tokenizer)


def _session_opener(artifact: str, manifest: Manifest) -> Any:  # noqa: ANN401 - a function of `EngineSpec.sessions`
    targets = {f"{engine.name} {contract}": target for engine in ENGINES.values() for contract, target in engine.sessions.items()}
    if (name := f"{manifest.runtime} {manifest.contract}") not in targets:
        raise UnknownNameError("runtime", name, targets)
    try:
        return load_target(targets[name])
    except ModuleNotFoundError as error:
        raise missing_library(artifact, manifest.runtime, error.name) from error
    except ImportError as error:  # the library is installed, and one that it links to is not
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
            logger.warning("%s is made for a GPU and this machine has none; running it on the CPU, which is slow", name)
    device = "cpu" if options.device == "auto" else options.device
    return open_engine(files, device, options.threads, options.provider_options)  # type: ignore[no-any-return]
