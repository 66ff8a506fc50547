"""Damaged images and other files: the result is a whole image or an `ImageReadError` that names it."""

import contextlib
import errno
import io
import os
import random
import resource
import warnings

import pytest
from PIL import Image

from runtimes.errors import EnvironmentFailedError, ImageReadError, ToolkitError
from runtimes.images.reading import read_image
from tests.images import AVIF, FILES, RGB, as_pillow, encode, outcome, photo


@pytest.mark.parametrize("kind", FILES)
def test_a_truncated_file_is_a_whole_image_or_an_error(kind):
    data, errors = FILES[kind], 0
    whole = as_pillow(data)
    for end in [*range(min(64, len(data))), *range(64, len(data), 11), *range(max(64, len(data) - 32), len(data))]:
        got = outcome(data[:end])
        errors += got is None
        assert got is None or (got.shape == whole.shape and (got == whole).all()), end
    assert errors > 30 or len(data) < 80


def test_a_cut_off_jpeg_is_never_half_an_image(tmp_path):
    data = encode(Image.fromarray(photo(200, 300)), "JPEG", quality=90)
    path = tmp_path / "half.jpg"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageReadError, match=r"half\.jpg: .*truncated"):
        read_image(path)


@pytest.mark.parametrize(
    "kind", ["jpeg", "jpeg exif", "jpeg pair", "png", "png P", "gif", "bmp", "webp", "tiff", "tiff lzw", "ppm plain"] + ["avif"] * AVIF
)
def test_a_damaged_file_is_an_image_or_an_error(kind):
    chance = random.Random(kind)
    for _ in range(150):
        damaged = bytearray(FILES[kind])
        for _ in range(chance.choice([1, 1, 2, 4, 16])):
            span = len(damaged) if chance.random() < 0.5 else min(200, len(damaged))
            damaged[chance.randrange(span)] = chance.choice([0, 255, chance.randrange(256)])
        outcome(bytes(damaged))


def test_an_image_opened_by_the_caller_may_be_damaged():
    opened = Image.open(io.BytesIO(FILES["jpeg"][:-200]))
    with pytest.raises(ImageReadError, match=r"<JpegImageFile>: .*truncated"):
        read_image(opened)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b"\n", "is not an image that can be read (JPEG, PNG, "),
        (b"A text file is no image.\n" * 50, "is not an image that can be read (JPEG, PNG, "),
        (b"\0" * 4096, "is not an image that can be read"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is not an image that can be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not an image that can be read"),
        (encode(RGB, "ICO"), "is not an image that can be read"),
        (encode(RGB, "TGA"), "is not an image that can be read"),
        (encode(RGB, "PCX"), "is not an image that can be read"),
        (FILES["jpeg"][:20], "its start is damaged"),
    ],
    ids=["empty", "line", "text", "zeros", "svg", "eps", "ico", "tga", "pcx", "start only"],
)
def test_files_that_are_not_images(content, problem, tmp_path):
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    for source, name in ((path, str(path)), (content, "<bytes>")):
        with pytest.raises(ImageReadError) as caught:
            read_image(source)
        assert str(caught.value).startswith(f"{name}: ")
        assert problem in str(caught.value)


def test_paths_that_are_not_files(tmp_path):
    with pytest.raises(ImageReadError, match=r"absent\.jpg: no such file"):
        read_image(tmp_path / "absent.jpg")
    with pytest.raises(ImageReadError, match="Is a directory"):
        read_image(tmp_path)
    with pytest.raises(ImageReadError, match=r"^'': "):
        read_image("")
    with pytest.raises(ImageReadError, match="null"):
        read_image("a\0b.jpg")
    with pytest.raises(ImageReadError, match="no such file"):
        read_image("https://example.org/a.jpg")


def test_errors_are_one_line_that_names_the_image(tmp_path):
    path = tmp_path / "two\nlines.jpg"
    path.write_bytes(b"x")
    with pytest.raises(ImageReadError) as caught:
        read_image(path)
    assert "two\\nlines.jpg" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(ImageReadError, match=r"^\w+ 3: .*empty") as caught:
        read_image(b"", name="image 3")
    assert isinstance(caught.value, ToolkitError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("raised", "problem"),
    [
        (RuntimeError("two\n  lines"), "two lines"),
        (RecursionError("maximum recursion depth exceeded"), "maximum recursion depth exceeded"),
        (Image.DecompressionBombError("x"), None),
    ],
)
def test_every_exception_of_pillow_is_converted(raised, problem):
    class Broken(Image.Image):
        size = (1, 1)

        def load(self):
            raise raised

    with pytest.raises(ImageReadError) as caught:
        read_image(Broken())
    message = (
        f"cannot be read: {problem}; copy or save it again" if problem else "is too large: more pixels than Pillow opens; scale it down"
    )
    assert str(caught.value) == f"<Broken>: {message}"
    assert caught.value.__cause__ is raised


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EIO, errno.ESTALE, errno.ENOMEM, errno.ETIMEDOUT, None])
def test_a_failure_of_the_machine_is_not_blamed_on_the_image(number):
    raised = MemoryError() if number is None else OSError(number, os.strerror(number))

    class Unlucky(Image.Image):
        size = (1, 1)

        def load(self):
            raise raised

    with pytest.raises(EnvironmentFailedError) as caught:
        read_image(Unlucky())
    assert caught.value.code == "ENVIRONMENT_FAILED"
    assert ("not enough memory" if number is None else os.strerror(number)) in str(caught.value)
    assert caught.value.__cause__ is raised


def test_no_free_descriptor(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(FILES["png"])
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(limits[0], 512), limits[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                opened.append(os.open(os.devnull, os.O_RDONLY))
        with pytest.raises(EnvironmentFailedError, match=r"a\.png: .*Too many open files"):
            read_image(path)
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert read_image(path).size == (31, 23)


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit])
def test_requests_to_stop_pass_unchanged(raised):
    class Stopping(Image.Image):
        size = (1, 1)

        def load(self):
            raise raised

    before = list(warnings.filters)
    with pytest.raises(raised):
        read_image(Stopping())
    assert warnings.filters == before
