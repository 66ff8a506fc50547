"""The page in a real browser, opened from disk: it loads no other file, sorts, filters, and is readable.

The records are the published ones, cut to the number of shipped images, which replace theirs. Screenshots are written to build/screenshots.
"""

import base64
import re
import time
from dataclasses import replace
from itertools import pairwise

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from tests.paths import ROOT
from tests.toolkit.report.browser import emulate, opened
from tests.toolkit.report.test_theme import TEXT, contrast
from toolkit.datasets import load_dataset
from toolkit.records.record_file import read_records
from toolkit.report.captions import comparisons
from toolkit.report.page import render_html
from toolkit.report.theme import DARK, LIGHT

pytestmark = pytest.mark.full

SCREENSHOTS = ROOT / "build" / "screenshots"
SAMPLE = load_dataset("sample")
IMAGES = len(SAMPLE.images)
PHONE_PX, DESK_PX = 390, 1280
THEMES = {"light": LIGHT, "dark": DARK}


def cut(record, batch_size):
    work = replace(record.workload, images=IMAGES, batch_size=batch_size)
    return replace(record, workload=work, times=record.times[: work.runs], quality=record.quality[:IMAGES])


RECORDS = [cut(record, size) for size in (1, 4) for record in read_records(ROOT / "tests/golden/published/amd-epyc-vnni/quality.jsonl")]
COMPARED = comparisons([record for record in RECORDS if record.workload.batch_size == 1])


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(downloads):
    with opened(downloads) as driver:
        yield driver


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(render_html(RECORDS, SAMPLE), encoding="utf-8")
    return file.as_uri()


@pytest.fixture
def page(browser, address):
    """The page, freshly opened on a wide screen in the light theme."""
    emulate(browser, width=DESK_PX)
    browser.get(address)
    yield browser
    assert [entry["message"] for entry in browser.get_log("browser")] == []


def hex_of(colour):
    """Return #rrggbb of the browser's rgb(r, g, b)."""
    return "#" + "".join(f"{int(part):02x}" for part in re.findall(r"\d+", colour)[:3])


def test_the_page_loads_no_other_file(page):
    entries = page.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert [name for name in entries if not name.startswith("data:")] == []
    widths = page.execute_async_script(
        """const [done] = arguments, images = [...document.images];
        images.forEach((image) => { image.loading = "eager"; });
        Promise.all(images.map((image) => image.decode())).then(() => done(images.map((image) => image.naturalWidth)));"""
    )
    assert len(widths) == IMAGES
    assert min(widths) > 100


def first_number(text):
    match = re.search(r"[-+]?\d+(\.\d+)?", text)
    return float(match[0]) if match else None


def in_order(texts, *, first):
    """Return whether the numbers of a column increase, with missing ones last; the first column has no numbers."""
    if first:
        return True
    numbers = [first_number(text) for text in texts]
    known = [number for number in numbers if number is not None]
    return known == sorted(known) and numbers == known + [None] * (len(numbers) - len(known))


def test_every_column_of_every_table_sorts_both_ways(page):
    for fold in page.find_elements(By.CSS_SELECTOR, "#tables details:not([open]) > summary"):
        fold.click()
    tables = page.find_elements(By.CSS_SELECTOR, "table.sortable")
    assert len(tables) >= 7
    for table in tables:
        heads = table.find_elements(By.CSS_SELECTOR, "thead th")
        rows = len(table.find_elements(By.CSS_SELECTOR, "tbody tr"))
        for column, head in enumerate(heads):
            cells = f"return [...arguments[0].tBodies[0].rows].map(row => row.cells[{column}].textContent)"
            head.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
            rising = page.execute_script(cells, table)
            assert head.get_attribute("aria-sort") == "ascending"
            assert in_order(rising, first=column == 0), (head.text, rising)
            head.find_element(By.TAG_NAME, "button").send_keys(Keys.SPACE)
            assert head.get_attribute("aria-sort") == "descending"
            assert page.execute_script(cells, table) == rising[::-1]
            assert len(rising) == rows
            assert len(table.find_elements(By.CSS_SELECTOR, "[aria-sort]")) == 1


