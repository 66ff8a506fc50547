"""Artifacts on disk: damage is found and named; writing is all or nothing, whatever comes between.

Crashes are real ones: a process that stops for good, or whose system calls fail, at each call that touches the file system in turn.
"""

import errno
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import runtimes
from runtimes.artifact import open_artifact, write_artifact
from runtimes.errors import ArtifactCorruptError, ArtifactMissingError, ManifestError, OutputError, OutputExistsError
from runtimes.payload import opened

ROOT = Path(__file__).parents[2]


def snapshot(folder):
    """Every file of a folder: name → (bytes, time of last change)."""
    return {str(file.relative_to(folder)): (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.rglob("*") if file.is_file()}


def parts(artifact, into, tokenizer_indent=None):
    """Copies of an artifact's files under their roles' names: what `write_artifact` takes. The tokenizer's layout may be changed."""
    into.mkdir(parents=True, exist_ok=True)
    payload = {}
    for name, entry in open_artifact(artifact).manifest.files.items():
        payload[entry.role] = into / f"{entry.role}{Path(name).suffix}"
        shutil.copyfile(artifact / name, payload[entry.role])
    if tokenizer_indent is not None:
        parsed = json.loads(payload["tokenizer"].read_bytes())
        payload["tokenizer"].write_text(json.dumps(parsed, indent=tokenizer_indent))
    return payload


def is_whole(path):
    """Whether every file is what the manifest says, and nothing else is there."""
    artifact = open_artifact(path)
    with opened(artifact) as payload:
        for entry in artifact.manifest.files.values():
            payload.read(entry.role)
    return sorted(file.name for file in path.iterdir()) == sorted([*artifact.manifest.files, "manifest.json"])


@pytest.fixture
def artifact(tiny_artifacts, tmp_path):
    """A copy that a test may spoil."""
    return Path(shutil.copytree(tiny_artifacts["onnx-int8"], tmp_path / "tiny"))


@pytest.fixture
def old_and_new(tiny_artifacts):
    return tiny_artifacts["onnx-int8"], tiny_artifacts["pytorch-fp32"]


def test_no_manifest_no_artifact(artifact):
    (artifact / "manifest.json").unlink()
    with pytest.raises(ArtifactMissingError) as caught:
        open_artifact(artifact)
    parent = artifact.parent
    assert str(caught.value) == (
        f"{artifact}: no artifact here (no manifest.json). Make one with: toolkit export CHECKPOINT --output {parent}"
    )


def test_the_size_is_that_of_every_file(artifact):
    expected = sum(file.stat().st_size for file in artifact.iterdir())
    assert open_artifact(artifact).total_bytes == expected


def test_a_new_artifact(tiny_artifacts, tmp_path):
    source = open_artifact(tiny_artifacts["onnx-fp32"])
    path = tmp_path / "deep" / "er" / "new"
    payload = parts(source.path, tmp_path / "parts")
    written = write_artifact(path, replace(source.manifest, name="new"), payload, overwrite=False)
    assert open_artifact(path) == written
    assert written.manifest == replace(source.manifest, name="new", files=written.manifest.files).sealed()
    assert written.manifest.files == source.manifest.files  # the same content under the same hash
    assert is_whole(path)
    assert [file.name for file in path.parent.iterdir()] == ["new"]  # no lock, no working folder
    assert [file.exists() for file in payload.values()] == [False] * 5  # moved, not copied
    assert {oct(file.stat().st_mode & 0o777) for file in path.iterdir()} == {"0o644"}
    assert runtimes.load(path).manifest == written.manifest


def test_an_empty_folder_is_taken(old_and_new, tmp_path):
    source = open_artifact(old_and_new[0])
    (tmp_path / "new").mkdir()
    write_artifact(tmp_path / "new", source.manifest, parts(source.path, tmp_path / "parts"), overwrite=False)
    assert is_whole(tmp_path / "new")


def test_what_is_there_is_refused_and_untouched(old_and_new, artifact, tmp_path):
    new = open_artifact(old_and_new[1])
    before = snapshot(artifact)
    payload = parts(new.path, tmp_path / "parts")
    with pytest.raises(OutputExistsError) as caught:
        write_artifact(artifact, new.manifest, payload, overwrite=False)
    assert str(caught.value) == f"{artifact}: exists already; nothing was changed. Use --overwrite to replace it."
    assert snapshot(artifact) == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["parts", "tiny"]
    assert [file.exists() for file in payload.values()] == [True] * 2


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_no_artifact_is_never_replaced(old_and_new, tmp_path, kind):
    new = open_artifact(old_and_new[1])
    path = tmp_path / "photos"
    if kind == "folder":
        path.mkdir()
        (path / "holiday.jpg").write_bytes(b"dear")
    else:
        path.write_bytes(b"dear")
    with pytest.raises(OutputError) as caught:
        write_artifact(path, new.manifest, parts(new.path, tmp_path / "parts"), overwrite=True)
    assert str(caught.value) == (f"{path}: cannot write: it is not an artifact, so --overwrite does not replace it. Nothing was changed.")
    assert (path / "holiday.jpg" if kind == "folder" else path).read_bytes() == b"dear"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["parts", "photos"]


def test_replacing_leaves_nothing_of_the_old(old_and_new, artifact, tmp_path):
    new = open_artifact(old_and_new[1])
    (artifact / ".manifest.json-left").write_bytes(b"of a killed writer")
    written = write_artifact(artifact, new.manifest, parts(new.path, tmp_path / "parts"), overwrite=True)
    assert written.manifest == new.manifest
    assert is_whole(artifact)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["parts", "tiny"]


def test_replacing_by_the_same_keeps_every_byte(artifact, tmp_path):
    before = {name: content for name, (content, _) in snapshot(artifact).items()}
    same = open_artifact(artifact)
    write_artifact(artifact, same.manifest, parts(artifact, tmp_path / "parts"), overwrite=True)
    assert {name: content for name, (content, _) in snapshot(artifact).items()} == before


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_exporting_again_repairs_a_damaged_file(artifact, tmp_path, damage):
    """The remedy that `ArtifactCorruptError` names: the new file has the damaged one's name, as it has the same hash."""
    before = open_artifact(artifact)
    payload = parts(artifact, tmp_path / "parts")
    file = before.path_of("decoder")
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content[:-9] if damage == "cut" else content[:-1] + bytes([content[-1] ^ 1]))
    write_artifact(artifact, before.manifest, payload, overwrite=True)
    assert file.read_bytes() == content
    assert is_whole(artifact)


