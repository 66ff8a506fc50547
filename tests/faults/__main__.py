"""`python -m tests.faults`: make tiny artifacts, run the commands with faults, print the results; exit code 1 if a check failed."""

import os

os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", TORCH_CPP_LOG_LEVEL="ERROR")

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from tests.faults.campaign import run_campaign
from tests.faults.commands import BENCH, DISTRIBUTE, WRITERS, Inputs, embed_arguments, report_arguments
from tests.faults.disks import can_mount
from tests.faults.injection import can_trace

MAKE = """
import sys
from pathlib import Path
from tests.checkpoints import write_random_checkpoint
for name, seed, task in (("one", 11, "caption"), ("two", 12, "caption"), ("three", 13, "matching")):
    write_random_checkpoint(Path(sys.argv[1]) / name / "tiny", "tiny", seed=seed, task=task)
"""


def _toolkit(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "toolkit.cli", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def make_inputs(folder: Path) -> Inputs:
    """Make three tiny artifacts, packages, images and results, in other processes, because this one forks and must not run a model."""
    subprocess.run([sys.executable, "-c", MAKE, str(folder)], check=True)
    images, packages, results = folder / "images", folder / "packages", folder / "results"
    for made in (images, packages, results):
        made.mkdir()
    colour = np.random.default_rng(0)
    for number in range(8):
        Image.fromarray(colour.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(images / f"{number}.png")
    artifacts = {name: folder / f"{name}-artifacts" / "tiny-onnx-int8" for name in ("one", "two", "three")}
    for name, artifact in artifacts.items():
        _toolkit(
            "export", folder / name / "tiny", "--recipe", "onnx-int8", "--no-draft", "-o", artifact.parent, "--on-gate-failure", "write"
        )
    _toolkit("package", artifacts["one"], "-o", packages / "artifact.tar.gz")
    _toolkit("package", artifacts["two"], "-o", packages / "other.tar.gz")
    _toolkit("unpack", packages / "artifact.tar.gz", "-o", packages / "unpacked")
    _toolkit("distribute", artifacts["one"], images, "-o", folder / "shards", *DISTRIBUTE)
    _toolkit("bench", artifacts["one"], "--images", images, *BENCH, "-o", results / "records.jsonl")
    inputs = Inputs(
        checkpoint=folder / "one" / "tiny",
        artifact=artifacts["one"],
        other=artifacts["two"],
        images=images,
        packages=packages,
        shards=folder / "shards",
        matcher=artifacts["three"],
        results=results,
    )
    _toolkit(*embed_arguments(inputs), "-o", results / "embeddings.npz")
    _toolkit(*report_arguments(inputs), "-o", results / "report.html")
    return inputs


def main() -> None:
    """Run the campaign that the options select."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--commands", default=",".join(WRITERS))
    parser.add_argument("--actions", default="kill,fail,full,disk,signal")
    parser.add_argument("--most", type=int, help="points for each command and action  [default: every call]")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    actions = options.actions.split(",")
    with tempfile.TemporaryDirectory() as folder:
        if "disk" in actions and not can_mount(Path(folder) / "disk"):
            print("no small disks here: mounting needs root or `unshare -rm`")
            actions.remove("disk")
        if "fail" in actions and not can_trace():
            print("no refused calls here: they need strace, and the right to attach it")
            actions.remove("fail")
        tally = run_campaign(make_inputs(Path(folder)), options.commands.split(","), actions, options.most, options.seed)
    print("\n".join([*tally.lines(), *(f"FAULT {fault}" for fault in tally.faults)]))
    print(f"{sum(tally.points.values())} points, seed {options.seed}: {len(tally.faults)} faults")
    sys.exit(bool(tally.faults))


if __name__ == "__main__":
    main()
