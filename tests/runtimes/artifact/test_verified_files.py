"""The files of an artifact: checked before use, read from the checked descriptor, and checked for changes afterwards."""

import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import runtimes
from runtimes.artifact.folder import open_artifact, sha256_of
from runtimes.artifact.verified_files import KEPT_BYTES, MAX_READ_BYTES, open_verified
from runtimes.errors import ArtifactCorruptError

ROLES = ["encoder", "encoder-weights", "decoder", "decoder-weights", "tokenizer"]


@pytest.fixture
def artifact(tiny_artifacts, tmp_path):
    """A copy that a test may damage."""
    return open_artifact(Path(shutil.copytree(tiny_artifacts["onnx-int8"], tmp_path / "tiny")))


def with_file(artifact, role, content):
    """Replace the content of a file under its name, and its entry in the manifest."""
    name = artifact.manifest.file_of(role)
    (artifact.path / name).write_bytes(content)
    entry = replace(artifact.manifest.files[name], bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    manifest = replace(artifact.manifest, files=artifact.manifest.files | {name: entry})
    artifact.manifest_path.write_bytes(manifest.content)
    return open_artifact(artifact.path)


def test_files_are_named_by_role_and_content(artifact):
    assert [entry.role for entry in artifact.manifest.files.values()] == ROLES
    for role in ROLES:
        file = artifact.path_of(role)
        assert file.name == f"{role}-{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}{file.suffix}"


@pytest.mark.parametrize("role", ROLES)
def test_damage_is_reported(artifact, role):
    file = artifact.path_of(role)
    content = file.read_bytes()
    size = len(content)
    flipped = bytearray(content)
    flipped[size // 2] ^= 4
    cases = {
        content[:-1]: f"has {size - 1} bytes, the manifest declares {size}",
        content[: size // 2]: f"has {size // 2} bytes, the manifest declares {size}",
        b"": f"has 0 bytes, the manifest declares {size}",
        content + b"\0": f"has {size + 1} bytes, the manifest declares {size}",
        bytes(flipped): f"sha256 is {hashlib.sha256(flipped).hexdigest()[:12]}…, the manifest declares {sha256_of(file)[:12]}…",
        None: "is missing",
    }

    def read():
        with open_verified(artifact) as files:
            files.read(role)

    for damaged, problem in cases.items():
        if damaged is None:
            file.unlink()
        else:
            file.write_bytes(damaged)
        for use in (read, lambda: runtimes.load(artifact.path)):
            with pytest.raises(ArtifactCorruptError) as caught:
                use()
            assert str(caught.value) == f"{file}: {problem}. Export or copy the artifact again."


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "link to a folder", "link to a pipe", "link to itself", "link to nothing"])
def test_a_path_that_is_not_a_regular_file_is_refused_without_blocking(artifact, tmp_path, kind):
    file, elsewhere = artifact.path_of("decoder-weights"), tmp_path / "elsewhere"
    file.unlink()
    {"folder": elsewhere.mkdir, "pipe": lambda: os.mkfifo(elsewhere)}.get(kind.removeprefix("link to a "), lambda: None)()
    if kind.startswith("link") or kind == "device":
        file.symlink_to({"device": Path(os.devnull), "link to itself": file}.get(kind, elsewhere))
    else:
        elsewhere.rename(file)
    with (
        open_verified(artifact) as files,
        pytest.raises(ArtifactCorruptError, match=r"is not a regular file|cannot be read|is missing") as caught,
    ):
        files.open("decoder-weights")
    assert str(file) in str(caught.value)


def test_a_role_that_no_file_has(artifact):
    with open_verified(artifact) as files, pytest.raises(ArtifactCorruptError) as caught:
        files.read("weights")
    assert (
        str(caught.value) == f"{artifact.path}/manifest.json: declares no file with the role 'weights'. Export or copy the artifact again."
    )


def test_a_damaged_file_that_is_not_read_is_no_error(artifact):
    artifact.path_of("tokenizer").write_bytes(b"")
    with open_verified(artifact) as files:
        assert files.read("encoder") == artifact.path_of("encoder").read_bytes()
        files.check_unchanged()


@pytest.mark.parametrize("size", [KEPT_BYTES, KEPT_BYTES + 1])
def test_small_and_large_files_can_be_read_repeatedly(artifact, size):
    content = bytes(range(256)) * (size // 256) + bytes(size % 256)
    artifact = with_file(artifact, "tokenizer", content)
    with open_verified(artifact) as files:
        assert files.read("tokenizer") == files.open("tokenizer").read() == files.read("tokenizer") == content
        assert files.hash_s > 0
    artifact.path_of("tokenizer").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with open_verified(artifact) as files, pytest.raises(ArtifactCorruptError, match="sha256"):
        files.read("tokenizer")


def test_a_file_that_is_modified_after_hashing_is_read_as_it_was_hashed(artifact):
    content = artifact.path_of("encoder").read_bytes()
    with open_verified(artifact) as files:
        files.read("encoder")
        artifact.path_of("encoder").write_bytes(bytes(len(content)))
        assert files.read("encoder") == content


@pytest.mark.parametrize("change", ["written to", "replaced", "removed", "linked elsewhere"])
@pytest.mark.parametrize("restored", [False, True])
def test_a_change_after_hashing_is_detected(artifact, change, restored):
    """Restoring content and mtime does not hide the change, since ctime cannot be set."""
    file = artifact.path_of("decoder-weights")
    status, content = file.stat(), file.read_bytes()
    with open_verified(artifact) as files:
        files.path_for_mmap("decoder-weights")
        files.check_unchanged()
        if change == "written to":
            with file.open("r+b") as stream:
                stream.write(content if restored else b"\xff" * 8)
        elif change == "replaced":
            other = file.with_suffix(".new")
            other.write_bytes(content if restored else bytes(len(content)))
            other.replace(file)
        elif change == "linked elsewhere":
            file.rename(file.with_suffix(".same"))
            file.with_suffix(".other").write_bytes(content if restored else bytes(len(content)))
            file.symlink_to(file.with_suffix(".other"))
        else:
            file.rename(file.with_suffix(".gone"))
        if restored and file.exists():
            os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        with pytest.raises(ArtifactCorruptError) as caught:
            files.check_unchanged()
    assert str(caught.value) == f"{file}: was changed while it was opened. Export or copy the artifact again."


def test_without_verify_sizes_are_checked_and_hashes_are_not(artifact):
    file = artifact.path_of("decoder-weights")
    content = bytearray(file.read_bytes())
    content[0] ^= 1
    file.write_bytes(content)
    assert runtimes.load(artifact.path, verify=False).manifest == artifact.manifest
    file.write_bytes(content[:-1])
    with pytest.raises(ArtifactCorruptError, match="bytes"):
        runtimes.load(artifact.path, verify=False)


def test_no_descriptor_and_no_thread_is_left(artifact):
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the number of entries is needed, not paths
    with open_verified(artifact) as files:
        files.open("encoder")
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_a_file_that_is_read_as_a_whole_has_a_size_limit(artifact):
    """A forged manifest may declare a tokenizer of any size. The file of this test is sparse."""
    file = artifact.path_of("tokenizer")
    os.truncate(file, MAX_READ_BYTES + 1)
    entry = replace(artifact.manifest.files[file.name], bytes=MAX_READ_BYTES + 1, sha256=sha256_of(file))
    files = artifact.manifest.files | {file.name: entry}
    forged = replace(artifact, manifest=replace(artifact.manifest, files=files))
    with open_verified(forged) as files, pytest.raises(ArtifactCorruptError, match="268435456"):
        files.read("tokenizer")
