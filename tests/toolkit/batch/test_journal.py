"""The journal of a run: cut off at any byte, it has the complete rows before; other files are refused."""

import json
import os
import signal

import pytest

from runtimes.errors import OutputError, RequestError
from tests.faults.stops import Stops
from toolkit.batch.journal import Journal, partial_of

SETTINGS = {"artifact": "3f9a", "num_beams": 1}


@pytest.fixture
def images(tmp_path):
    names = [str(tmp_path / name) for name in ("a.png", "b é.png", os.fsdecode(b"c\xff.png"), "d\n.png", "none.png")]
    for size, name in enumerate(names[:-1]):
        with open(name, "wb") as file:  # noqa: PTH123
            file.write(bytes(size))
    return names


@pytest.fixture
def output(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "captions.jsonl"


def row(image, text="x"):
    return {"image": image, "error": "no such file", "code": "IMAGE_UNREADABLE"} if "none" in image else {"image": image, "caption": text}


def started(output, images):
    journal = Journal(output, images)
    journal.begin(SETTINGS)
    return journal


def test_rows_come_back_in_the_order_of_the_images(output, images):
    journal = started(output, images)
    journal.add([row(images[2]), row(images[0])])
    journal.add([row(images[4])])
    journal.close()
    again = started(output, images)
    assert (again.done, again.failed, [again.has(image) for image in images]) == (3, 1, [True, False, True, False, True])
    again.add([row(images[1]), row(images[3], "last")])
    assert list(again.rows()) == [*map(row, images[:3]), row(images[3], "last"), row(images[4])]
    again.close(remove=True)
    assert list(output.parent.iterdir()) == []


def test_error_rows_are_dropped_by_code(output, images):
    """A row of a failure of the machine has no place in a resumed run; other error rows on request."""
    journal = started(output, images)
    rows = [row(images[0])]
    rows += [
        {"image": image, "error": "x", "code": code}
        for image, code in zip(images[1:], ("ENVIRONMENT_FAILED", "IMAGE_CRASH", "IMAGE_UNREADABLE", "IMAGE_UNREADABLE"), strict=True)
    ]
    journal.add(rows)
    journal.close()
    for codes, rest in ((set(), {1}), ({"IMAGE_CRASH"}, {1, 2}), ({"IMAGE_UNREADABLE", "IMAGE_CRASH"}, {1, 2, 3, 4})):
        again = Journal(output, images, None, codes)
        assert {index for index, image in enumerate(images) if not again.has(image)} == rest
        assert again.failed == 4 - len(rest)
        again.close()
    again = Journal(output, images)
    again.begin(SETTINGS)
    again.add([row(images[1], "retried")])
    again.close()
    assert Journal(output, images).done == 5


@pytest.mark.slow
def test_cut_off_at_any_byte(output, images):
    journal = started(output, images)
    for image in images:
        journal.add([row(image)])
    journal.close()
    whole = partial_of(output).read_bytes()
    for size in range(len(whole)):
        partial_of(output).write_bytes(whole[:size] + (b"", b"\0" * 9, b"x\n")[size % 3])
        again = started(output, images)
        assert again.done == max(0, whole[:size].count(b"\n") - 1)
        again.add([row(image) for image in images if not again.has(image)])
        again.close()
        assert partial_of(output).read_bytes() == whole, size


@pytest.mark.slow
def test_killed_at_any_call(output, images):
    """After a kill at any system call, complete rows are there, and a resumed run adds the others."""
    for stop_at in range(1, 100):
        partial_of(output).unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            try:
                stops = Stops(output.parent, stop_at, "kill")
                stops.install()
                journal = started(output, images)
                for image in images:
                    journal.add([row(image)])
                journal.close(remove=True)
            finally:
                os._exit(5)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == 5:
            break
        assert status == -signal.SIGKILL
        again = started(output, images)
        again.add([row(image) for image in images if not again.has(image)])
        assert list(again.rows()) == [row(image) for image in images]
        again.close()
    assert stop_at > 5


def test_a_file_that_is_no_journal_is_refused_and_unchanged(output, images):
    for content in (b'{"image": "a.png", "caption": "x"}\n', b'{"journal": 2}\n'):
        partial_of(output).write_bytes(content)
        with pytest.raises(RequestError, match=r"\.partial"):
            Journal(output, images)
        assert partial_of(output).read_bytes() == content
    partial_of(output).unlink()
    partial_of(output).mkdir()
    with pytest.raises(OutputError, match=r"captions\.jsonl\.partial .*Is a directory"):
        Journal(output, images)


def test_the_error_names_the_settings_that_differ(output, images):
    started(output, images).close()
    with pytest.raises(RequestError, match=r"artifact .*3f9a.*77.*seed .*None.*5"):
        Journal(output, images).begin({"artifact": "77", "num_beams": 1, "seed": 5}, {"seed": None})


def test_a_journal_without_newer_options_continues_with_their_defaults(output, images):
    started(output, images).close()
    Journal(output, images).begin({**SETTINGS, "seed": None}, {"seed": None})
    with pytest.raises(RequestError, match=r"another version.*prompt.*--overwrite"):
        Journal(output, images).begin({**SETTINGS, "prompt": None})


def test_an_image_that_changed_has_no_row(output, images):
    journal = started(output, images)
    journal.add([row(image) for image in images])
    journal.close()
    os.utime(images[0], ns=(1, 1))
    with open(images[4], "wb"):  # noqa: PTH123
        pass
    again = started(output, images)
    assert [again.has(image) for image in images] == [False, True, True, True, False]
    assert all("stamp" in json.loads(line) for line in partial_of(output).read_bytes().splitlines()[1:])