WRITER = """
import errno, json, os, shutil, sys, time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, {root!r})
from runtimes.artifact import open_artifact, write_artifact
from runtimes.errors import OutputError
from runtimes.payload import opened

EVENTS = {{"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.scandir", "os.listdir", "fcntl.flock"}}

def write(path, source, payload, overwrite=True, **changes):
    return write_artifact(Path(path), replace(open_artifact(Path(source)).manifest, **changes), {{
        role: Path(file) for role, file in payload.items()}}, overwrite=overwrite)
"""

AT_EACH_CALL = """
state, new, scratch, overwrite, action, copying = json.loads(sys.argv[1])
state, new, scratch = Path(state), Path(new), Path(scratch)
roles = {entry.role: name for name, entry in open_artifact(new).manifest.files.items()}

def content(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()} if path.exists() else None

def look(path, old):
    "What is at the path: the old, the new, nothing, or a mixture."
    now = content(path)
    if now == old:
        return "old"
    try:
        artifact = open_artifact(path)
        with opened(artifact) as payload:
            for entry in artifact.manifest.files.values():
                payload.read(entry.role)
        if artifact.manifest.files != open_artifact(new).manifest.files:
            return "old, and more" if {**now, **(old or {})} == now else "mixture"
        return "new" if len(now) == len(artifact.manifest.files) + 1 else "new, and more"
    except Exception as error:
        return "nothing" if not now else repr(error)

def attempt(path, stop_at, overwrite=overwrite):
    parts = scratch / "parts"
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir()
    payload = {}
    for role, name in roles.items():
        payload[role] = parts / (role + Path(name).suffix)
        shutil.copyfile(new / name, payload[role])
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    calls = 0

    def call(name):
        nonlocal calls
        calls += 1
        if calls == stop_at:
            if action == "kill":
                os._exit(9)
            raise KeyboardInterrupt if action == "interrupt" else OSError(getattr(errno, action), os.strerror(getattr(errno, action)))

    def hook(event, arguments):
        if event in EVENTS and any(str(scratch) in str(a) or isinstance(a, int) for a in arguments[:1]):
            if copying and event == "os.rename" and str(parts) in str(arguments[0]):
                raise OSError(errno.EXDEV, "Invalid cross-device link")
            call(event)

    os.fsync = lambda descriptor: call("fsync")  # it is the process that stops, not the machine
    sys.addaudithook(hook)
    try:
        write(path, new, payload, overwrite)
        os._exit(0 if calls >= stop_at else 5)
    except OutputError as error:
        os._exit(1 if "Nothing was changed" in str(error) else 2)
    except KeyboardInterrupt:
        os._exit(3)
    except BaseException as error:
        print(repr(error), file=sys.stderr)
        os._exit(4)

rows = []
for stop_at in range(1, 200):
    path = scratch / "place" / "artifact"
    shutil.rmtree(scratch / "place", ignore_errors=True)
    path.parent.mkdir(parents=True)
    if state != Path("none"):
        shutil.copytree(state, path)
    old = content(path)
    code = attempt(path, stop_at)
    found = look(path, old)
    debris = sorted(file.name for file in path.parent.iterdir() if file != path)
    again = attempt(path, 0, overwrite or found == "new")
    rows.append([code, found, debris, again, look(path, old), sorted(file.name for file in path.parent.iterdir())])
    if code == 5:
        break
print(json.dumps(rows))
"""


