"""Verify and caption packages for 64-bit ARM under emulation: `python -m tests.arm ARTIFACT... --folder build/arm`, `make check-arm`.

The root of the emulated machine is made of Debian's arm64 packages, which are only unpacked. `qemu-aarch64` runs its Python with the wheels
of the package. onnxruntime reads the CPU's features from /proc/cpuinfo, and qemu 7.2 shows the file of the host; so the root has its own.
Token ids and logits of an artifact are compared with those of this machine. Times under emulation have no meaning.
"""

import argparse
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.paths import ROOT

PLATFORM, PYTHON = "manylinux_2_28_aarch64", "3.11"
DEBIAN = (
    *("python3.11", "python3.11-minimal", "libpython3.11-stdlib", "libpython3.11-minimal", "libc6", "libgcc-s1", "libstdc++6", "zlib1g"),
    *("libexpat1", "libffi8", "libssl3", "libbz2-1.0", "liblzma5", "libsqlite3-0", "libuuid1", "libcrypt1", "libgomp1"),
)
CPU = "cortex-a76"
FEATURES = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
"""Those of `CPU`; `asimddp` are the dot products."""
CPUINFO = (
    f"processor\t: {{}}\nBogoMIPS\t: 50.00\nFeatures\t: {FEATURES}\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd0b\n\n"
)
PROBE = """
import sys
import numpy as np
import runtimes
artifact, output, *images = sys.argv[1:]
with runtimes.load(artifact, threads=1, draft=False) as captioner:
    captions = captioner.caption(images)
    ids = np.array([caption.token_ids + (-1,) * (64 - len(caption.token_ids)) for caption in captions])
    rows = [captioner.token_log_probabilities(image, captions=["a red bird on a branch"])[0] for image in images]
np.savez(output, ids=ids, rows=np.stack(rows), texts=[caption.text for caption in captions])
"""
"""Script that captions images and stores ids and log-probabilities of the vocabulary; it runs here and under emulation."""


@dataclass(frozen=True)
class Row:
    """One artifact under emulation."""

    recipe: str
    verified: bool
    same_captions: int
    images: int
    largest_difference: float
    """Of log-probabilities of all words after each word of a given caption, in nat."""
    mean_difference: float
    different: tuple[str, ...]
    """Captions that differ, with this machine's."""


def build_root(folder: Path) -> Path:
    """Unpack Debian's packages into a root for qemu, once; return it."""
    root, packages, state = folder / "root", folder / "debs", folder / "apt"
    if (root / "usr/bin/python3.11").exists():
        return root
    for each in (root / "proc", packages, state / "lists/partial", state / "cache/archives/partial"):
        each.mkdir(parents=True, exist_ok=True)
    options = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "Dir::State::Lists": state / "lists",
        "Dir::Cache": state / "cache",
    }
    options |= {"Dir::State::status": "/dev/null", "APT::Sandbox::User": "root"}
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
    subprocess.run([*apt, "update"], check=True)
    subprocess.run([*apt, "download", *DEBIAN], check=True, cwd=packages)
    for package in packages.glob("*.deb"):
        subprocess.run(["dpkg", "-x", str(package), str(root)], check=True)
    (root / "proc/cpuinfo").write_text("".join(map(CPUINFO.format, range(os.cpu_count() or 1))))
    return root


def unpack_wheels(package: Path, folder: Path) -> Path:
    """Unpack the wheels of a package into a folder; return it."""
    with tarfile.open(package) as archive:
        for member in archive:
            if member.name.endswith(".whl") and (stream := archive.extractfile(member)) is not None:
                with zipfile.ZipFile(stream) as wheel:
                    wheel.extractall(folder)  # noqa: S202 - pip downloaded these wheels; zipfile removes ".." from names
    return folder


def check(artifact: Path, folder: Path, images: Sequence[Path]) -> Row:
    """Package an artifact for ARM, verify it and caption with it under emulation, and compare with this machine."""
    root, recipe = build_root(folder.resolve()), json.loads((artifact / "manifest.json").read_text())["recipe"]["name"]
    work = folder.resolve() / recipe
    work.mkdir(exist_ok=True)
    package = work / "package.tar.gz"
    wheels = ["--with-wheels", "--platform", PLATFORM, "--python", PYTHON]
    toolkit = [sys.executable, "-m", "toolkit.cli"]
    subprocess.run([*toolkit, "package", str(artifact), *wheels, "--output", str(package), "--overwrite"], check=True, cwd=ROOT)
    site = unpack_wheels(package, work / "site")
    emulated = ["qemu-aarch64", "-cpu", CPU, "-L", str(root), str(root / "usr/bin/python3.11")]
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    verified = (
        subprocess.run([*emulated, "-m", "toolkit.cli", "verify", str(package)], env=environment, cwd=work, check=False).returncode == 0
    )
    arguments = [str(artifact.resolve()), *map(str, images)]
    for command, name, settings, cwd in (([sys.executable], "here.npz", None, ROOT), (emulated, "arm.npz", environment, work)):
        subprocess.run([*command, "-c", PROBE, arguments[0], str(work / name), *arguments[1:]], env=settings, cwd=cwd, check=True)
    return compare(recipe, np.load(work / "here.npz"), np.load(work / "arm.npz"), verified=verified)


def compare(recipe: str, here: Any, arm: Any, *, verified: bool) -> Row:
    """Compare ids and log-probabilities of two machines."""
    same = (here["ids"] == arm["ids"]).all(axis=1)
    differences = np.abs(here["rows"] - arm["rows"])
    return Row(
        recipe=recipe,
        verified=verified,
        same_captions=int(same.sum()),
        images=len(same),
        largest_difference=float(differences.max()),
        mean_difference=float(differences.mean()),
        different=tuple(f"{now} (here: {then})" for now, then, equal in zip(arm["texts"], here["texts"], same, strict=True) if not equal),
    )


def main() -> None:
    """Check artifacts and print a row each; exit code 1 if one cannot be verified."""
    parser = argparse.ArgumentParser(prog="python -m tests.arm", description=__doc__)
    parser.add_argument("artifacts", type=Path, nargs="+")
    parser.add_argument("--folder", type=Path, default=Path("build/arm"))
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--output", type=Path, help="Write the rows to this file (.json).")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    images = sorted((ROOT / "toolkit/sample").glob("*.jpg"))[: options.images]
    rows = [check(artifact, options.folder, images) for artifact in options.artifacts]
    for row in rows:
        print(json.dumps(asdict(row)))
    if options.output is not None:
        options.output.write_text(json.dumps({"cpu": CPU, "rows": [asdict(row) for row in rows]}, indent=2) + "\n")
    sys.exit(not all(row.verified for row in rows))


if __name__ == "__main__":
    main()
