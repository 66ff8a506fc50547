"""The public API of `runtimes`: names, kinds of arguments, results, closing, and exceptions."""

import hashlib
import inspect
import json
import signal
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image, ImageOps

import runtimes
from runtimes.errors import EngineError, RequestError
from tests.paths import ROOT


@pytest.fixture(scope="module")
def artifact(tiny_artifacts):
    return tiny_artifacts["onnx-fp32"]


@pytest.fixture
def captioner(artifact):
    return runtimes.load(artifact, threads=1)


@pytest.fixture(scope="module")
def paths(drawn_images):
    return [image.path for image in drawn_images[:5]]


def test_public_names_are_imported_on_first_use():
    script = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import runtimes
heavy = [name for name in ("numpy", "PIL", "tokenizers", "onnxruntime", "torch") if name in sys.modules]
print(sorted(runtimes.__all__), heavy, [getattr(runtimes, name).__name__ for name in sorted(runtimes.__all__)])
"""
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    names = ["Answer", "Answerer", "Caption", "Captioner", "CaptionerPool", "Embedding", "Match", "Matcher", "ToolkitError", "load"]
    assert output == f"{names} [] {names}\n"
    with pytest.raises(AttributeError, match="nothing"):
        runtimes.nothing  # noqa: B018


@pytest.mark.parametrize("name", ["load", "Captioner.caption", "Captioner.stream", "Captioner.score", "Captioner.token_log_probabilities"])
def test_all_arguments_but_the_first_are_keyword_only(name):
    owner, _, method = name.partition(".")
    function = getattr(getattr(runtimes, owner), method) if method else getattr(runtimes, owner)
    first, *others = [parameter for parameter in inspect.signature(function).parameters.values() if parameter.name != "self"]
    assert first.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    by_name = {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD}
    assert {parameter.kind for parameter in others} <= by_name


@pytest.mark.parametrize(
    "image_of",
    [str, Path, Path.read_bytes, Image.open, lambda path: np.asarray(Image.open(path))],
    ids=["str", "path", "bytes", "PIL", "array"],
)
def test_one_image_gives_a_list_of_one(captioner, paths, image_of):
    image = image_of(paths[1])
    expected = captioner.caption(paths[:2])[1:]
    assert captioner.caption(image) == captioner.caption([image]) == list(captioner.stream(image)) == expected
    (alone,) = captioner.score(image, captions="a red dog")
    (several,) = captioner.score(image, captions=["a red dog", "two"])
    assert captioner.score([image], captions=["a red dog"]) == [alone]
    assert several.shape == (2,)


@pytest.mark.parametrize("kind", [list, tuple, iter, lambda paths: (path for path in paths)])
def test_several_images_from_any_iterable(captioner, paths, kind):
    assert captioner.caption(kind(paths), batch_size=2, workers=1) == captioner.caption(paths)
    scores = captioner.score(kind(paths), captions=["two"] * 5)
    assert [score.shape for score in scores] == [(1,)] * 5


@pytest.mark.parametrize("wrong", [None, 3, 1.5, object()])
def test_an_argument_that_is_neither_an_image_nor_iterable(captioner, wrong):
    for call in (captioner.caption, captioner.stream, lambda images: captioner.score(images, captions=[])):
        with pytest.raises(RequestError, match=type(wrong).__name__):
            call(wrong)


def test_exceptions_of_the_iterator_pass_unchanged(captioner, paths):
    def failing():
        yield from paths[:2]
        raise LookupError("the database is gone")

    captions = captioner.stream(failing())
    assert [next(captions) for _ in range(2)] == captioner.caption(paths[:2])
    with pytest.raises(LookupError, match="the database is gone"):
        next(captions)


def test_files_and_pil_images_are_rotated_by_exif_once(captioner, drawn_images, tmp_path):
    """As documented in `caption`; the oracle is Pillow's `exif_transpose`."""
    image, exif = Image.open(drawn_images[3].path).convert("RGB"), Image.Exif()
    image.putpixel((0, 0), (255, 0, 0))
    exif[0x0112] = 6
    image.save(path := tmp_path / "rotated.png", exif=exif)
    forms = [path, path.read_bytes(), Image.open(path)]
    scores = captioner.score(forms, captions=["a red dog"] * 3)
    (by_hand,) = captioner.score(ImageOps.exif_transpose(Image.open(path)), captions="a red dog")
    assert all(score == by_hand for score in scores)
    assert captioner.score(image, captions="a red dog") != by_hand


