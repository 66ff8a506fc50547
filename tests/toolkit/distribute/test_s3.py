"""Inputs and outputs on a local S3 server give the rows of local files; what is missing or unreachable is named."""

import shutil

import pyarrow.parquet as pq
import pytest

from runtimes.errors import DatasetError, EnvironmentFailedError, ImageReadError, OutputError
from tests.toolkit.distribute.runs import rows_in, run
from tests.toolkit.distribute.s3_server import BUCKET, KEYS, files, s3_server
from tests.toolkit.distribute.test_tar import write_tar
from toolkit.distribute.entry import Entry
from toolkit.distribute.reading import read_entries
from toolkit.distribute.stores.stores import Stores

pytestmark = pytest.mark.full  # a server process


@pytest.fixture(scope="module")
def endpoint():
    with s3_server() as address, pytest.MonkeyPatch.context() as patch:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        yield address


@pytest.fixture(scope="module")
def store(endpoint):
    return Stores(endpoint).of("s3://x")


@pytest.fixture(scope="module")
def uploaded(endpoint, drawn_images, tmp_path_factory):
    """Folder with images, a tar file and a Parquet file, here and in the bucket."""
    folder = tmp_path_factory.mktemp("local")
    (folder / "images" / "deep").mkdir(parents=True)
    for number in range(7):
        shutil.copy(drawn_images[number].path, folder / "images" / ("deep" if number % 2 else ".") / f"{number} \u00e9.png")
    write_tar(folder / "a.tar", [(f"{number}.png", drawn_images[number].path.read_bytes()) for number in range(5, 9)])
    import pyarrow as pa

    pq.write_table(pa.table({"image": [drawn_images[number].path.read_bytes() for number in range(3)]}), folder / "a.parquet")
    there = files(endpoint)
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            with there.open_output_stream(f"{BUCKET}/{file.relative_to(folder)}") as stream:
                stream.write(file.read_bytes())
    return folder


NAMES = ("images", "a.tar", "a.parquet")


def test_source_and_target(tiny_artifacts, endpoint, uploaded, tmp_path):
    artifact, root = tiny_artifacts["onnx-int8"], f"s3://{BUCKET}"
    run(artifact, tmp_path / "local", *(uploaded / name for name in NAMES))
    sources = [f"{root}/{name}" for name in NAMES]
    summary = run(artifact, f"{root}/out", *sources, endpoint=endpoint)
    there = files(endpoint)
    rows = [
        row
        for number in range(summary["shards"])
        for row in pq.read_table(f"{BUCKET}/out/shards/{number:06}.parquet", filesystem=there).to_pylist()
    ]
    expected = [{**row, "image": row["image"].replace(str(uploaded), root)} for row in rows_in(tmp_path / "local")]
    assert rows == expected
    assert len(rows) == 14
    assert run(artifact, f"{root}/out", *sources, endpoint=endpoint)["new_rows"] == 0


def test_patterns(endpoint, uploaded, store):
    root = f"s3://{BUCKET}"
    assert store.matches(f"{root}/*.tar") == [f"{root}/a.tar"]
    assert store.matches(f"{root}/images/**/[12]*.png") == [f"{root}/images/2 \u00e9.png", f"{root}/images/deep/1 \u00e9.png"]
    assert len(store.matches(f"{root}/images/**")) == 7
    assert store.matches(f"{root}/none/*") == []


def test_a_missing_bucket_and_a_missing_object(tiny_artifacts, endpoint, uploaded, tmp_path):
    artifact = tiny_artifacts["onnx-int8"]
    with pytest.raises(OutputError, match="no bucket none"):
        run(artifact, "s3://none/out", uploaded / "images", endpoint=endpoint)
    for name in ("s3://none/images", f"s3://{BUCKET}/none.png", f"s3://{BUCKET}/none/*.png"):
        with pytest.raises(DatasetError, match="none"):
            run(artifact, tmp_path / "out", name, endpoint=endpoint)
    assert list(tmp_path.iterdir()) == []


def test_an_object_that_is_gone_and_a_server_that_is_gone(endpoint, uploaded):
    entry = Entry(image="gone", path=f"s3://{BUCKET}/gone.png".encode())
    (gone,) = read_entries([entry], Stores(endpoint), "image", readers=1)
    assert isinstance(gone, ImageReadError)
    (unreachable,) = read_entries([entry], Stores("http://127.0.0.1:9"), "image", readers=1)
    assert isinstance(unreachable, EnvironmentFailedError)


def test_an_address_that_does_not_answer(tiny_artifacts, endpoint, tmp_path):
    with pytest.raises(OutputError):
        run(tiny_artifacts["onnx-int8"], f"s3://{BUCKET}/out", tmp_path, endpoint="http://127.0.0.1:9")
    with pytest.raises(DatasetError):
        run(tiny_artifacts["onnx-int8"], tmp_path / "out", f"s3://{BUCKET}/images", endpoint="http://127.0.0.1:9")
