"""Datasets: the formats, the fixed choice of --limit, the errors, and the sample in the package."""

import hashlib
import json
import random
from pathlib import Path

import pytest
from PIL import Image

from exporters.gate.labelled_image import LabelledImage
from runtimes.errors import DatasetError
from toolkit.datasets import SAMPLE, load_dataset

NAMES = tuple(f"{letter}.jpg" for letter in "abcdefghij")


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def captions_json(names=NAMES):
    return {"images": [{"file": name, "captions": [f" one {name}", f"two {name}\n"]} for name in names]}


def coco(names=NAMES):
    images = [{"id": 100 + number, "file_name": name, "width": 1} for number, name in enumerate(names)]
    annotations = [
        {"id": i, "image_id": image["id"], "caption": f"{count} {image['file_name']} "}
        for i, (image, count) in enumerate((image, count) for count in ("one", "two") for image in reversed(images))
    ]
    return {"info": {}, "images": images, "annotations": annotations}


def images(folder, names=NAMES):
    return tuple(LabelledImage(folder / name, (f"one {name}", f"two {name}")) for name in names)


def test_captions_json_in_its_folder(tmp_path):
    file = write(tmp_path / "holiday" / "captions.json", captions_json())
    for name in (str(file), str(file.parent)):
        dataset = load_dataset(name)
        assert (dataset.name, dataset.images, dataset.has_references) == ("holiday", images(file.parent), True)


def test_captions_json_with_images_elsewhere(tmp_path):
    file = write(tmp_path / "texts" / "mine.json", captions_json())
    dataset = load_dataset(str(file), tmp_path / "images")
    assert (dataset.name, dataset.images) == ("mine", images(tmp_path / "images"))


def test_coco_captions_with_images(tmp_path):
    file = write(tmp_path / "annotations" / "captions_val2017.json", coco())
    dataset = load_dataset(str(file), tmp_path / "val2017")
    assert (dataset.name, dataset.images, dataset.has_references) == ("captions_val2017", images(tmp_path / "val2017"), True)


def test_coco_images_without_captions_are_not_used_and_a_warning_names_the_first(tmp_path, caplog):
    content = coco()
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] != 103]
    dataset = load_dataset(str(write(tmp_path / "captions.json", content)), tmp_path)
    assert (len(dataset.images), LabelledImage(tmp_path / "d.jpg", ()) in dataset.images, dataset.has_references) == (9, False, True)
    assert "1 images have no captions" in caplog.text
    assert "d.jpg" in caplog.text


def test_a_folder_without_captions_json_has_images_and_no_references(tmp_path):
    for name in ("b.jpg", "deep/a.png", "notes.txt"):
        write(tmp_path / name, "")
    dataset = load_dataset(None, tmp_path)
    assert (dataset.name, dataset.images, dataset.has_references) == (
        str(tmp_path),
        (LabelledImage(tmp_path / "b.jpg", ()), LabelledImage(tmp_path / "deep" / "a.png", ())),
        False,
    )


@pytest.mark.parametrize("limit", [1, 3, 9])
def test_a_limit_takes_a_fixed_choice_in_order(tmp_path, limit):
    file = write(tmp_path / "holiday" / "captions.json", captions_json())
    random.seed(limit)  # the choice must not depend on the global generator
    dataset = load_dataset(str(file), limit=limit)
    assert dataset.name == f"holiday ({limit} of 10)"
    assert len(dataset.images) == limit
    assert load_dataset(str(file), limit=limit) == dataset
    everything = images(file.parent)
    positions = [everything.index(image) for image in dataset.images]
    assert positions == sorted(set(positions))


def test_the_choice_of_a_limit_is_the_same_in_every_version(tmp_path):
    file = write(tmp_path / "captions.json", captions_json())
    assert [image.path.stem for image in load_dataset(str(file), limit=3).images] == ["a", "g", "j"]


