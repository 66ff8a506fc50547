"""Open an artifact for captioning: a path and a device go in, a Captioner comes out.

The path is one artifact, or a folder of artifacts of one checkpoint, from which the one that fits this machine is chosen.
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from runtimes.artifact.folder import open_artifact
from runtimes.artifact.manifest import MANIFEST_NAME, Manifest
from runtimes.artifact.verified_files import Payload, opened
from runtimes.captioner import Captioner, Opening
from runtimes.decoding.session import Session, WholeLoop
from runtimes.decoding.tokenizer import Tokens
from runtimes.engine_registry import ENGINES, load_target
from runtimes.errors import (
    ArtifactCorruptError,
    ArtifactMissingError,
    MissingDependencyError,
    RequestError,
    UnavailableError,
    UnknownNameError,
    translate_errors,
)
from runtimes.host.facts import read_host
from runtimes.images.reading import MAX_PIXELS
from runtimes.selection.fitness import misfit, product_for, right_here

logger = logging.getLogger(__name__)

DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True, kw_only=True)
class _Wish:
    """How an artifact is to be opened; see `load`."""

    device: str
    threads: int
    max_pixels: int
    verify: bool


def load(
    path: str | Path, device: str = "auto", threads: int | None = None, *, max_pixels: int = MAX_PIXELS, verify: bool = True
) -> Captioner:
    """Open an artifact, or the best one of a folder of artifacts.

    Args:
        path: An artifact's directory, or a directory of them.
        device: "auto" takes the GPU where the artifact is meant for one and it can be had; "cpu" and "cuda" are orders.
        threads: CPU threads; None takes the cores that this process may use.
        max_pixels: Larger pictures are refused before they are decoded.
        verify: False leaves the files' hashes unchecked; their sizes are checked all the same.

    Raises:
        ArtifactMissingError, ArtifactCorruptError, ManifestError, ManifestVersionError: The path holds no artifact that can be read.
        UnavailableError, MissingDependencyError: What was asked for by name cannot be had here.
        UnknownNameError: The device or the manifest's runtime is not known.
    """
    path = Path(path)
    if device not in DEVICES:
        raise UnknownNameError("device", device, DEVICES)
    if threads is not None and threads < 1:
        raise RequestError("threads must be at least 1")
    wish = _Wish(device=device, threads=threads or read_host().cores, max_pixels=max_pixels, verify=verify)
    if (path / MANIFEST_NAME).is_file():
        return _open_again_if_replaced(path, wish)
    return _choose(path, wish)


def _choose(path: Path, wish: _Wish) -> Captioner:
    """Open the best artifact of a folder; one that cannot be had costs a warning and the next best."""
    from runtimes.selection.ranking import rank  # for folders alone, and importing counts at every start

    found = sorted(child.parent.name for child in path.glob(f"[!.]*/{MANIFEST_NAME}"))  # hidden ones are being made
    if not found:
        raise ArtifactMissingError(path)
    manifests = {name: open_artifact(path / name).manifest for name in found}
    if len({manifest.source.sha256 for manifest in manifests.values()}) > 1:
        raise RequestError(f"{path}: holds artifacts of different checkpoints; name one of {', '.join(found)}")
    host = read_host()
    manifests = right_here(manifests, host, product_for(manifests.values()))
    ranked = rank(manifests, host, wish.device)
    best = next(iter(rank(manifests, replace(host, libraries=frozenset(ENGINES)), wish.device)), None)
    if best is not None and best not in ranked:
        logger.warning("%s; trying the next best", _missing(best.name, manifests[best.name].runtime))
    for choice in ranked:
        try:
            captioner = _open_again_if_replaced(path / choice.name, replace(wish, device=choice.device))
        except (UnavailableError, MissingDependencyError) as error:
            logger.warning("%s: %s; trying the next best", choice.name, error)
            continue
        level = logging.WARNING if manifests[choice.name].target.approximate else logging.INFO
        logger.log(level, "using %s: %s", choice.name, choice.why)
        return captioner
    raise UnavailableError(f"{path}: none of {', '.join(found)} can run here with device '{wish.device}'")


def _open_again_if_replaced(path: Path, wish: _Wish) -> Captioner:
    """Open an artifact; if an export replaced it between reading its manifest and its files, read the new manifest."""
    artifact = open_artifact(path)
    while True:
        try:
            with opened(artifact, verify=wish.verify) as payload:
                return _open(payload, wish)
        except ArtifactCorruptError:
            again = open_artifact(path)
            if again.manifest.digest == artifact.manifest.digest:
                raise
            artifact = again


def _open(payload: Payload, wish: _Wish) -> Captioner:
    """Import what runs the artifact, while its files are being hashed, and hand them over."""
    manifest = payload.artifact.manifest
    begun = perf_counter()
    session_class = _session_class(payload.artifact.path.name, manifest)
    import_s = perf_counter() - begun
    session = _open_session(session_class, payload, wish)
    tokens = _tokens(payload)
    payload.confirm()
    return Captioner(session, tokens, manifest, wish.max_pixels, Opening(import_s=import_s, hash_s=payload.hash_s))


def _tokens(payload: Payload) -> Tokens:
    content, path = payload.read("tokenizer"), payload.artifact.path_of("tokenizer")
    with translate_errors(lambda problem: ArtifactCorruptError(path, f"is not a tokenizer: {problem}")):
        return Tokens(content, payload.artifact.manifest.generation)


def _session_class(artifact: str, manifest: Manifest) -> Any:  # noqa: ANN401 - a class with `open`, by name
    targets = {f"{engine.name} {contract}": target for engine in ENGINES.values() for contract, target in engine.sessions.items()}
    if (wanted := f"{manifest.runtime} {manifest.contract}") not in targets:
        raise UnknownNameError("runtime", wanted, targets)
    try:
        return load_target(targets[wanted])
    except ModuleNotFoundError as error:
        raise _missing(artifact, manifest.runtime, error.name) from error
    except ImportError as error:  # it is there, and something that it is linked with is not
        raise UnavailableError(f"{ENGINES[manifest.runtime].library} is installed but cannot be imported: {error}") from error


def _open_session(session_class: Any, payload: Payload, wish: _Wish) -> Session | WholeLoop:  # noqa: ANN401
    name, manifest = payload.artifact.path.name, payload.artifact.manifest
    if problem := misfit(manifest, read_host(), product_for([manifest])):
        logger.warning("%s %s; use a portable recipe, for example onnx-int8", name, problem.why)
    if wish.device == "auto" and manifest.target.device == "cuda":
        if read_host().cuda:
            try:
                return session_class.open(payload, "cuda", wish.threads)  # type: ignore[no-any-return]
            except UnavailableError as error:
                logger.warning("%s; running %s on the CPU", error, name)
        else:
            logger.warning("%s is meant for a GPU and there is none here; running it on the CPU, which is slow", name)
    return session_class.open(payload, "cpu" if wish.device == "auto" else wish.device, wish.threads)  # type: ignore[no-any-return]


def _missing(artifact: str, runtime: str, package: str | None = None) -> MissingDependencyError:
    engine = ENGINES[runtime]
    return MissingDependencyError(package or engine.library, f"{artifact} (runtime '{runtime}')", engine.extra)
