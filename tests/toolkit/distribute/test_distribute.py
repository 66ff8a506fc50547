"""A run: one row per input, captions as the library makes them, equal images once, resumed and in parts with the same bytes."""

import json
import shutil

import pytest

import runtimes
from runtimes.errors import DatasetError, OutputExistsError, RequestError
from tests.toolkit.distribute.runs import bytes_in, rows_in, run
from toolkit.distribute.part import Part
from toolkit.distribute.tally import MaxErrors


@pytest.fixture(scope="module")
def artifact(tiny_artifacts):
    return tiny_artifacts["onnx-int8"]


@pytest.fixture(scope="module")
def images(drawn_images, tmp_path_factory):
    """22 files: the 3rd is a text file, the 4th equals it; the 13th and the 20th have the bytes of the 2nd, the 22nd those of the 21st."""
    folder = tmp_path_factory.mktemp("images")
    for number, source in enumerate([*range(16), 3, 4, 5, 1, 14, 14]):
        shutil.copy(drawn_images[source].path, folder / f"{number:02}.png")
    for number in (2, 3):
        (folder / f"{number:02}.png").write_text("no image")
    shutil.copy(drawn_images[1].path, folder / "12.png")
    return folder


@pytest.fixture(scope="module")
def whole(artifact, images, tmp_path_factory):
    """(summary, folder) of an unbroken run."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    return run(artifact, folder, images), folder


def test_one_row_per_input_with_the_captions_of_the_library(artifact, images, whole):
    summary, folder = whole
    rows, files = rows_in(folder), sorted(images.iterdir())
    assert [row["image"] for row in rows] == list(map(str, files))
    assert [row["index"] for row in rows] == list(range(22))
    with runtimes.load(artifact) as captioner:
        expected = captioner.caption([str(file) for file in files])
    for row, caption in zip(rows, expected, strict=True):
        assert (row["error"], row["code"]) == (caption.error, caption.code)
        if caption.error is None:
            assert (row["caption"], row["token_ids"]) == (caption.text, list(caption.token_ids))
            assert (row["score"], row["finish_reason"]) == (caption.score, caption.finish_reason)
            assert (row["width"], row["height"]) == (40, 32)
    assert summary["errors"] == {"IMAGE_UNREADABLE": 2}
    assert (summary["rows"], summary["unfinished_shards"], summary["new_rows"]) == (22, [], 22)


def test_equal_bytes_are_captioned_once_and_marked(whole):
    summary, folder = whole
    marked = {row["index"]: row["duplicate_of"] for row in rows_in(folder) if row["duplicate_of"] is not None}
    # 16 to 18 have the bytes of 3 to 5, where 3 was overwritten.
    assert marked == {3: 2, 12: 1, 17: 4, 18: 5, 19: 1, 20: 14, 21: 14}
    assert summary["duplicates"] == 7
    stats = [json.loads(file.read_bytes()) for file in sorted(folder.glob("shards/*.json"))]
    tokens = [len(row["token_ids"] or ()) for row in rows_in(folder) if row["duplicate_of"] is None]
    assert sum(each["tokens"] for each in stats) == summary["tokens"] == sum(tokens)


def test_a_listing_that_was_stopped_before_its_end_begins_again(artifact, images, whole, tmp_path):
    folder = tmp_path / "out"
    run(artifact, folder, images, list_only=True)
    (folder / "run.json").unlink()
    run(artifact, folder, images)
    assert bytes_in(folder) == bytes_in(whole[1])


def test_temporary_files_of_killed_processes_are_removed(artifact, images, whole, tmp_path):
    """A part removes those of its own shards; other processes may be writing the other files."""
    folder = shutil.copytree(whole[1], tmp_path / "out")
    odd, even = (folder / "shards" / f".00000{number}.{suffix}-ab_12xyz.tmp" for number, suffix in ((1, "parquet"), (2, "json")))
    listed, foreign = folder / ".run.json-ab_12xyz.tmp", folder / ".notes-ab_12xyz.tmp"

    def left_by(part):
        for file in (odd, even, listed, foreign):
            file.write_bytes(b"half")
        run(artifact, folder, images, part=part)
        return {file for file in folder.rglob(".*") if file.is_file()}

    assert left_by(Part(1, 2)) == {odd, listed, foreign}
    assert left_by(Part(2, 2)) == {even, listed, foreign}
    assert left_by(Part(1, 1)) == {foreign}


def test_a_finished_run_is_not_touched_and_missing_stats_are_made_again(artifact, images, whole):
    summary, folder = whole
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.rglob("*") if file.is_file()}
    again = run(artifact, folder, images)
    assert again["new_rows"] == 0
    assert {name: again[name] for name in ("rows", "errors", "duplicates", "tokens")} == {
        name: summary[name] for name in ("rows", "errors", "duplicates", "tokens")
    }
    assert {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.rglob("*") if file.is_file()} == before
    stats = folder / "shards" / "000001.json"
    stats.unlink()
    assert run(artifact, folder, images)["new_rows"] == 0
    then, now = json.loads(before[stats][0]), json.loads(stats.read_bytes())
    assert {**now, "seconds": then["seconds"], "machine": then["machine"]} == then


def test_parts_joined_and_shards_made_again_have_the_bytes_of_one_run(artifact, images, whole, tmp_path):
    joined = tmp_path / "joined"
    for number in (1, 2, 3):
        summary = run(artifact, tmp_path / f"part-{number}", images, part=Part(number, 3))
        assert summary["shards"] == len(list((tmp_path / f"part-{number}" / "shards").glob("*.parquet")))
        shutil.copytree(tmp_path / f"part-{number}", joined, dirs_exist_ok=True)
    assert bytes_in(joined) == bytes_in(whole[1])
    for number in (0, 3):
        (joined / "shards" / f"00000{number}.parquet").unlink()
    assert run(artifact, joined, images)["new_rows"] == 10
    assert bytes_in(joined) == bytes_in(whole[1])


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole[1], tmp_path / "out")


def test_other_settings_and_other_inputs_are_refused_by_name(artifact, images, copy, tmp_path):
    before = bytes_in(copy)
    for options, name in (({"num_beams": 2}, "num_beams None then, 2 now"), ({"shard_size": 7}, "shard_size 5 then, 7 now")):
        with pytest.raises(RequestError, match=name):
            run(artifact, copy, images, **options)
    with pytest.raises(RequestError, match="--extend"):
        run(artifact, copy, images / "00.png")
    assert bytes_in(copy) == before


def test_a_folder_of_another_kind_is_refused(artifact, images, tmp_path):
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(OutputExistsError):
        run(artifact, tmp_path, images)
    assert [file.name for file in tmp_path.iterdir()] == ["notes"]


def test_a_shard_of_another_run_is_refused(artifact, images, copy, tmp_path):
    other = tmp_path / "other"
    run(artifact, other, images, num_beams=2, part=Part(1, 5))
    for file in (other / "shards").iterdir():
        shutil.copy(file, copy / "shards")
    with pytest.raises(RequestError, match=r"000000\.parquet"):
        run(artifact, copy, images)


def test_extend_adds_new_inputs_only(artifact, images, copy, tmp_path, drawn_images):
    (tmp_path / "more").mkdir()
    for number in (1, 9):
        shutil.copy(drawn_images[number].path, tmp_path / "more" / f"{number}.png")
    before = rows_in(copy)
    assert run(artifact, copy, images, extend=True)["new_rows"] == 0
    summary = run(artifact, copy, tmp_path / "more", extend=True)
    assert (summary["new_rows"], summary["rows"]) == (2, 24)
    rows = rows_in(copy)
    assert rows[:22] == before
    assert [(row["index"], row["duplicate_of"], row["caption"]) for row in rows[22:]] == [
        (22, 1, before[1]["caption"]),
        (23, 9, before[9]["caption"]),
    ]
    assert run(artifact, copy, images)["new_rows"] == 0


def test_errors_are_tried_again_on_request(artifact, images, copy, drawn_images):
    before = rows_in(copy)
    good = (images / "02.png").read_bytes()
    try:
        (images / "02.png").write_bytes((images / "00.png").read_bytes())
        assert run(artifact, copy, images)["new_rows"] == 0
        summary = run(artifact, copy, images, retry_errors=frozenset({"IMAGE_UNREADABLE"}))
    finally:
        (images / "02.png").write_bytes(good)
    assert summary["errors"] == {"IMAGE_CHANGED": 1, "IMAGE_UNREADABLE": 1}
    rows = rows_in(copy)
    assert [row["index"] for row, then in zip(rows, before, strict=True) if row != then] == [2]
    run(artifact, copy, images, retry_errors=frozenset({"IMAGE_CHANGED", "IMAGE_UNREADABLE"}))
    assert rows_in(copy) == before


def test_a_run_stops_at_too_many_errors(artifact, images, tmp_path):
    summary = run(artifact, tmp_path / "out", images, max_errors=MaxErrors(number=1))
    assert "1 are allowed" in summary["stopped"]
    assert summary["unfinished_shards"] == [0, 1, 2, 3, 4]
    assert run(artifact, tmp_path / "out", images, max_errors=MaxErrors.parse("10%"))["unfinished_shards"] == []


def test_only_listing(artifact, images, tmp_path, whole):
    assert run(artifact, tmp_path / "out", images, list_only=True)["unfinished_shards"] == [0, 1, 2, 3, 4]
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"manifest-0000.parquet", "run.json"}
    assert (tmp_path / "out" / "run.json").read_bytes() == (whole[1] / "run.json").read_bytes()


def test_nothing_is_written_for_a_missing_input(artifact, tmp_path):
    with pytest.raises(DatasetError):
        run(artifact, tmp_path / "out", tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


def test_a_shard_that_was_cut_is_not_skipped(artifact, images, tmp_path):
    run(artifact, tmp_path / "out", images)
    shard = tmp_path / "out" / "shards" / "000001.parquet"
    shard.write_bytes(shard.read_bytes()[:300])
    with pytest.raises(DatasetError, match=r"000001\.parquet: is no shard"):
        run(artifact, tmp_path / "out", images)
    shard.unlink()
    assert run(artifact, tmp_path / "out", images)["unfinished_shards"] == []


def test_batches_are_refused_if_captions_depend_on_them(tiny_artifacts, images, tmp_path):
    """Which images share a batch depends on the shards that are finished."""
    with pytest.raises(RequestError, match="--batch-size 1"):
        run(tiny_artifacts["pytorch-int8"], tmp_path / "out", images, batch_size=2)


def test_a_run_that_cannot_begin_leaves_no_folders(artifact, tmp_path):
    with pytest.raises(DatasetError):
        run(artifact, tmp_path / "one" / "two" / "out", tmp_path / "none")
    assert list(tmp_path.iterdir()) == []
