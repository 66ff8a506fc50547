"""What tests of `toolkit caption` share: an artifact, its captioner, and a folder of images, some unreadable."""

import shutil

import pytest

import runtimes


@pytest.fixture(scope="module")
def artifact(tiny_artifacts):
    return str(tiny_artifacts["onnx-fp32"])


@pytest.fixture(scope="module")
def captioner(artifact):
    return runtimes.load(artifact)


@pytest.fixture
def images(drawn_images, tmp_path):
    """A folder with 1.png, 2.PNG, deep/3.png, notes.txt, and bad.jpg, a truncated image."""
    folder = tmp_path / "images"
    (folder / "deep").mkdir(parents=True)
    for image, name in zip(drawn_images, ("1.png", "2.PNG", "deep/3.png"), strict=False):
        shutil.copy(image.path, folder / name)
    (folder / "notes.txt").write_text("no image")
    whole = drawn_images[0].path.read_bytes()
    (folder / "bad.jpg").write_bytes(whole[: len(whole) // 2])
    return folder
