"""Artifacts with the damage of bad disks, downloads or copies: each must be a named error, and no parser may read a damaged byte.

Hashes stay unchanged. One file at a time of a copy is damaged and restored.
"""

import contextlib
import json
import random
import re
import shutil
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import runtimes
from runtimes.artifact.folder import open_artifact
from runtimes.artifact.manifest import MANIFEST_NAME
from runtimes.errors import ToolkitError
from tests.fuzz.mutate import damaged
from tests.fuzz.parsers import sha256, watched
from tests.fuzz.tally import Tally

RIGHT_CODES = {"ARTIFACT_CORRUPT", "ARTIFACT_MISSING", "MANIFEST_INVALID", "MANIFEST_TOO_NEW"}
BY_HASH = re.compile(r"has \d+ bytes|sha256 is|is missing|is not a regular file|cannot be read")
"""Messages about a payload file that is refused before it is parsed."""


def run(seeds: Sequence[Path], count: int, seed: int, folder: Path) -> Tally:
    """Load damaged artifacts.

    Args:
        seeds: Artifacts of different recipes.
        count: How many to try.
        seed: Of chance.
        folder: Empty; copies are made here.
    """
    tally = Tally("damaged artifacts", "a named error, or of a damaged manifest another digest; no parser is given a damaged byte")
    chance = random.Random(seed)
    copies = [Path(shutil.copytree(path, folder / path.name)) for path in seeds]
    for number in range(count):
        copy = copies[number % len(copies)]
        other = copies[(number + 1) % len(copies)]
        with one_damage(copy, other, chance) as how:
            attempt(tally, copy, f"artifact {number}, seed {seed}: {copy.name}, {how}", seeds[number % len(seeds)])
    return tally


def every_bit(seed: Path, folder: Path, bits: range | None = None) -> Tally:
    """Load an artifact with every single-bit flip of its manifest."""
    tally = Tally("single-bit flips of one manifest", "a named error, or another digest; no parser is given a damaged byte")
    copy = Path(shutil.copytree(seed, folder / "bits"))
    content = (copy / MANIFEST_NAME).read_bytes()
    with (copy / MANIFEST_NAME).open("r+b", buffering=0) as stream:
        for bit in bits or range(8 * len(content)):
            place = bit // 8
            stream.seek(place)
            stream.write(bytes([content[place] ^ 1 << bit % 8]))
            attempt(tally, copy, f"bit {bit} of {MANIFEST_NAME}", seed)
            stream.seek(place)
            stream.write(content[place : place + 1])
    runtimes.load(copy, threads=1)  # the manifest is restored: it was refused because of the flipped bits only
    return tally


def attempt(tally: Tally, path: Path, case: str, seed: Path) -> None:
    """Load a damaged copy of `seed`. Only damage to the manifest may load, and then with another digest."""
    manifest, known = path / MANIFEST_NAME, hashes(seed)
    other = manifest.is_file() and manifest.read_bytes() != (seed / MANIFEST_NAME).read_bytes()
    with watched() as seen:
        try:
            captioner = runtimes.load(path, threads=1)
        except ToolkitError as error:
            early = other or error.code.startswith(("MANIFEST", "ARTIFACT_MISSING"))
            right = (other or error.code in RIGHT_CODES) and str(error).isprintable() and (early or BY_HASH.search(str(error)))
            tally.note(error.code, None if right and seen <= known else f"{case}: {error!r}, parsers saw {len(seen - known)} bad files")
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            tally.note("another exception", f"{case}: {error!r}")
        else:
            right = other and seen <= known and captioner.manifest.digest == sha256(manifest.read_bytes())
            tally.note("another digest" if right else "loaded", None if right else f"{case}: loaded")


@contextlib.contextmanager
def one_damage(path: Path, other: Path, chance: random.Random) -> Iterator[str]:
    """Damage one file of an artifact for the duration of the block."""
    manifest = open_artifact(path).manifest
    name = chance.choice([MANIFEST_NAME, *manifest.files])
    file, content = path / name, (path / name).read_bytes()
    kind = chance.choice(("bytes", "bytes", "bytes", "bytes", "missing", "swapped", "foreign", "folder", "empty", "twin", "renamed"))
    away = path / "away"
    try:
        match kind:
            case "missing":
                file.rename(away)
            case "swapped":
                partner = path / chance.choice([each for each in (MANIFEST_NAME, *manifest.files) if each != name])
                file.rename(away)
                file.write_bytes(partner.read_bytes())
            case "foreign":
                role = manifest.files[name].role if name != MANIFEST_NAME else None
                their = open_artifact(other).manifest
                names = [each for each, entry in their.files.items() if entry.role == role] or list(their.files)
                file.rename(away)
                file.write_bytes((other / names[0]).read_bytes() + (b" " if (other / names[0]).read_bytes() == content else b""))
            case "folder":
                file.rename(away)
                file.mkdir()
            case "empty":
                file.write_bytes(b"")
            case "renamed":
                file.rename(path / name.upper())
            case "twin":
                name, file, content = MANIFEST_NAME, path / MANIFEST_NAME, (path / MANIFEST_NAME).read_bytes()
                file.write_bytes(with_twin(content, chance))
            case _:
                kind, changed = damaged(content, chance)
                if name == MANIFEST_NAME and same_document(changed, content):
                    kind, changed = "empty", b""
                file.write_bytes(changed)
        yield f"{kind} {name}"
    finally:
        if file.is_dir():
            file.rmdir()
        for left in (away, path / name.upper()):
            if left.exists():
                left.replace(file)
        file.write_bytes(content)


def with_twin(content: bytes, chance: random.Random) -> bytes:
    """Repeat a line of a manifest with a key and its whole value, so that the last value would apply."""
    lines = content.decode().splitlines()
    place = chance.choice([number for number, line in enumerate(lines) if re.fullmatch(r' *".*": [^{\[]*[^{\[,]?,?', line)])
    line = lines[place].rstrip(",")
    return "\n".join([*lines[:place], f"{line},", lines[place], *lines[place + 1 :]]).encode()


def same_document(changed: bytes, content: bytes) -> bool:
    """Return whether only the layout of a JSON text has changed, and not its values."""
    try:
        return changed != content and json.loads(changed) == json.loads(content)
    except (ValueError, RecursionError):
        return False


@cache  # of a seed, which nothing changes
def hashes(path: Path) -> set[str]:
    """Return the sha256 of every file of an artifact."""
    return {sha256(file.read_bytes()) for file in path.iterdir() if file.is_file()}
