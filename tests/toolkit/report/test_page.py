"""The text of the page: self-contained, complete, escaped. test_browser.py tests what needs a browser."""

import base64
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import pytest
from markupsafe import escape

from runtimes.errors import DatasetError
from tests.paths import GOLDEN
from toolkit.datasets import load_dataset
from toolkit.records.record_file import read_records
from toolkit.report.images import images_of
from toolkit.report.page import render_html
from toolkit.report.recommendation import recommend
from toolkit.report.reproduction import commands
from toolkit.stats.rows import make_rows

RECORDS = read_records(GOLDEN / "records.jsonl")


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, wanted):
        return [attributes for tag, attributes in self.tags if tag == wanted]


@pytest.fixture(scope="module")
def text():
    return render_html(RECORDS)


def test_the_page_loads_no_other_file(text):
    page = Page(text)
    addresses = [
        value for _, attributes in page.tags for key, value in attributes.items() if key in ("src", "href", "xlink:href", "action")
    ]
    assert [address for address in addresses if not address.startswith(("#", "data:"))] == []
    assert page.all("link") == []
    assert "@import" not in text
    assert "default-src 'none'" in page.all("meta")[3]["content"]


def test_the_page_contains_the_records_for_download(text, tmp_path):
    (link,) = [attributes for attributes in Page(text).all("a") if "download" in attributes]
    kind, _, content = link["href"].partition("base64,")
    assert kind == "data:application/x-ndjson;"
    kept = tmp_path / link["download"]
    kept.write_bytes(base64.b64decode(content))
    assert read_records(kept) == RECORDS


@pytest.mark.parametrize("judged", [True, False])
def test_the_recommendation_is_the_heading(judged):
    records = RECORDS if judged else [replace(record, quality=()) for record in RECORDS]
    advice = recommend(make_rows(records))
    page = render_html(records)
    heading = re.search(r"<h1>S(.*?)<span>(.*?)</span></h1>", page)
    assert unescape(f"s{heading[1]}: {heading[2]}") == advice.sentence
    assert f"<title>{escape(advice.sentence)}</title>" in page
    assert advice.sentence.startswith("ship onnx-int8: ")
    assert ("no verdict (4 of 20 images)" in heading[2], "quality not measured" in heading[2]) == (judged, not judged)


def test_texts_of_records_are_escaped():
    evil = "<script>alert(1)</script> \"'&"
    first = replace(RECORDS[0], workload=replace(RECORDS[0].workload, dataset=evil))
    quality = tuple(replace(image, caption=evil, file=evil) for image in RECORDS[0].quality)
    page = Page(render_html([replace(first, quality=quality, error=None), replace(first, case=evil, error=evil, times=(), quality=())]))
    assert len(page.all("script")) == 1
    assert {attributes["data-file"] for attributes in page.all("article")} == {evil}


def test_a_failed_case_is_listed_with_its_error():
    records = [*RECORDS, replace(RECORDS[0], case="onnx-int4", error="no room", subject=None, times=(), quality=())]
    assert "<li>onnx-int4: no room</li>" in render_html(records)


def test_a_page_of_failures_only():
    records = [replace(RECORDS[0], error="no room", subject=None, times=(), quality=())]
    page = render_html(records)
    assert "Ship none of these" in page
    assert "<svg" not in page


SAMPLE = load_dataset("sample", limit=4)


def on_sample(record):
    work = replace(record.workload, dataset=SAMPLE.name, dataset_sha256=SAMPLE.sha256, dataset_path=SAMPLE.path, limit=SAMPLE.limit)
    return replace(record, workload=work)


def test_the_shipped_images_need_no_option():
    dataset = images_of([on_sample(RECORDS[0])], None, None)
    assert dataset == SAMPLE
    page = Page(render_html([on_sample(record) for record in RECORDS], dataset))
    images = page.all("img")
    assert len(images) == 4
    assert all(image["src"].startswith("data:image/jpeg;base64,") and image["alt"] for image in images)
    assert SAMPLE.images[0].texts[0] in "".join(page.texts)


def test_missing_images_are_a_warning(caplog):
    assert images_of(RECORDS, None, None) is None
    (message,) = caplog.messages
    assert RECORDS[0].workload.dataset in message
    assert "--images" in message


def test_images_of_another_dataset_are_an_error():
    with pytest.raises(DatasetError, match="--no-images"):
        images_of(RECORDS, "sample", None)


def test_the_commands_repeat_the_run():
    work = replace(
        RECORDS[0].workload, dataset_path="../my set", images_path="images", limit=5, checkpoint="models/mine", prompt="a picture of"
    )
    export, bench, report = commands([replace(record, workload=work) for record in RECORDS])
    recipes = dict.fromkeys(record.subject.recipe for record in RECORDS if record.subject and record.subject.recipe)
    assert export == f"toolkit export models/mine {' '.join(f'--recipe {name}' for name in recipes)} --output build/artifacts-again"
    assert bench == (
        "toolkit bench build/artifacts-again --checkpoint models/mine --dataset '../my set' --images images --limit 5 "
        f"--prompt 'a picture of' --num-beams {work.num_beams} --warmup {work.warmup} --repeat {work.repeats} "
        f"--min-length {work.min_length} --max-length {work.max_length} --batch-size 1 "
        f"--threads {work.threads} --tokens natural --output records-again.jsonl"
    )
    assert report == ("toolkit report records-again.jsonl --format html --output report-again.html --dataset '../my set' --images images")


def test_the_commands_have_placeholders_for_facts_that_records_lack():
    _, bench, _ = commands(RECORDS)
    assert f"--checkpoint CHECKPOINT --dataset {RECORDS[0].workload.dataset} " in bench
