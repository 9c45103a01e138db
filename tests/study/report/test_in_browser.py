"""The page in a real browser, by mouse, by keys, in the dark and on a phone, without an error."""

import shutil

import pytest

from metaloss.study.report.page import Chart, Section, to_html
from metaloss.study.report.report import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs the program chromium")


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser):
    """Open a page; at the end there was no error on its console and no request but for itself."""
    pages, wrong = [], []

    def open_page(path, width=1280, scheme="light"):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.on("console", lambda one: wrong.append(one.text) if one.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        address = path.as_uri()
        page.on("request", lambda one: wrong.append(one.url) if is_outside(one.url) else None)
        page.goto(address)
        pages.append(page)
        return page

    def is_outside(url):
        return not url.startswith(("file:", "data:", "blob:"))

    yield open_page
    for page in pages:
        page.close()
    assert wrong == []


def drawn(page):
    page.wait_for_function(
        "() => [...document.querySelectorAll('.plot[data-drawn]')].some(p => p.data)"
    )


def test_pointing_at_a_curve_shows_its_numbers(run, opened):
    page = opened(write_report(run))
    drawn(page)
    curve = page.locator(".plot .nsewdrag").first
    curve.scroll_into_view_if_needed()
    box = curve.bounding_box()
    for share in (0.5, 0.55, 0.6):
        page.mouse.move(box["x"] + box["width"] * share, box["y"] + box["height"] * 0.5)
        page.wait_for_timeout(60)
    words = page.locator(".hoverlayer").first
    page.wait_for_function("() => document.querySelector('.hoverlayer').textContent")
    assert "valid" in words.text_content()
    assert "test" in words.text_content()


def test_the_slider_moves_the_loss_by_mouse_and_keys(run, opened):
    page = opened(write_report(run))
    slider = page.locator(".slider input")
    slider.scroll_into_view_if_needed()
    page.wait_for_function("() => document.querySelector('.slider .plot').data")
    now = "() => Array.from(document.querySelector('.slider .plot').data.at(-1).y)"
    last, shown = page.evaluate(now), page.locator(".slider output").text_content()
    slider.focus()
    page.keyboard.press("Home")
    page.wait_for_function(f"(last) => ({now})().join() !== last", arg=",".join(map(str, last)))
    first = "() => Array.from(document.querySelector('.slider .plot').data[0].y)"
    assert page.evaluate(now) == page.evaluate(first) != last
    assert page.locator(".slider output").text_content() != shown


def test_a_table_sorts_and_filters(study, opened):
    page = opened(write_report(study))
    table = page.locator(".sortable").first
    heads = table.locator("th button").all_text_contents()
    column = heads.index("mean")
    cells = table.locator(f"tbody td:nth-child({column + 1})")

    def means():
        return [float(cell.get_attribute("data-value")) for cell in cells.all()]

    before = means()
    table.locator("th button").nth(column).click()
    assert means() == sorted(before) != before
    table.locator("th button").nth(column).press("Enter")
    assert means() == sorted(before, reverse=True)
    assert table.locator("th").nth(column).get_attribute("aria-sort") == "descending"


def test_rows_are_found_by_words(run, opened):
    page = opened(write_report(run))
    table = page.locator(".sortable").last
    rows = table.locator("tbody tr:visible")
    before = rows.count()
    table.locator("input").fill("task.name")
    assert 1 <= rows.count() < before
    assert "task.name" in rows.first.text_content()


def test_a_block_is_chosen_by_name(study, opened):
    page = opened(write_report(study))
    page.locator(".chooser select").first.select_option("noisy")
    page.wait_for_function(
        "() => document.querySelectorAll('.choice')[2].querySelector('.plot').data"
    )
    assert page.locator(".choice").nth(2).is_visible()
    assert not page.locator(".choice").nth(0).is_visible()
    assert page.evaluate("window.evil") is None


@pytest.mark.parametrize("which", ["run", "study"])
def test_a_phone_in_dark_mode_needs_no_sideways_scrolling(which, request, opened):
    page = opened(write_report(request.getfixturevalue(which)), width=390, scheme="dark")
    drawn(page)
    for top in range(0, page.evaluate("document.body.scrollHeight"), 600):
        page.evaluate(f"window.scrollTo(0, {top})")
        page.wait_for_timeout(60)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    color = page.evaluate("document.querySelector('.plot[data-drawn]').layout.font.color")
    assert color == "#e8eaee"
    page.emulate_media(color_scheme="light")
    page.wait_for_function(
        "() => document.querySelector('.plot[data-drawn]').layout.font.color === '#1d2026'"
    )


def test_names_in_charts_are_drawn_as_they_are(tmp_path, opened):
    names = ["<b>bold</b> & <i>more</i>", "0.5", "12", "a &lt; b"]
    trace = {"type": "bar", "orientation": "h", "y": names, "x": [1, 2, 3, 4], "name": "mean"}
    path = tmp_path / "page.html"
    chart = Chart(title="names", traces=[trace])
    path.write_text(to_html("names", [Section(title="names", blocks=[chart])]), "utf-8")
    page = opened(path)
    drawn(page)
    page.wait_for_function("() => document.querySelectorAll('.ytick text').length === 4")
    assert page.locator(".ytick text").all_text_contents() == names
