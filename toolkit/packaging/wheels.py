"""Collect the wheels of `blip-toolkit[device]` and its dependencies, and a requirements.txt that pins them, for a device without a network.

A toolkit that runs from its source tree (`pip install -e`) builds its own wheel. An installed toolkit downloads its wheel from the
package index. pip runs in a subprocess, for the requested platform. pip evaluates environment markers of requirements ("only on Windows")
on the machine that packages, so package for another operating system on that operating system.
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
"""1980-01-01, the earliest date of a zip file: SOURCE_DATE_EPOCH, so that the bytes of a wheel do not depend on the build time."""
OLDEST_GLIBC = 5
"""manylinux_2_5 is the oldest manylinux platform."""


def collect(platforms: Sequence[str] = (), python: str | None = None) -> dict[str, tuple[str, bytes]]:
    """Download or build all wheels that a device needs.

    Args:
        platforms: Platform tags of pip, such as `manylinux_2_28_aarch64`; empty for this machine.
        python: Python version of the device, such as `3.12`; None for this Python.

    Returns:
        File name → (role, content) of the wheels and of requirements.txt.

    Raises:
        UnavailableError: pip cannot download or build a wheel.
    """
    with tempfile.TemporaryDirectory(prefix="toolkit-wheels-") as scratch:
        folder = Path(scratch)
        in_source_tree = (ROOT / "pyproject.toml").is_file()
        distribution = f"{DISTRIBUTION}[{EXTRA}]"
        requirement = f"{distribution} @ {own_wheel(folder).as_uri()}" if in_source_tree else f"{distribution}=={version(DISTRIBUTION)}"
        options = [f"--platform={name}" for platform in platforms for name in compatible(platform)]
        options += [f"--python-version={python}"] if python else []
        options += ["--implementation=cp"] if options else []
        remedy = "" if in_source_tree else ". Without an index that has blip-toolkit, install it from its clone with: pip install -e"
        _pip("download", "--only-binary=:all:", "--dest", str(folder / "wheels"), *options, requirement, remedy=remedy)
        files = {file.name: file.read_bytes() for file in sorted((folder / "wheels").glob("*.whl"))}
    pinned = [f"{_requirement(name)} --hash=sha256:{hashlib.sha256(content).hexdigest()}" for name, content in files.items()]
    requirements = "\n".join(["# pip install --no-index --find-links . --require-hashes -r requirements.txt", *pinned, ""])
    wheels = {name: (f"{WHEEL_ROLE}:{name}", content) for name, content in files.items()}
    return {**wheels, REQUIREMENTS: (REQUIREMENTS_ROLE, requirements.encode())}


def compatible(platform: str) -> list[str]:
    """Return the platform tags whose wheels run on a platform, newest glibc first: pip accepts only the tags that it is given."""
    glibc = re.fullmatch(r"manylinux_2_(\d+)_(\w+)", platform)
    if glibc is None:
        return [platform]
    return [f"manylinux_2_{minor}_{glibc[2]}" for minor in range(int(glibc[1]), OLDEST_GLIBC - 1, -1)]


def own_wheel(folder: Path) -> Path:
    """Build the wheel of this distribution from its source tree, and return its path.

    Raises:
        UnavailableError: The build failed.
    """
    copy = folder / "source"  # a build leaves folders in the source tree, and would put old ones into the wheel
    copy.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy / name)
    _pip("wheel", "--no-deps", "--wheel-dir", str(folder), str(copy))
    return next(folder.glob("*.whl"))


def _requirement(wheel: str) -> str:
    """Return the requirement `name==version` for the file name of a wheel."""
    name, release = wheel.split("-")[:2]
    return f"{name}=={release}"


def _pip(*arguments: str, remedy: str = "") -> None:
    environment = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    ended = subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        lines = [line for line in ended.stderr.splitlines() if line.strip()]
        default = lines[-1] if lines else f"exit code {ended.returncode}"
        reason = next((line for line in reversed(lines) if line.startswith("ERROR")), default)
        raise UnavailableError(f"pip {arguments[0]} failed for the device's wheels: {reason.removeprefix('ERROR: ')}{remedy}")
