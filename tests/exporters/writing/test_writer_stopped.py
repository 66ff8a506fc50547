"""Test writers that are killed, or get an error, at each call to the file system: either the old or the new artifact is complete.

A subprocess really ends at that call, or the call raises.
"""

import json
from pathlib import Path

import pytest

from tests.exporters.writing.stopped_writer import python

AT_EACH_CALL = """
state, new, scratch, overwrite, action, copying = json.loads(sys.argv[1])
state, new, scratch = Path(state), Path(new), Path(scratch)
roles = {entry.role: name for name, entry in open_artifact(new).manifest.files.items()}

def content(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()} if path.exists() else None

def look(path, old):
    "Return what is at the path: the old artifact, the new one, nothing, or a mixture."
    now = content(path)
    if now == old:
        return "old"
    try:
        artifact = open_artifact(path)
        with open_verified(artifact) as payload:
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

    os.fsync = lambda descriptor: call("fsync")  # the process is stopped, not the machine, so data needs not be flushed
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
    state_after = look(path, old)
    leftovers = sorted(file.name for file in path.parent.iterdir() if file != path)
    again = attempt(path, 0, overwrite or state_after == "new")
    rows.append([code, state_after, leftovers, again, look(path, old), sorted(file.name for file in path.parent.iterdir())])
    if code == 5:
        break
print(json.dumps(rows))
"""


def rows_of(*arguments):
    """Return a row for a stop at each call: exit code, state, leftovers, then exit code, state and names after a second run."""
    process = python(AT_EACH_CALL, json.dumps([str(value) if isinstance(value, Path) else value for value in arguments]))
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
        assert {content for _, content, *_ in rows[:-1]} <= {"old", "old, and more", "new", "new, and more"}
    else:
        assert {content for _, content, *_ in rows[:-1]} <= {"old", "nothing", "new"}
    assert {(again, content, *names) for *_, again, content, names in rows} == {(0, "new", "artifact")}
    assert rows[-1][:3] == [5, "new", []]  # not stopped, because there were no more calls


@pytest.mark.parametrize("action", ["ENOSPC", "EACCES", "interrupt"])
@pytest.mark.parametrize("state", ["none", "old"])
def test_a_call_that_fails(old_and_new, tmp_path, state, action):
    """After an error, nothing was changed. Without an error, the new artifact is complete. After an interrupt, it is either."""
    old, new = old_and_new
    rows = rows_of(old if state == "old" else "none", new, tmp_path / "scratch", state == "old", action, False)
    allowed = (
        {(0, "new"), (0, "new, and more"), (1, "old"), (5, "new")}
        if action != "interrupt"
        else {(3, "old"), (3, "new"), (3, "new, and more"), (5, "new")}
    )
    assert {(code, content) for code, content, *_ in rows} <= allowed
    assert {(1, "old"), (3, "old")} & {(code, content) for code, content, *_ in rows} != set()
    assert {(again, content, *names) for *_, again, content, names in rows} == {(0, "new", "artifact")}
