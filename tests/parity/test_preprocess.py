"""`preprocess` against transformers' slow (Pillow-based) BlipImageProcessor: the same bits, not merely close ones."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from transformers.models.blip.image_processing_blip import BlipImageProcessor

from runtimes.artifact.manifest import ImageSpec
from runtimes.images.reading import preprocess, read_image
from tests.paths import ROOT

CHECKPOINT = ROOT / "models" / "blip-mini-coco"
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SIZES = [(224, 224), (480, 640), (640, 427), (37, 991), (1200, 5), (2, 2), (1, 1), (3, 17), (1, 300), (383, 385)]
MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"]


def processor_and_spec(name):
    """A slow image processor and the spec with the same settings."""
    if name == "mini":
        config = json.loads((CHECKPOINT / "preprocessor_config.json").read_text())
        processor = BlipImageProcessor.from_pretrained(CHECKPOINT)
        mean, std, rescale = tuple(config["image_mean"]), tuple(config["image_std"]), config["rescale_factor"]
        height, width, resample = config["size"]["height"], config["size"]["width"], Image.Resampling(config["resample"]).name.lower()
    else:  # what BLIP-base and BLIP-large ship, which is also what transformers takes by default
        processor = BlipImageProcessor(size={"height": 384, "width": 384})
        height, width, resample, mean, std, rescale = 384, 384, "bicubic", CLIP_MEAN, CLIP_STD, 1 / 255
    return processor, ImageSpec(height_px=height, width_px=width, resample=resample, mean=mean, std=std, rescale=rescale)


def assert_same_bits(source, processor, spec, image=None):
    # Without input_data_format, transformers takes an image 1 or 3 pixels high for one with its channels first.
    expected = processor(source, input_data_format="channels_last", return_tensors="np")["pixel_values"][0]
    got = preprocess(read_image(source) if image is None else image, spec)
    assert got.dtype == expected.dtype == np.float32
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got.view(np.uint32), np.ascontiguousarray(expected).view(np.uint32))


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def gradient(height, width):
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 255 // height, columns * 255 // width, (rows + columns) % 256], axis=2).astype(np.uint8)


def photo(height, width):
    coarse = Image.fromarray(noise(7, 9, seed=height + width)).resize((width, height), Image.Resampling.BICUBIC)
    return (np.asarray(coarse).astype(int) + noise(height, width) // 16 - 8).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [noise, gradient, photo])
@pytest.mark.parametrize("name", ["mini", "base"])
def test_sizes(name, kind, size):
    assert_same_bits(Image.fromarray(kind(*size)), *processor_and_spec(name))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["mini", "base"])
def test_modes(name, mode):
    image = Image.fromarray(photo(120, 90))
    image = image.convert("L").convert("LA") if mode == "LA" else image.convert(mode)
    assert_same_bits(image, *processor_and_spec(name))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF"])
def test_files(form):
    file = io.BytesIO()
    Image.fromarray(photo(300, 400)).save(file, form)
    assert_same_bits(Image.open(file), *processor_and_spec("base"), image=read_image(file.getvalue()))


@pytest.mark.parametrize("resample", ["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"])
def test_resampling_and_other_shapes(resample):
    spec = ImageSpec(height_px=48, width_px=96, resample=resample, mean=(0.1, 0.2, 0.3), std=(0.7, 0.11, 0.13), rescale=1 / 127.5)
    processor = BlipImageProcessor(
        size={"height": 48, "width": 96},
        resample=Image.Resampling[resample.upper()],
        rescale_factor=1 / 127.5,
        image_mean=[0.1, 0.2, 0.3],
        image_std=[0.7, 0.11, 0.13],
    )
    assert_same_bits(Image.fromarray(photo(70, 111)), processor, spec)


@pytest.mark.parametrize("name", ["mini", "base"])
def test_every_value_of_every_channel(name):
    """As large as the checkpoint's square, an image is not resized: all 3 * 256 answers are compared."""
    processor, spec = processor_and_spec(name)
    values = np.resize(np.arange(256, dtype=np.uint8), (spec.height_px, spec.width_px))
    assert_same_bits(Image.fromarray(np.stack([values, values[::-1], values[:, ::-1]], axis=2)), processor, spec)


@pytest.mark.parametrize("name", ["mini", "base"])
def test_the_sample_images(name):
    paths = sorted((ROOT / "toolkit" / "sample").glob("*.jpg"))
    for path in paths:
        assert_same_bits(Image.open(path), *processor_and_spec(name), image=read_image(path))
