"""Collect wheels for a device without a network: this distribution, all that its `[device]` install needs, and a list that pins them.

This distribution is built where the toolkit runs from its source tree, and downloaded from the index where it was installed. pip does the
work in a child process, for the platform that is asked for. Markers of requirements ("only on Windows") are still judged by the machine
that packages, so a package for another operating system is best made there.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from runtimes.errors import UnavailableError

DISTRIBUTION, EXTRA = "blip-toolkit", "device"
REQUIREMENTS = "requirements.txt"
WHEEL_ROLE, REQUIREMENTS_ROLE = "wheel", "requirements"
SOURCES = ("toolkit", "exporters", "runtimes", "pyproject.toml", "setup.py", "README.md", "LICENSE")
ROOT = Path(__file__).parents[2]
EPOCH = "315532800"
"""1980-01-01, the first day of a zip file, for build backends: a wheel's bytes do not depend on when it was built."""
OLDEST_GLIBC = 5
"""manylinux_2_5 is the oldest platform that wheels are made for."""


def collect(platforms: Sequence[str] = (), python: str | None = None) -> dict[str, tuple[str, bytes]]:
    """Gather the wheels of an install for devices; return file name → (role, content), the list that pins them included.

    Args:
        platforms: As pip names them, such as `manylinux_2_28_aarch64`; none: this machine's.
        python: The device's Python, such as `3.12`; None: this one's.

    Raises:
        UnavailableError: pip cannot have one of them.
    """
    with tempfile.TemporaryDirectory(prefix="toolkit-wheels-") as scratch:
        folder = Path(scratch)
        in_source_tree = (ROOT / "pyproject.toml").is_file()
        distribution = f"{DISTRIBUTION}[{EXTRA}]"
        wanted = f"{distribution} @ {own_wheel(folder).as_uri()}" if in_source_tree else f"{distribution}=={version(DISTRIBUTION)}"
        options = [f"--platform={name}" for platform in platforms for name in compatible(platform)]
        options += [f"--python-version={python}"] if python else []
        options += ["--implementation=cp"] if options else []
        _pip("download", "--only-binary=:all:", "--dest", str(folder / "wheels"), *options, wanted)
        files = {file.name: file.read_bytes() for file in sorted((folder / "wheels").glob("*.whl"))}
    pinned = [f"{_named(name)} --hash=sha256:{hashlib.sha256(content).hexdigest()}" for name, content in files.items()]
    listed = "\n".join(["# pip install --no-index --find-links . --require-hashes -r requirements.txt", *pinned, ""])
    wheels = {name: (f"{WHEEL_ROLE}:{name}", content) for name, content in files.items()}
    return {**wheels, REQUIREMENTS: (REQUIREMENTS_ROLE, listed.encode())}


def compatible(platform: str) -> list[str]:
    """Return the platforms whose wheels run on one, newest first: a glibc runs what was built for an older one, but pip asks for each."""
    glibc = re.fullmatch(r"manylinux_2_(\d+)_(\w+)", platform)
    if glibc is None:
        return [platform]
    return [f"manylinux_2_{minor}_{glibc[2]}" for minor in range(int(glibc[1]), OLDEST_GLIBC - 1, -1)]


def own_wheel(folder: Path) -> Path:
    """Build this distribution's wheel from the source tree that it runs from.

    Raises:
        UnavailableError: It cannot be built.
    """
    copy = folder / "source"  # building leaves folders behind, and old ones there would get into the wheel
    copy.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy / name)
    _pip("wheel", "--no-deps", "--wheel-dir", str(folder), str(copy))
    return next(folder.glob("*.whl"))


def _named(wheel: str) -> str:
    """Return `name==version` of a wheel's file name."""
    name, release = wheel.split("-")[:2]
    return f"{name}=={release}"


def _pip(*arguments: str) -> None:
    environment = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    ended = subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        lines = [line for line in ended.stderr.splitlines() if line.strip()]
        said = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1] if lines else f"exit code {ended.returncode}")
        raise UnavailableError(f"pip cannot {arguments[0]} what a device needs: {said.removeprefix('ERROR: ')}")
