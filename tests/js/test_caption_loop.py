"""The reference loop in JavaScript: from resized images alone it finds the ids that Python finds, with every ONNX recipe for CPUs.

With a model for questions, it is given the ids of a question.

It needs Node and what `make test-full` installs beside it; a machine without them fails here.
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

import runtimes
from exporters.recipes import RECIPES
from runtimes.artifact.folder import open_artifact
from runtimes.images.reading import read_image
from runtimes.storage.archive import unpack
from toolkit.packaging.package import package

pytestmark = pytest.mark.full

LOOP = Path(__file__).parent / "caption.mjs"
RECIPES_OF_ORT = [recipe.name for recipe in RECIPES if recipe.runtime == "ort" and recipe.device == "cpu"]
MAX_LINES = 150


def loop(*arguments):
    node = shutil.which("node")
    assert node, "the reference loop needs Node 18 or newer"
    assert (LOOP.parent / "node_modules").is_dir(), "the reference loop needs its packages: make tests/js/node_modules/.package-lock.json"
    return subprocess.run([node, str(LOOP), *map(str, arguments)], capture_output=True, text=True, check=False)


def resized(artifact, images, folder):
    """Images as RGB PNG files of the size that an artifact takes."""
    spec = open_artifact(artifact).manifest.image
    files = [folder / f"{image.path.stem}.png" for image in images]
    for image, file in zip(images, files, strict=True):
        read_image(image.path).resize((spec.width_px, spec.height_px), Image.Resampling[spec.resample.upper()]).save(file)
    return files


def compare(artifact, images, folder):
    """Both captions of each image: ids equal, scores to seven digits; Python reads the image as it came."""
    files = resized(artifact, images, folder)
    ended = loop(artifact, *files)
    assert (ended.returncode, ended.stderr) == (0, "")
    rows = [json.loads(line) for line in ended.stdout.splitlines()]
    expected = runtimes.load(artifact, threads=1).caption([str(image.path) for image in images])
    assert [row["image"] for row in rows] == [str(file) for file in files]
    assert [tuple(row["token_ids"]) for row in rows] == [caption.token_ids for caption in expected]
    assert [row["score"] for row in rows] == pytest.approx([caption.score for caption in expected], abs=1e-5)
    return expected


@pytest.mark.parametrize("recipe", RECIPES_OF_ORT)
def test_a_random_model_of_odd_sizes(tiny_artifacts, drawn_images, tmp_path, recipe):
    captions = compare(tiny_artifacts[recipe], drawn_images, tmp_path)
    lengths = {len(caption.token_ids) for caption in captions}
    assert max(lengths) == 20, "some end at the limit"
    assert min(lengths) < 20, "and some by their end token"


@pytest.mark.parametrize("recipe", ["onnx-fp32", "onnx-int8", "onnx-int8-single", "onnx-int4"])
def test_the_shipped_model(mini_artifacts, sample_images, tmp_path, recipe):
    compare(mini_artifacts[recipe], sample_images[:6], tmp_path)


@pytest.mark.parametrize("recipe", [name for name in RECIPES_OF_ORT if name != "onnx-int8-single"])
def test_a_question_is_answered(tiny_vqa_artifacts, asked_images, tmp_path, recipe):
    artifact, paths = tiny_vqa_artifacts[recipe], [image.path for image in asked_images]
    files = resized(artifact, asked_images, tmp_path)
    found = set()
    with runtimes.load(artifact, task="vqa", threads=1) as answerer:
        for question in (asked_images[0].question, asked_images[5].question):
            ids = answerer.tokenizer.encoder_ids(question)
            ended = loop(artifact, *files, "--question", ",".join(map(str, ids)))
            assert (ended.returncode, ended.stderr) == (0, "")
            rows = [json.loads(line) for line in ended.stdout.splitlines()]
            answers = answerer.answer(paths, question)
            assert [tuple(row["token_ids"]) for row in rows] == [answer.token_ids for answer in answers]
            assert [row["score"] for row in rows] == pytest.approx([answer.score for answer in answers], abs=1e-5)
            found |= {answer.token_ids for answer in answers}
    assert len(found) > 1


def test_golden_answers_are_replayed(tiny_vqa_artifacts, tmp_path):
    package(tiny_vqa_artifacts["onnx-int8"], tmp_path / "package.tar.gz")
    unpack(tmp_path / "package.tar.gz", tmp_path / "unpacked")
    ended = loop(tmp_path / "unpacked")
    assert (ended.returncode, ended.stderr) == (0, "")
    images = json.loads((tmp_path / "unpacked" / "golden.json").read_text())["images"]
    assert ended.stdout.splitlines() == [f"{image['resized']}: same ids" for image in images]


@pytest.fixture(scope="module", params=["onnx-int8", "onnx-int8-single"])
def unpacked(request, tiny_artifacts, tmp_path_factory):
    """A package as it lies on a device."""
    folder = tmp_path_factory.mktemp("package")
    package(tiny_artifacts[request.param], folder / "package.tar.gz")
    unpack(folder / "package.tar.gz", folder / "unpacked")
    return folder / "unpacked"


def test_golden_captions_are_replayed(unpacked):
    ended = loop(unpacked)
    assert (ended.returncode, ended.stderr) == (0, "")
    images = json.loads((unpacked / "golden.json").read_text())["images"]
    assert ended.stdout.splitlines() == [f"{image['resized']}: same ids" for image in images]


@pytest.mark.parametrize("tie_nat", [0.0, 1e9])
def test_another_golden_caption_is_a_difference_unless_it_was_a_tie(unpacked, tmp_path, tie_nat):
    folder = shutil.copytree(unpacked, tmp_path / "other")
    golden = json.loads((folder / "golden.json").read_text())
    (greedy,) = [caption for caption in golden["images"][0]["captions"] if caption["num_beams"] == 1]
    ids = list(greedy["token_ids"])
    greedy["token_ids"][2] += 1
    golden["tie_nat"] = tie_nat
    (folder / "golden.json").write_text(json.dumps(golden))
    ended = loop(folder)
    tie = tie_nat > 0 and greedy["margins_nat"] is not None  # a single graph gives no margins, so nothing is a tie
    verdict = "a tie at token 2" if tie else f"{','.join(map(str, ids))} differ from {','.join(map(str, greedy['token_ids']))}"
    assert (ended.returncode, ended.stderr) == (0 if tie else 1, "")
    assert ended.stdout.splitlines()[0] == f"{golden['images'][0]['resized']}: {verdict}"


def test_what_it_cannot_do_is_one_line(tiny_artifacts, drawn_images, tmp_path):
    ended = loop(tiny_artifacts["pytorch-fp32"], drawn_images[0].path)
    assert (ended.returncode, ended.stdout) == (1, "")
    known = "split/1,question/1,single/1"
    assert ended.stderr == f"Error: {tiny_artifacts['pytorch-fp32']}: is for torch with contract split/1, this loop for ort with {known}\n"
    ended = loop(tiny_artifacts["onnx-fp32"], drawn_images[0].path)
    side = open_artifact(tiny_artifacts["onnx-fp32"]).manifest.image.width_px
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"Error: {drawn_images[0].path}: is 40x32; resize it to {side}x{side} first\n"


def test_a_question_that_is_missing_or_unasked_is_one_line(tiny_artifacts, tiny_vqa_artifacts, drawn_images):
    for artifact, options, problem in (
        (tiny_vqa_artifacts["onnx-fp32"], [], "answers a question; name its ids with --question"),
        (tiny_artifacts["onnx-fp32"], ["--question", "2,9,3"], "answers no questions; leave out --question"),
    ):
        ended = loop(artifact, drawn_images[0].path, *options)
        assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", f"Error: {artifact}: {problem}\n")


def test_it_is_short_enough_to_read():
    assert len(LOOP.read_text(encoding="utf-8").splitlines()) <= MAX_LINES