@pytest.mark.parametrize("limit", [10, 11, None])
def test_a_limit_of_all_or_more_changes_nothing(tmp_path, limit):
    file = write(tmp_path / "holiday" / "captions.json", captions_json())
    assert load_dataset(str(file), limit=limit) == load_dataset(str(file))


def test_the_hash_is_of_images_and_references(tmp_path):
    def digest(**contents):
        for name in ("a.jpg", "b.jpg"):
            write(tmp_path / name, contents.get(name[0], name))
        texts = {"images": [{"file": name, "captions": [contents.get("caption", "a dog")]} for name in ("a.jpg", "b.jpg")]}
        return load_dataset(str(write(tmp_path / "captions.json", texts))).sha256

    first = digest()
    digests = [first, digest(a="other"), digest(caption="a cat")]
    assert len(set(digests)) == 3
    assert digest() == first
    rows = [[name, hashlib.sha256(name.encode()).hexdigest(), ["a dog"]] for name in ("a.jpg", "b.jpg")]
    assert first == hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()
    (tmp_path / "b.jpg").unlink()
    assert load_dataset(str(tmp_path)).sha256 not in digests, "a missing image changes the hash; it becomes an error row later"


NEITHER = "{file}: is neither {{'images': [{{'file', 'captions'}}]}} nor "


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (None, "{file}: cannot be read: No such file or directory"),
        ("", "{file}: cannot be read: not JSON (Expecting value: line 1 column 1 (char 0))"),
        ("{", "{file}: cannot be read: not JSON ("),
        ("[" * 100_000, "{file}: cannot be read: not JSON ("),
        ([], NEITHER),
        (7, NEITHER),
        ("null", NEITHER),
        ({}, NEITHER),
        ({"images": [{"file": "a.jpg"}]}, NEITHER),
        ({"images": [{"captions": []}]}, NEITHER),
        ({"images": [{"file": 7, "captions": []}]}, NEITHER),
        ({"images": ["a.jpg"]}, NEITHER),
        ({"images": 3}, NEITHER),
        ({"images": [{"file": "a.jpg", "captions": 3}]}, NEITHER),
        ({"images": [{"file": "a.jpg", "captions": "a dog"}]}, NEITHER),
        ({"images": []}, "texts: has no images"),
        (coco(), "{file}: is a captions file of COCO; name the folder of its images with --images"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_an_invalid_dataset_is_a_one_line_error(tmp_path, content, error):
    file = tmp_path / "texts" / "captions.json"
    if content is not None:
        write(file, content)
    with pytest.raises(DatasetError) as raised:
        load_dataset(str(file))
    assert str(raised.value).startswith(error.format(file=file))
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("broken", "with_images"),
    [({"annotations": [{"image_id": 1}], "images": []}, True), ({"annotations": [], "images": [{"id": 1}]}, True)],
)
def test_an_invalid_coco_file_is_a_one_line_error(tmp_path, broken, with_images):
    file = write(tmp_path / "captions.json", broken)
    with pytest.raises(DatasetError) as raised:
        load_dataset(str(file), tmp_path if with_images else None)
    assert str(raised.value).startswith(NEITHER.format(file=file))


@pytest.mark.parametrize(("make", "problem"), [(False, "no such folder of images"), (True, "has no images")])
def test_a_folder_without_images_is_a_one_line_error(tmp_path, make, problem):
    folder = tmp_path / "mine"
    if make:
        write(folder / "notes.txt", "")
    with pytest.raises(DatasetError) as raised:
        load_dataset(None, folder)
    assert str(raised.value) == f"{folder}: {problem}"


ENTRIES = json.loads(SAMPLE.read_text(encoding="utf-8"))["images"]
FREE = {"CC0-1.0", "Public domain", "CC-BY-2.0", "CC-BY-4.0"}


