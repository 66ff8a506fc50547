"""Hostile archives made by hand, and damaged valid archives: each must be a named error and leave no file."""

import io
import random
import resource
import time
from collections.abc import Mapping
from pathlib import Path

from runtimes.artifact.folder import open_artifact
from runtimes.errors import ToolkitError
from runtimes.storage.archive import SUFFIX, unpack, write_archive
from tests.fuzz import hostile_tar
from tests.fuzz.hostile_tar import files_in
from tests.fuzz.mutate import damaged
from tests.fuzz.tally import Tally

BOMB_BYTES = 200 << 20
MAX_SECONDS, MAX_GROWN_KB = 5, 100_000
UNDAMAGED = "unpacked as if undamaged"


def hostile(artifact: Path, folder: Path, bomb_bytes: int = BOMB_BYTES) -> Tally:
    """Unpack every archive made by hand. Each differs in one detail from a valid archive."""
    tally = Tally("hand-made hostile archives", "a named error, nothing written, under 5 s and 100 MB")
    files = files_in(artifact)
    for name, content in [("the valid one", hostile_tar.valid_archive(files)), *hostile_tar.harmless(files)]:
        same = Tally("harmless", "unpacks")
        attempt(same, folder, content, name, files)
        if same.outcomes != {UNDAMAGED: 1}:
            tally.broken.append(f"{name}: what the hostile ones differ from does not unpack: {same}")
    for name, content in hostile_tar.archives(files, bomb_bytes):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        attempt(tally, folder, content, name)
        if (grown := resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) > MAX_GROWN_KB:
            tally.broken.append(f"{name}: the process grew by {grown} kB")
    return tally


def damage(artifact: Path, count: int, seed: int, folder: Path) -> Tally:
    """Unpack damaged copies of valid archives."""
    tally = Tally("damaged archives", "a named error, nothing written")
    chance, valid, files = random.Random(seed), packed(artifact), files_in(artifact)
    for number in range(count):
        how, content = damaged(valid, chance)
        attempt(tally, folder, content, f"archive {number}, seed {seed}: {how}", files)
    return tally


def attempt(tally: Tally, folder: Path, content: bytes, case: str, valid: Mapping[str, bytes] | None = None) -> None:
    """Unpack an archive in its own folder. No file may appear outside of the output.

    Args:
        tally: Where to note it.
        folder: Where to try.
        content: Of the archive.
        case: What to call it.
        valid: Files of the valid archive. Unpacking them is right if the damage hit unused bits.
    """
    yard = folder / "yard"
    (yard / "inner").mkdir(parents=True)
    archive = yard / f"archive{SUFFIX}"
    archive.write_bytes(content)
    started = time.perf_counter()
    fault = None
    try:
        unpack(archive, yard / "inner" / "out")
    except ToolkitError as error:
        outcome = error.code
        if not str(error).isprintable():
            fault = f"{case}: {error!r}"
    except Exception as error:
        outcome, fault = "another exception", f"{case}: {error!r}"
    else:
        unpacked = {file.name: file.read_bytes() for file in (yard / "inner" / "out").iterdir()}
        outcome, fault = (UNDAMAGED, None) if unpacked == valid else ("unpacked", f"{case}: unpacked")
    if (took := time.perf_counter() - started) > MAX_SECONDS:
        fault = f"{case}: took {took:.1f} s"
    kept = {"inner", "inner/out", archive.name} | ({f"inner/out/{name}" for name in valid} if valid else set())
    left = sorted(str(file.relative_to(yard)) for file in yard.rglob("*"))
    if set(left) - kept or (outcome not in (UNDAMAGED, "unpacked") and left != [archive.name, "inner"]):
        fault = f"{case}: left {left}"
    tally.note(outcome, fault)
    remove(yard)


def remove(yard: Path) -> None:
    """Remove a tree without following links."""
    for file in sorted(yard.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() and not file.is_symlink() else file.unlink()
    yard.rmdir()


def packed(artifact: Path) -> bytes:
    """Return the valid archive of an artifact."""
    manifest, stream = open_artifact(artifact).manifest, io.BytesIO()
    write_archive(stream, Path(f"valid{SUFFIX}"), manifest, iter([iter([(artifact / name).read_bytes()]) for name in manifest.files]))
    return stream.getvalue()