def python(script, *arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER.format(root=str(ROOT)) + script, *arguments], stdout=subprocess.PIPE, text=True, **options
    )


def rows_of(*arguments):
    """(exit code, what was found, debris, exit code of a second run, what was found then, names then) for a stop at each call."""
    process = python(AT_EACH_CALL, json.dumps([str(one) if isinstance(one, Path) else one for one in arguments]))
    output, _ = process.communicate()
    assert process.returncode == 0
    return json.loads(output)


@pytest.mark.parametrize("copying", [False, True], ids=["moving", "copying"])
@pytest.mark.parametrize("state", ["none", "empty", "old"])
def test_a_writer_killed_at_any_call(old_and_new, tmp_path, state, copying):
    (tmp_path / "empty").mkdir()
    old, new = old_and_new
    start = {"none": "none", "empty": tmp_path / "empty", "old": old}[state]
    rows = rows_of(start, new, tmp_path / "scratch", state == "old", "kill", copying)
    assert len(rows) > 20
    assert {code for code, *_ in rows[:-1]} == {9}
    if state == "old":
        assert {found for _, found, *_ in rows[:-1]} <= {"old", "old, and more", "new", "new, and more"}
    else:
        assert {found for _, found, *_ in rows[:-1]} <= {"old", "nothing", "new"}
    assert {(again, found, *names) for *_, again, found, names in rows} == {(0, "new", "artifact")}
    assert rows[-1][:3] == [5, "new", []]  # not stopped: there were no more calls


@pytest.mark.parametrize("action", ["ENOSPC", "EACCES", "interrupt"])
@pytest.mark.parametrize("state", ["none", "old"])
def test_a_call_that_fails(old_and_new, tmp_path, state, action):
    """An error means that nothing was changed; no error, that everything was. An interrupt leaves the one or the other."""
    old, new = old_and_new
    rows = rows_of(old if state == "old" else "none", new, tmp_path / "scratch", state == "old", action, False)
    wanted = (
        {(0, "new"), (0, "new, and more"), (1, "old"), (5, "new")}
        if action != "interrupt"
        else {(3, "old"), (3, "new"), (3, "new, and more"), (5, "new")}
    )
    assert {(code, found) for code, found, *_ in rows} <= wanted
    assert {(1, "old"), (3, "old")} & {(code, found) for code, found, *_ in rows} != set()
    assert {(again, found, *names) for *_, again, found, names in rows} == {(0, "new", "artifact")}


PAUSING = """
path, source, payload, pause_at = json.loads(sys.argv[1])

def hook(event, arguments):
    global pause_at
    if event == pause_at:
        pause_at = None
        print("waiting", flush=True)
        sys.stdin.readline()

sys.addaudithook(hook)
try:
    write(path, source, payload)
    print("written")
except OutputError as error:
    print(error)
"""


def pausing(path, source, payload, event):
    """A writer that waits for a line before its first call of a kind."""
    arguments = json.dumps([str(path), str(source), {role: str(file) for role, file in payload.items()}, event])
    process = python(PAUSING, arguments, stdin=subprocess.PIPE)
    assert process.stdout.readline() == "waiting\n"
    return process


def test_a_second_writer_is_turned_away(old_and_new, artifact, tmp_path):
    old, new = old_and_new
    first = pausing(artifact, new, parts(new, tmp_path / "a"), "os.rename")
    with pytest.raises(OutputError) as caught:
        write_artifact(artifact, open_artifact(old).manifest, parts(old, tmp_path / "b"), overwrite=True)
    assert str(caught.value) == f"{artifact}: cannot write: another process is writing it. Nothing was changed."
    assert first.communicate("\n")[0] == "written\n"
    assert open_artifact(artifact).manifest == open_artifact(new).manifest
    assert is_whole(artifact)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "b", "tiny"]


