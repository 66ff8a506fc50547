"""The page at `/` in a real browser: it loads nothing else, captions images that are chosen, dropped and pasted, and asks for a token."""

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
    emulate(browser, width=DESK_PX)
    browser.get(f"http://127.0.0.1:{server.port}/")
    until(browser, lambda: "s per image" in browser.find_element(By.ID, "model").text)
    yield browser
    assert [entry["message"] for entry in browser.get_log("browser")] == []


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


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE_PX, DESK_PX])
def test_the_page_fits_and_is_readable(page, expected, scheme, width):
    emulate(page, width=width, scheme=scheme)
    page.find_element(By.ID, "files").send_keys("\n".join(map(str, expected)))
    finished(page, 3)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    names = ("ink", "muted", "accent", "error")
    paper, *colours = page.execute_script(COLOURS, ["paper", *names])
    assert {name: contrast(colour, paper) for name, colour in zip(names, colours, strict=True) if contrast(colour, paper) < TEXT} == {}
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.save_screenshot(str(SCREENSHOTS / f"serve-{scheme}-{width}.png"))


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
