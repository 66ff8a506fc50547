"""Test concurrent writers and readers of an artifact: one writer at a time, and a reader sees one complete artifact."""

import json
import subprocess

import pytest

import runtimes
from exporters.writing.artifact_writer import write_artifact
from runtimes.artifact.folder import open_artifact
from runtimes.errors import OutputError
from tests.exporters.writing.stopped_writer import is_whole, parts, python

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
    """Start a writer that waits for a line on its standard input before its first call of a kind."""
    arguments = json.dumps([str(path), str(source), {role: str(file) for role, file in payload.items()}, event])
    process = python(PAUSING, arguments, stdin=subprocess.PIPE)
    assert process.stdout.readline() == "waiting\n"
    return process


def test_a_second_writer_is_refused(old_and_new, artifact, tmp_path):
    old, new = old_and_new
    first = pausing(artifact, new, parts(new, tmp_path / "a"), "os.rename")
    with pytest.raises(OutputError) as caught:
        write_artifact(artifact, open_artifact(old).manifest, parts(old, tmp_path / "b"), overwrite=True)
    assert str(caught.value) == f"{artifact}: cannot write: another process is writing it. Nothing was changed."
    assert first.communicate("\n")[0] == "written\n"
    assert open_artifact(artifact).manifest == open_artifact(new).manifest
    assert is_whole(artifact)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "b", "tiny"]


def test_a_lock_file_that_was_removed_while_waiting_for_it_is_not_valid(old_and_new, artifact, tmp_path):
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
    """A process that writes artifacts one after the other, a number of times and until a file exists."""
    return python(CROWD, json.dumps([str(path), [str(source) for source in sources], str(scratch), count, pause, stop and str(stop)]))


def test_writers_in_a_crowd(old_and_new, artifact, tmp_path):
    writers = [crowd(artifact, old_and_new, tmp_path / "parts", 8) for _ in range(3)]
    assert [json.loads(writer.communicate()[0])[0] for writer in writers] == [8, 8, 8]
    assert is_whole(artifact)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["parts", "tiny"]


def test_a_reader_while_it_is_replaced_fifty_times(tiny_artifacts, sample_images, artifact, tmp_path):
    images = [image.path for image in sample_images[:2]]
    names = ("onnx-fp32", "onnx-int8", "pytorch-fp32")
    expected = {name: [caption.token_ids for caption in runtimes.load(tiny_artifacts[name], threads=1).caption(images)] for name in names}
    writer = crowd(artifact, [tiny_artifacts[name] for name in names], tmp_path / "parts", 50, pause=0.02, stop=tmp_path / "stop")
    seen = []
    while writer.poll() is None:
        captioner = runtimes.load(artifact, threads=1)
        seen.append((captioner.manifest.recipe["name"], [caption.token_ids for caption in captioner.caption(images)]))
        if len(seen) == 25:
            (tmp_path / "stop").touch()
    written, refused = json.loads(writer.communicate()[0])
    assert written >= 50
    assert refused == 0
    assert len(seen) >= 25
    assert [name for name, token_ids in seen if token_ids != expected[name]] == []
    assert min(len(token_ids) for _, captions in seen for token_ids in captions) > 1  # captions, not errors
    assert runtimes.load(artifact, threads=1).manifest.gate["turn"] == written - 1