def test_the_sample_is_a_handful_of_images():
    dataset = load_dataset("sample")
    assert (dataset.name, dataset.has_references) == ("sample", True)
    assert 8 <= len(dataset.images) <= 25
    assert sorted(image.path.name for image in dataset.images) == sorted(path.name for path in SAMPLE.parent.glob("*.jpg"))
    assert len({hashlib.sha256(image.path.read_bytes()).hexdigest() for image in dataset.images}) == len(dataset.images)
    assert len({caption for image in dataset.images for caption in image.texts}) == 5 * len(dataset.images)


@pytest.mark.parametrize("entry", ENTRIES, ids=[entry["file"] for entry in ENTRIES])
def test_a_sample_image_has_the_properties_of_its_entry(entry):
    file = SAMPLE.parent / entry["file"]
    assert hashlib.sha256(file.read_bytes()).hexdigest() == entry["sha256"]
    with Image.open(file) as image:
        assert (image.format, image.mode, list(image.size)) == ("JPEG", "RGB", entry["size"])
        assert max(image.size) <= 512
        extremes = image.resize((16, 16)).convert("HSV").getextrema()
    assert extremes[1][1] > 25, "it has colours"
    assert len(entry["captions"]) == len(set(entry["captions"])) == 5
    assert all(6 <= len(caption.split()) <= 25 and caption[0].isupper() and caption.endswith(".") for caption in entry["captions"])
    assert entry["licence"] in FREE
    assert "(PyPI)" in entry["origin"] or "(Debian)" in entry["origin"]
    assert entry["author"]
    assert entry["licence_source"]


def test_the_licence_of_each_sample_image_is_in_licences_md():
    table = {
        line.split("|")[1].strip(): line
        for line in (SAMPLE.parent / "LICENCES.md").read_text(encoding="utf-8").splitlines()
        if ".jpg |" in line
    }
    assert sorted(table) == sorted(entry["file"] for entry in ENTRIES)
    assert [
        entry["file"] for entry in ENTRIES if not all(entry[key] in table[entry["file"]] for key in ("author", "licence", "origin"))
    ] == []
    credit = Path(SAMPLE.parent / "LICENCES.md").read_text(encoding="utf-8").partition("## Attribution")[2]
    assert [entry["file"] for entry in ENTRIES if "BY" in entry["licence"] and f"`{entry['file']}`" not in credit] == []


def vqa_files(folder, image_id, names=("questions.json", "annotations.json")):
    questions = {"questions": [{"question_id": 7, "image_id": image_id, "question": " What is it? "}]}
    annotations = {"annotations": [{"question_id": 7, "image_id": image_id, "answers": [{"answer": "dog"}, {"answer": " cat"}]}]}
    for name, content in zip(names, (questions, annotations), strict=True):
        (folder / name).write_text(json.dumps(content))
    return folder / names[0]


@pytest.mark.parametrize(
    "names", [("questions.json", "annotations.json"), ("v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json")]
)
@pytest.mark.parametrize("image_id", [42, "COCO_val2014_000000000042.jpg"])
def test_questions_and_answers_in_the_format_of_vqav2(tmp_path, sample_images, names, image_id):
    (tmp_path / "images").mkdir()
    path = tmp_path / "images" / "COCO_val2014_000000000042.jpg"
    path.write_bytes(sample_images[0].path.read_bytes())
    dataset = load_dataset(str(vqa_files(tmp_path, image_id, names)), tmp_path / "images")
    assert dataset.images == (LabelledImage(path, ("dog", "cat"), "What is it?"),)


def test_an_image_of_a_question_that_is_missing(tmp_path):
    with pytest.raises(DatasetError, match="image 42"):
        load_dataset(str(vqa_files(tmp_path, 42)))


def test_the_sample_has_three_questions_with_ten_answers_for_each_image():
    questions = load_dataset("sample", task="vqa").images
    assert [image.path for image in questions] == [image.path for image in load_dataset("sample").images for _ in range(3)]
    assert {len(image.texts) for image in questions} == {10}
    assert len({(image.path, image.question) for image in questions}) == len(questions)