def test_close_frees_the_model_and_later_calls_fail(artifact, paths):
    with runtimes.load(artifact, threads=1) as captioner:
        model = weakref.ref(vars(captioner.session)["_session"])
        assert captioner.caption(paths[0])[0].error is None
        unfinished = captioner.stream(paths)
        next(unfinished)
    captioner.close()
    with pytest.raises(RequestError, match="closed"):
        list(unfinished)
    for use in (
        lambda: captioner.caption(paths),
        lambda: captioner.stream(paths),
        lambda: captioner.score(paths[0], captions="two"),
        captioner.info,
    ):
        with pytest.raises(RequestError, match="closed"):
            use()
    assert model() is None


def test_info(tiny_artifacts):
    path = tiny_artifacts["onnx-int8"]
    content = (path / "manifest.json").read_bytes()
    written = json.loads(content)
    info = runtimes.load(path, threads=1, max_pixels=999).info()
    assert (info.artifact, info.recipe, info.task, info.family) == (written["name"], "onnx-int8", "caption", "blip")
    assert info.digest == hashlib.sha256(content).hexdigest()
    assert (info.max_pixels, info.image.height_px, info.image.width_px) == (999, 32, 32)
    assert info.defaults.max_length == written["defaults"]["max_length"]
    assert (info.engine.device, info.engine.providers, info.engine.threads) == ("cpu", ("CPUExecutionProvider",), 1)
    assert info.engine.versions["onnxruntime"] == onnxruntime.__version__


class Failing:
    """A session that calls a function, which may raise, before each step."""

    def __init__(self, session, happens):
        self.session, self.happens = session, happens

    def __getattr__(self, name):
        return getattr(self.session, name)

    def step(self, *arguments):
        self.happens()
        return self.session.step(*arguments)


def fail(error):
    raise error


@pytest.mark.parametrize("error", [RuntimeError("CUDA error: illegal access"), IndexError("a bug"), SystemError("null argument")])
def test_a_failing_engine_is_an_engine_error(captioner, paths, error):
    failing = runtimes.Captioner(Failing(captioner.session, lambda: fail(error)), captioner.tokenizer, captioner.manifest)
    for call in (
        lambda: failing.caption(paths),
        lambda: failing.caption(paths, num_beams=2),
        lambda: failing.score(paths[0], captions="two"),
    ):
        with pytest.raises(EngineError) as caught:
            call()
        assert caught.value.code == "ENGINE_FAILED"
        assert str(error) in str(caught.value)
        assert "copy" not in str(caught.value)
        assert caught.value.__cause__ is error


class CancelledError(BaseException):
    """A `BaseException` like the one with which asynchronous frameworks cancel a task."""


def test_other_exceptions_during_a_run_pass_unchanged(captioner, paths):
    def alarm(number, frame):
        raise TimeoutError("soft limit")

    before = signal.signal(signal.SIGUSR1, alarm)
    try:
        for happens, expected in (
            (lambda: fail(CancelledError()), CancelledError),
            (lambda: signal.raise_signal(signal.SIGUSR1), TimeoutError),
        ):
            failing = runtimes.Captioner(Failing(captioner.session, happens), captioner.tokenizer, captioner.manifest)
            with pytest.raises(expected) as caught:
                failing.caption(paths)
            assert type(caught.value) is expected
    finally:
        signal.signal(signal.SIGUSR1, before)
    with pytest.raises(KeyError) as own:
        captioner.caption(paths, timer=lambda phase, seconds: {}[phase])
    assert type(own.value) is KeyError
