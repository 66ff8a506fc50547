"""The page at `/` in a real browser: it loads nothing else, runs images that are chosen, dropped or pasted, with texts and a token."""

import base64

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

import runtimes
from tests.paths import ROOT
from tests.toolkit.report.browser import emulate, opened
from tests.toolkit.report.test_theme import TEXT, contrast
from tests.toolkit.serve.served import PATIENCE_S, served
from toolkit.serve.settings import Access, ModelJob, Settings

pytestmark = pytest.mark.full

SCREENSHOTS = ROOT / "build" / "screenshots"
PHONE_PX, DESK_PX = 390, 1280
SEND_FILE = """
const [name, text, kind] = arguments, transfer = new DataTransfer();
const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
transfer.items.add(new File([bytes], name, { type: "image/png" }));
const event = kind === "paste" ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true, cancelable: true })
  : new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true });
document.getElementById("drop").dispatchEvent(event);
"""
COLOURS = """
const style = getComputedStyle(document.documentElement);
return arguments[0].map(name => style.getPropertyValue("--" + name).trim());
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with opened(tmp_path_factory.mktemp("downloads"), offline=False) as driver:
        yield driver


@pytest.fixture(scope="module")
def artifact(tiny_artifacts):
    return tiny_artifacts["onnx-fp32"]


@pytest.fixture(scope="module")
def server(artifact):
    with served(Settings(job=ModelJob(artifact=str(artifact), threads=1))) as running:
        yield running


@pytest.fixture(scope="module")
def expected(artifact, sample_images):
    """Caption of the library for each of three images."""
    with runtimes.load(artifact, threads=1) as captioner:
        return {
            image.path: caption.text
            for image, caption in zip(sample_images[:3], captioner.caption([i.path for i in sample_images[:3]]), strict=True)
        }


@pytest.fixture
def page(browser, server):
    open_page(browser, server)
    yield browser
    assert [entry["message"] for entry in browser.get_log("browser")] == []


def open_page(browser, server):
    emulate(browser, width=DESK_PX)
    browser.get(f"http://127.0.0.1:{server.port}/")
    until(browser, lambda: "s per image" in browser.find_element(By.ID, "model").text)


def until(browser, condition):
    WebDriverWait(browser, PATIENCE_S).until(lambda _: condition())


def captions(browser):
    return browser.execute_script("return [...document.querySelectorAll('figcaption b')].map(each => each.textContent)")


def finished(browser, count):
    until(browser, lambda: len(captions(browser)) == count and "…" not in captions(browser))


def test_the_page_loads_nothing_from_elsewhere(page, server):
    entries = page.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert [name for name in entries if not name.startswith((f"http://127.0.0.1:{server.port}/v1/info", "data:"))] == []
    policy = server.get("/").headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy


def test_captions_of_chosen_dropped_and_pasted_images(page, expected):
    chosen, dropped, pasted = expected
    page.find_element(By.ID, "files").send_keys(str(chosen))
    finished(page, 1)
    for count, (path, kind) in enumerate(((dropped, "drop"), (pasted, "paste")), start=2):
        page.execute_script(SEND_FILE, path.name, base64.b64encode(path.read_bytes()).decode(), kind)
        finished(page, count)
    assert captions(page) == list(expected.values())[::-1]
    facts = page.find_element(By.CSS_SELECTOR, "figcaption small").text.split(" · ")
    assert facts[0] == pasted.name
    assert float(facts[1].removesuffix(" s")) > 0
    assert float(facts[2].removeprefix("score ")) < 0
    widths = page.execute_script("return [...document.images].map(image => image.naturalWidth)")
    assert min(widths) > 0
    assert [image.get_attribute("alt") for image in page.find_elements(By.TAG_NAME, "img")] == captions(page)


def test_an_unreadable_file_is_an_error_of_its_own(page, expected, tmp_path):
    bad = tmp_path / "notes.png"
    bad.write_bytes(b"no image")
    good = next(iter(expected))
    page.find_element(By.ID, "files").send_keys(f"{bad}\n{good}")
    finished(page, 2)
    assert captions(page)[0] == expected[good]
    assert page.find_element(By.CSS_SELECTOR, ".error").is_displayed()
    page.get_log("browser")  # the browser notes the status 400


def test_everything_is_reached_by_keyboard(page):
    page.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    assert page.switch_to.active_element.get_attribute("id") == "files"
    assert page.switch_to.active_element.accessible_name == "Choose images"


LOOKS = [(scheme, width) for scheme in ("light", "dark") for width in (PHONE_PX, DESK_PX)]


def look(page, name, scheme, width):
    """Check that the page fits and is readable, and save a screenshot."""
    emulate(page, width=width, scheme=scheme)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    names = ("ink", "muted", "accent", "error")
    paper, *colours = page.execute_script(COLOURS, ["paper", *names])
    assert {name: contrast(colour, paper) for name, colour in zip(names, colours, strict=True) if contrast(colour, paper) < TEXT} == {}
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.save_screenshot(str(SCREENSHOTS / f"serve-{name}-{scheme}-{width}.png"))


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
def test_the_page_fits_and_is_readable(page, expected, scheme, width):
    page.find_element(By.ID, "files").send_keys("\n".join(map(str, expected)))
    finished(page, 3)
    look(page, "caption", scheme, width)


def type_text(page, text):
    field = page.find_element(By.ID, "text")
    assert field.is_displayed()
    field.clear()
    field.send_keys(text)
    return field


def lines_of(page, index):
    """Return the lines of an entry; the newest one is the first."""
    return page.execute_script(
        "return [...document.querySelectorAll('figcaption')[arguments[0]].querySelectorAll('b')].map(each => each.textContent)", index
    )


def answered(page, entries):
    until(page, lambda: len(page.find_elements(By.TAG_NAME, "figcaption")) == entries and "…" not in captions(page))


def test_questions_about_an_image(browser, tiny_vqa_artifacts, sample_images):
    artifact, path = tiny_vqa_artifacts["onnx-fp32"], sample_images[0].path
    questions = ["is it red?", "how many dogs?"]
    with runtimes.load(artifact, task="vqa", threads=1) as model:
        answers = model.answer(path, questions)
    with served(Settings(job=ModelJob(artifact=str(artifact), threads=1))) as server:
        open_page(browser, server)
        assert (browser.title, browser.find_element(By.TAG_NAME, "h1").text) == ("Questions about images",) * 2
        field = type_text(browser, questions[0])
        assert field.accessible_name.startswith("Question")
        field.send_keys(Keys.ENTER)  # without an image, nothing happens
        browser.find_element(By.ID, "files").send_keys(str(path))
        answered(browser, 1)
        facts = browser.find_element(By.CSS_SELECTOR, "figcaption small").text.split(" · ")
        assert (lines_of(browser, 0), facts[:2], facts[3]) == (
            [answers[0].text],
            [path.name, questions[0]],
            f"score {answers[0].score:.2f}",
        )
        type_text(browser, "; ".join(questions)).send_keys(Keys.ENTER)  # about the last image again
        answered(browser, 2)
        assert lines_of(browser, 0) == [f"{question} {answer.text}" for question, answer in zip(questions, answers, strict=True)]
        for scheme, width in LOOKS:
            look(browser, "vqa", scheme, width)
        assert [entry["message"] for entry in browser.get_log("browser")] == []


def test_texts_that_are_compared_with_an_image(browser, matcher_artifacts, sample_images):
    artifact, path = matcher_artifacts["onnx-fp32"], sample_images[0].path
    texts = ["a red ball", "two dogs"]
    with runtimes.load(artifact, task="matching", threads=1) as model:
        ((first, second),) = model.match(path, texts)
    with served(Settings(job=ModelJob(artifact=str(artifact), threads=1))) as server:
        open_page(browser, server)
        assert browser.title == "Images and texts"
        type_text(browser, "a red ball;two dogs ; ")
        browser.find_element(By.ID, "files").send_keys(str(path))
        answered(browser, 1)
        assert lines_of(browser, 0) == [f"a red ball: {100 * first:.1f} %", f"two dogs: {100 * second:.1f} %"]
        for scheme, width in LOOKS:
            look(browser, "matching", scheme, width)
        type_text(browser, "").send_keys(Keys.ENTER)  # no text: the server's error is shown
        answered(browser, 2)
        assert "texts" in browser.find_element(By.CSS_SELECTOR, ".error").text
        browser.get_log("browser")  # the browser notes the status 400


def test_a_token_is_asked_for(browser, artifact, expected):
    emulate(browser, width=DESK_PX)
    with served(Settings(job=ModelJob(artifact=str(artifact), threads=1), access=Access(tokens=("open-sesame",)))) as server:
        browser.get(f"http://127.0.0.1:{server.port}/")
        token = browser.find_element(By.ID, "token")
        until(browser, token.is_displayed)
        token.send_keys("open-sesame", Keys.ENTER)
        until(browser, lambda: "s per image" in browser.find_element(By.ID, "model").text)
        assert not token.is_displayed()
        path, text = next(iter(expected.items()))
        browser.find_element(By.ID, "files").send_keys(str(path))
        finished(browser, 1)
        assert captions(browser) == [text]
    browser.get_log("browser")  # the browser notes the status 401
