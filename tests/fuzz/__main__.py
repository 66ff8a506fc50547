"""Run all parts and write the counts: `make fuzz`, or `python -m tests.fuzz [--seed N] [--scale F] [--output FILE]`.

Exit code 1 if a promise was broken. Those cases are printed with the seed that repeats them.
"""

import argparse
import importlib.metadata
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import runtimes
from runtimes.storage.archive import unpack
from tests.drafted import certain_table, drafted_copy
from tests.drawn import draw_images
from tests.fuzz import archives, damage, documents, forge, images
from tests.fuzz.tally import Tally, render, write
from tests.paths import ROOT
from tests.tiny import export_tiny, write_tiny_checkpoint
from toolkit.packaging.package import package

RECIPES = ("onnx-int8", "onnx-int4", "onnx-fp32", "pytorch-int8", "pytorch-fp32")
VERSIONS = ("onnxruntime", "pillow", "tokenizers", "torch", "numpy")
COUNTS = {
    "images": 12_000,
    "artifacts": 7_000,
    "archives": 4_000,
    "forged": 2_100,
    "goldens": 600,
    "drafts": 600,
    "records": 3_000,
    "peers": 3_000,
}


def tallies(folder: Path, seed: int, scale: float, crashes: list[str]) -> Iterator[Tally]:
    """Write the tiny artifacts and run all parts."""
    counts = {part: int(count * scale) for part, count in COUNTS.items()}
    drawn = draw_images(folder)
    made = export_tiny(write_tiny_checkpoint(folder / "tiny"), drawn, folder / "artifacts")
    seeds = [made[recipe] for recipe in RECIPES]
    for part in ("damage", "forge", "archives", "goldens", "drafts", "documents"):
        (folder / part).mkdir()
    yield images.run(counts["images"], seed)
    yield damage.run(seeds, counts["artifacts"], seed, folder / "damage")
    yield damage.every_bit(made["onnx-int8"], folder / "damage")
    yield archives.hostile(made["onnx-int8"], folder / "archives")
    yield archives.damage(made["onnx-int8"], counts["archives"], seed, folder / "archives")
    yield documents.records([ROOT / "tests" / "golden" / "records.jsonl"], counts["records"], seed, folder / "documents")
    yield documents.peers(made["onnx-fp32"], counts["peers"], seed, folder / "documents")
    tally, crashed = forge.run(seeds, counts["forged"], seed, folder / "forge", drawn[0].path)
    crashes += crashed
    yield tally
    for forge_part, part in ((forge_goldens, "goldens"), (forge_drafts, "drafts")):
        tally, crashed = forge_part(made["onnx-int8"], counts[part], seed, folder / part, drawn[0].path)
        crashes += crashed
        yield tally


def forge_goldens(artifact: Path, count: int, seed: int, folder: Path, image: Path) -> tuple[Tally, list[str]]:
    """Verify an unpacked package with forged golden captions, images and logits."""
    package(artifact, folder.with_name("package.tar.gz"))
    unpack(folder.with_name("package.tar.gz"), folder.with_name("package"))
    seeds = [folder.with_name("package")]
    return forge.run(seeds, count, seed, folder, image, role="golden", name="forged golden captions")


def forge_drafts(artifact: Path, count: int, seed: int, folder: Path, image: Path) -> tuple[Tally, list[str]]:
    """Load an artifact with forged draft tables."""
    captions = runtimes.load(artifact, threads=1).caption(image)
    drafted = drafted_copy(artifact, folder.with_name("drafted"), certain_table(caption.token_ids for caption in captions))
    return forge.run([drafted], count, seed, folder, image, role="drafts", name="forged draft tables")


def main() -> int:
    """Run all parts, print the counts and write them."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Try hostile input; exit code 1 if a promise was broken.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="times the usual counts")
    parser.add_argument("--output", type=Path, default=Path("build/fuzz.json"))
    chosen = parser.parse_args()
    done: list[Tally] = []
    crashes: list[str] = []
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        started = time.perf_counter()
        for tally in tallies(Path(folder), chosen.seed, chosen.scale, crashes):
            took, started = time.perf_counter() - started, time.perf_counter()
            print(f"{tally.name}: {tally.tried:,} in {took:.0f} s, {len(tally.broken)} broken", file=sys.stderr)
            print(*tally.broken, sep="\n", end="\n" if tally.broken else "", file=sys.stderr)
            done.append(tally)
    versions = {name: importlib.metadata.version(name) for name in VERSIONS}
    write(done, chosen.output, seed=chosen.seed, versions=versions, crashes=crashes)
    print(render(chosen.output))
    return 1 if any(tally.broken for tally in done) else 0


if __name__ == "__main__":
    sys.exit(main())
