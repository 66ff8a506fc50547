"""Wheels for a device without a network: this distribution and all that its `[device]` install needs come out, and a list that pins them.

pip does the work in a child process, for the platform that is asked for. Markers of requirements ("only on Windows") are still judged by
the machine that packages, so a package for another operating system is best made there.
"""

import base64
import csv
import hashlib
import importlib.metadata
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from importlib.metadata import Distribution
from pathlib import Path

from runtimes.errors import UnavailableError

DISTRIBUTION, EXTRA = "blip-toolkit", "device"
REQUIREMENTS = "requirements.txt"
WHEEL_ROLE, REQUIREMENTS_ROLE = "wheel", "requirements"
SOURCES = ("toolkit", "exporters", "runtimes", "pyproject.toml", "README.md")
ROOT = Path(__file__).parents[2]
FIRST_DAY = (1980, 1, 1, 0, 0, 0)
EPOCH = "315532800"
"""The same day for build backends: a wheel's bytes shall not tell when it was built."""
INSTALLERS = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
"""Files of an installed distribution that were not in its wheel, or are made anew."""
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
        own = own_wheel(folder)
        options = [f"--platform={name}" for platform in platforms for name in compatible(platform)]
        options += [f"--python-version={python}"] if python else []
        options += ["--implementation=cp"] if options else []
        wanted = f"{DISTRIBUTION}[{EXTRA}] @ {own.as_uri()}"
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
    """Make this distribution's wheel: from the source tree it runs from, else from what was installed.

    Raises:
        UnavailableError: It cannot be built, or what was installed has been changed.
    """
    if not (ROOT / "pyproject.toml").is_file():
        return repacked(importlib.metadata.distribution(DISTRIBUTION), folder)
    copy = folder / "source"  # building leaves folders behind, and old ones there would get into the wheel
    copy.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy / name)
    _pip("wheel", "--no-deps", "--wheel-dir", str(folder), str(copy))
    return next(folder.glob("*.whl"))


def repacked(distribution: Distribution, folder: Path) -> Path:
    """Make an installed distribution's wheel again; the files are those of its record.

    Raises:
        UnavailableError: They were changed, or it was installed in another way than from a wheel.
    """
    name, version = re.sub(r"[-_.]+", "_", distribution.name), distribution.version
    tag = re.search(r"^Tag: (\S+)$", distribution.read_text("WHEEL") or "", re.MULTILINE)
    members: dict[str, bytes] = {}
    for file in distribution.files or []:
        if ".." in file.parts or "__pycache__" in file.parts or file.name in INSTALLERS:
            continue
        try:
            content = Path(str(file.locate())).read_bytes()
        except OSError:
            content = b""
        if file.hash is None or file.hash.value != _digest(content):
            raise UnavailableError(
                f"{file} of the installed {DISTRIBUTION} is not what was installed; install it again to package its wheel"
            )
        members[str(file)] = content
    if tag is None or f"{__name__.replace('.', '/')}.py" not in members:
        raise UnavailableError(f"{DISTRIBUTION} was not installed from a wheel, so its wheel cannot be packaged; install it from one")
    record = io.StringIO()
    place = f"{name}-{version}.dist-info/RECORD"
    csv.writer(record, lineterminator="\n").writerows(
        [*([path, f"sha256={_digest(content)}", len(content)] for path, content in members.items()), [place, "", ""]]
    )
    wheel = folder / f"{name}-{version}-{tag[1]}.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in [*members.items(), (place, record.getvalue().encode())]:
            archive.writestr(zipfile.ZipInfo(path, FIRST_DAY), content, zipfile.ZIP_DEFLATED)
    return wheel


def _digest(content: bytes) -> str:
    """Hash as a wheel's record spells it."""
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def _named(wheel: str) -> str:
    """Return `name==version` of a wheel's file name."""
    name, version = wheel.split("-")[:2]
    return f"{name}=={version}"


def _pip(*arguments: str) -> None:
    environment = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    ended = subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        lines = [line for line in ended.stderr.splitlines() if line.strip()]
        said = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1] if lines else f"exit code {ended.returncode}")
        raise UnavailableError(f"pip cannot {arguments[0]} what a device needs: {said.removeprefix('ERROR: ')}")