def shown(page):
    return page.execute_script("return [...document.querySelectorAll('.card')].filter(c => c.offsetParent).map(c => c.dataset.file)")


def distance(comparison, case):
    return comparison.distances[case] if case else comparison.disagreement


@pytest.mark.parametrize("case", ["", *COMPARED[0].distances])
def test_filters_and_orders_of_captions(page, case):
    select, order, differs = (page.find_element(By.ID, name) for name in ("case", "order", "differs"))
    assert shown(page) == [image.file for image in COMPARED], "by default all images, most disagreement first"
    Select(select).select_by_value(case or "") if not case else Select(select).select_by_visible_text(case)
    everything = sorted(COMPARED, key=lambda image: -distance(image, case))
    assert [distance(image, case) for image in by_file(shown(page))] == [distance(image, case) for image in everything]
    differs.send_keys(Keys.SPACE)
    differing = [image for image in everything if distance(image, case) > 0]
    assert [distance(image, case) for image in by_file(shown(page))] == [distance(image, case) for image in differing]
    assert page.find_element(By.ID, "shown").text == f"{len(differing)} of {IMAGES} images"
    Select(order).select_by_value("agreement")
    assert [distance(image, case) for image in by_file(shown(page))] == [distance(image, case) for image in reversed(differing)]
    Select(order).select_by_value("file")
    assert shown(page) == sorted(image.file for image in differing)
    groups = page.execute_script("return [...document.querySelectorAll('.caption')].filter(c => c.offsetParent).map(c => c.dataset.cases)")
    if case:
        assert all(case in cases or "hf-fp32" in cases for cases in groups)
    differs.send_keys(Keys.SPACE)
    assert len(shown(page)) == IMAGES


def by_file(files):
    known = {image.file: image for image in COMPARED}
    return [known[file] for file in files]


def test_words_that_differ_are_marked(page):
    card = page.find_element(By.CSS_SELECTOR, ".card")
    first = COMPARED[0]
    for tag, kind in (("mark", "new"), ("del", "gone")):
        marked = [element.text for element in card.find_elements(By.CSS_SELECTOR, f".caption {tag}")]
        assert marked == [words for group in first.groups for words, what in group.spans if what == kind]
    assert card.find_elements(By.TAG_NAME, "mark") != []


def paper(page):
    return hex_of(page.execute_script("return getComputedStyle(document.documentElement).backgroundColor"))


def test_the_theme_follows_the_system_until_the_button_is_used(page):
    button = page.find_element(By.ID, "theme")
    assert (paper(page), button.text) == (LIGHT["paper"], "Dark")
    emulate(page, scheme="dark")
    assert (paper(page), button.text) == (DARK["paper"], "Light")
    button.click()
    assert (paper(page), button.text) == (LIGHT["paper"], "Dark")
    button.click()
    emulate(page, scheme="light")
    assert (paper(page), button.text) == (DARK["paper"], "Light")
    emulate(page, media="print")
    assert paper(page) == LIGHT["paper"], "the print is light"
    assert not page.find_element(By.TAG_NAME, "nav").is_displayed()


TEXTS = """
const found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const node = walker.currentNode, element = node.parentElement;
  if (!node.textContent.trim() || element.closest("script, title, desc") || !element.getClientRects().length) continue;
  const svg = element.closest("svg");
  let behind = element;
  while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)" && behind.parentElement) behind = behind.parentElement;
  const style = getComputedStyle(element);
  found.push([node.textContent.trim(), svg ? style.fill : style.color, getComputedStyle(behind).backgroundColor]);
}
return found;
"""


@pytest.mark.parametrize("scheme", THEMES)
def test_every_text_has_enough_contrast(page, scheme):
    emulate(page, scheme=scheme)
    page.execute_script("document.querySelectorAll('details').forEach(fold => { fold.open = true; })")
    texts = page.execute_script(TEXTS)
    marks = {"■"}  # graphics, for which 3:1 is enough: test_theme.py
    faint = {text: round(contrast(hex_of(ink), hex_of(behind)), 2) for text, ink, behind in texts if text not in marks}
    assert {text: ratio for text, ratio in faint.items() if ratio < TEXT} == {}
    assert len(texts) > 500