def test_a_lock_that_was_removed_while_waiting_for_it_is_worth_nothing(old_and_new, artifact, tmp_path):
    old, new = old_and_new
    late = pausing(artifact, new, parts(new, tmp_path / "a"), "fcntl.flock")
    write_artifact(artifact, open_artifact(old).manifest, parts(old, tmp_path / "b"), overwrite=True)
    assert late.communicate("\n")[0] == f"{artifact}: cannot write: another process has just written it. Nothing was changed.\n"
    assert open_artifact(artifact).manifest == open_artifact(old).manifest
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "b", "tiny"]


CROWD = """
path, sources, scratch, count, pause, stop = json.loads(sys.argv[1])
written = refused = 0
turn = 0
os.fsync = lambda descriptor: None  # faster, so that more happens at once
while written < count or (stop and not Path(stop).exists()):
    time.sleep(pause)
    source = Path(sources[turn % len(sources)])
    parts = Path(scratch) / str(os.getpid())
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir(parents=True)
    payload = {}
    for name, entry in open_artifact(source).manifest.files.items():
        payload[entry.role] = parts / (entry.role + Path(name).suffix)
        shutil.copyfile(source / name, payload[entry.role])
    if turn % 2:
        parsed = json.loads(payload["tokenizer"].read_bytes())
        payload["tokenizer"].write_text(json.dumps(parsed, indent=turn % 4))
    try:
        write(path, source, payload, gate={"turn": turn, "process": os.getpid()})
        written, turn = written + 1, turn + 1
    except OutputError as error:
        assert "another process" in str(error), error
        refused += 1
print(json.dumps([written, refused]))
"""


def crowd(path, sources, scratch, count, pause=0.0, stop=None):
    """A process that writes one artifact after the other, so often, and on until a file is there."""
    return python(CROWD, json.dumps([str(path), [str(source) for source in sources], str(scratch), count, pause, stop and str(stop)]))


def test_writers_in_a_crowd(old_and_new, artifact, tmp_path):
    writers = [crowd(artifact, old_and_new, tmp_path / "parts", 8) for _ in range(3)]
    assert [json.loads(writer.communicate()[0])[0] for writer in writers] == [8, 8, 8]
    assert is_whole(artifact)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["parts", "tiny"]


def test_a_reader_while_it_is_replaced_fifty_times(tiny_artifacts, sample_pictures, artifact, tmp_path):
    pictures = [picture.path for picture in sample_pictures[:2]]
    names = ("onnx-fp32", "onnx-int8", "pytorch-fp32")
    expected = {name: [caption.token_ids for caption in runtimes.load(tiny_artifacts[name], threads=1).caption(pictures)] for name in names}
    writer = crowd(artifact, [tiny_artifacts[name] for name in names], tmp_path / "parts", 50, pause=0.02, stop=tmp_path / "stop")
    seen = []
    while writer.poll() is None:
        captioner = runtimes.load(artifact, threads=1)
        seen.append((captioner.manifest.recipe["name"], [caption.token_ids for caption in captioner.caption(pictures)]))
        if len(seen) == 25:
            (tmp_path / "stop").touch()
    written, refused = json.loads(writer.communicate()[0])
    assert written >= 50
    assert refused == 0
    assert len(seen) >= 25
    assert [name for name, token_ids in seen if token_ids != expected[name]] == []
    assert min(len(token_ids) for _, listed in seen for token_ids in listed) > 1  # captions, not errors
    assert runtimes.load(artifact, threads=1).manifest.gate["turn"] == written - 1


def test_a_reader_that_cannot_be_helped(artifact):
    """Files that are gone while the manifest stays the same are damage, not a replacement."""
    (file,) = artifact.glob("encoder-*.onnx")
    file.unlink()
    with pytest.raises(ArtifactCorruptError, match="is missing"):
        runtimes.load(artifact)
    (artifact / "manifest.json").write_bytes(b"{}")
    with pytest.raises(ManifestError, match="missing applied, architecture"):
        runtimes.load(artifact)


def test_no_room_is_one_line(old_and_new, tmp_path):
    """A full disk, as the system tells it: /dev/full takes nothing."""
    assert os.strerror(errno.ENOSPC) == "No space left on device"
    with pytest.raises(OSError, match="No space left on device"):
        Path("/dev/full").write_bytes(b"x")
    source = open_artifact(old_and_new[0])
    payload = parts(source.path, tmp_path / "parts")
    payload["tokenizer"] = Path("/dev/full")
    with pytest.raises(OutputError) as caught:
        write_artifact(tmp_path / "new", source.manifest, {"tokenizer": Path("/dev/null/x")}, overwrite=False)
    assert str(caught.value) == f"{tmp_path / 'new'}: cannot write: Not a directory. Nothing was changed."
    assert sorted(file.name for file in tmp_path.iterdir()) == ["parts"]
