"""HEIC and HEIF images through pillow-heif; the oracle is pillow-heif itself. Without it, the error names the extra."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from runtimes.errors import ImageReadError
from tests.images import RGB, exif, in_mode, photo, pixels
from tests.paths import ROOT

PHOTO = Image.fromarray(photo(120, 160))


def heic(image=PHOTO, **options):
    import pillow_heif  # in functions, so that the module is collected without it

    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, quality=95, **options)
    return file.getvalue()


def decoded(data):
    """Return what pillow-heif decodes, rotated, without Pillow."""
    import pillow_heif

    file = pillow_heif.open_heif(data, convert_hdr_to_8bit=True)
    return np.array(file)[:, :, :3]  # a copy: with pillow-heif 1.1, an array does not keep the pixels alive


def test_path_bytes_and_pillow_image_are_the_same_image(tmp_path):
    import pillow_heif

    pillow_heif.register_heif_opener()
    path = tmp_path / "photo.HEIC"
    data = heic()
    path.write_bytes(data)
    for source in (path, data, Image.open(path)):
        np.testing.assert_array_equal(pixels(source), decoded(data))
    assert np.abs(pixels(data).astype(int) - np.asarray(PHOTO)).mean() < 6


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_orientation(orientation):
    """pillow-heif applies the rotation of the container, and sets the orientation of EXIF to 1."""
    data = heic(exif=exif(orientation).tobytes())
    np.testing.assert_array_equal(pixels(data), decoded(data))


def test_alpha_is_dropped():
    data = heic(in_mode("RGBA").resize((64, 48)))
    np.testing.assert_array_equal(pixels(data), decoded(data))


def test_size_limit_and_damage():
    data = heic()
    assert pixels(data, max_pixels=160 * 120).shape == (120, 160, 3)
    with pytest.raises(ImageReadError, match="is too large: 160x120"):
        pixels(data, max_pixels=160 * 120 - 1)
    for end in range(12, len(data), len(data) // 20):
        with pytest.raises(ImageReadError):
            pixels(data[:end])


def test_without_pillow_heif_the_error_names_the_extra(tmp_path):
    path = tmp_path / "a.heic"
    path.write_bytes(heic(RGB.resize((64, 64))))
    program = """if True:
        import sys
        sys.modules["pillow_heif"] = None
        from runtimes.errors import ImageReadError
        from runtimes.images.reading import read_image
        try:
            read_image(sys.argv[1])
        except ImageReadError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", program, path], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"{path}: is a HEIC or HEIF image; to read it: pip install 'blip-toolkit[heif]'\n"