OVERLAPS = """
const shrunk = (element) => {
  const box = element.getBoundingClientRect();
  return [box.left + 1, box.top + 2, box.right - 1, box.bottom - 2];
};
return [...document.querySelectorAll("figure svg")].flatMap((svg) => {
  const texts = [...svg.querySelectorAll("text")].filter((text) => text.textContent.trim());
  const boxes = texts.map(shrunk), [left, top, right, bottom] = shrunk(svg), found = [];
  texts.forEach((text, i) => {
    const [a, b, c, d] = boxes[i];
    if (a < left - 3 || b < top - 3 || c > right + 3 || d > bottom + 3) found.push(`${text.textContent} leaves its plot`);
    boxes.slice(0, i).forEach(([e, f, g, h], j) => {
      if (a < g && e < c && b < h && f < d) found.push(`${text.textContent} on ${texts[j].textContent}`);
    });
  });
  return found;
});
"""


@pytest.mark.parametrize("width", [PHONE_PX, DESK_PX])
@pytest.mark.parametrize("scheme", THEMES)
def test_layout_at_both_widths_and_in_both_themes(page, width, scheme):
    emulate(page, width=width, scheme=scheme)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width, "no horizontal scrolling"
    assert page.execute_script(OVERLAPS) == []
    sizes = page.execute_script(
        "return [...document.querySelectorAll('figure svg')].map(svg => svg.getBoundingClientRect().width / svg.viewBox.baseVal.width)"
    )
    assert min(sizes) * 10 >= 8.5, "px of the plots' text"
    image = page.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})["data"]
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    (SCREENSHOTS / f"report-{scheme}-{width}.png").write_bytes(base64.b64decode(image))


def test_every_control_is_reached_with_the_tab_key(page):
    wanted = page.execute_script(
        """const all = [...document.querySelectorAll("a[href], button, select, input, summary, [tabindex='0']")];
        const seen = all.filter((element) => element.checkVisibility());
        seen.forEach((element, index) => { element.dataset.index = index; });
        return seen.length;"""
    )
    reached, rings = [], []
    body = page.find_element(By.TAG_NAME, "body")
    body.send_keys(Keys.TAB)
    for _ in range(wanted):
        index, ring = page.execute_script(
            "const at = document.activeElement; return [at.dataset.index, getComputedStyle(at).outlineStyle !== 'none'];"
        )
        reached.append(int(index))
        rings.append(ring)
        page.switch_to.active_element.send_keys(Keys.TAB)
    assert reached == list(range(wanted)), "in the order of the page"
    assert all(rings), "the focus is visible"


def test_plots_and_images_have_text_alternatives(page):
    plots = page.find_elements(By.CSS_SELECTOR, "figure svg")
    assert len(plots) == 7
    for plot in plots:
        names = plot.get_attribute("aria-labelledby").split()
        texts = [page.execute_script("return document.getElementById(arguments[0]).textContent", name) for name in names]
        assert plot.get_attribute("role") == "img"
        assert "onnx-int8" in texts[1]
        assert plot.accessible_name == " ".join(texts)
    levels = page.execute_script("return [...document.querySelectorAll('h1, h2, h3')].map(head => Number(head.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert page.execute_script("return document.documentElement.lang") == "en"


def test_the_records_can_be_downloaded(page, downloads):
    page.find_element(By.CSS_SELECTOR, "a[download]").click()
    kept = downloads / "records.jsonl"
    for _ in range(100):
        if kept.exists():
            break
        time.sleep(0.1)
    assert read_records(kept) == RECORDS


def test_the_page_prints(page):
    emulate(page, media="print")
    content = base64.b64decode(page.execute_cdp_cmd("Page.printToPDF", {"printBackground": False})["data"])
    assert content.startswith(b"%PDF-")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    (SCREENSHOTS / "report.pdf").write_bytes(content)
