"""Helpers for tests that write one artifact over another, and writers in subprocesses."""

import shutil
import subprocess
import sys
from pathlib import Path

from runtimes.artifact.folder import open_artifact
from runtimes.artifact.verified_files import open_verified
from tests.paths import ROOT


def snapshot(folder):
    """Return name → (bytes, modification time) of every file in a folder."""
    return {str(file.relative_to(folder)): (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.rglob("*") if file.is_file()}


def parts(artifact, into):
    """Copy an artifact's files under the names of their roles, as the payload for `write_artifact`."""
    into.mkdir(parents=True, exist_ok=True)
    payload = {}
    for name, entry in open_artifact(artifact).manifest.files.items():
        payload[entry.role] = into / f"{entry.role}{Path(name).suffix}"
        shutil.copyfile(artifact / name, payload[entry.role])
    return payload


def is_whole(path):
    """Return whether every file matches the manifest and there is no other file."""
    artifact = open_artifact(path)
    with open_verified(artifact) as payload:
        for entry in artifact.manifest.files.values():
            payload.read(entry.role)
    return sorted(file.name for file in path.iterdir()) == sorted([*artifact.manifest.files, "manifest.json"])


WRITER = """
import errno, json, os, shutil, sys, time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, {root!r})
from exporters.writing.artifact_writer import write_artifact
from runtimes.artifact.folder import open_artifact
from runtimes.errors import OutputError
from runtimes.artifact.verified_files import open_verified

EVENTS = {{"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.scandir", "os.listdir", "fcntl.flock"}}

def write(path, source, payload, overwrite=True, **changes):
    return write_artifact(Path(path), replace(open_artifact(Path(source)).manifest, **changes), {{
        role: Path(file) for role, file in payload.items()}}, overwrite=overwrite)
"""


def python(script, *arguments, **options):
    """Start a subprocess that runs `WRITER` and then a script."""
    return subprocess.Popen(
        [sys.executable, "-c", WRITER.format(root=str(ROOT)) + script, *arguments], stdout=subprocess.PIPE, text=True, **options
    )
