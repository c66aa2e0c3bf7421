"""The page in a real browser: no console error, no request, and every control does what it says."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from browser import Heard, need_browser, open_page, wait_for

pytest.importorskip("matplotlib")
pytest.importorskip("plotly")

from saved_reports import analysis

from trajcheck.commands.report.one_report import draw_report

if TYPE_CHECKING:
    from playwright.sync_api import Page

need_browser()
READY = "document.documentElement.dataset.ready === 'yes'"
NASTY = "</script><b>\"'&"
#: Names of the lines that the chart shows.
SHOWN = "[...new Set(document.getElementById('chart').data.map((trace) => trace.name))]"
STATUS = "document.getElementById('status').textContent"
AXIS = "document.getElementById('chart').layout.yaxis.type"


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Page, Heard]]:
    folder = tmp_path_factory.mktemp("page")
    values = np.where(np.arange(80) % 10 == 3, np.nan, np.arange(80) - 5.0)
    analysis(folder / "report", ["final", NASTY], rows=80, samples=("own", "probe"), change={"cos": values})
    drawn = draw_report(folder / "report", ["png"])
    with open_page() as (page, heard):
        page.goto(drawn.page.absolute().as_uri())
        wait_for(page, READY)
        yield page, heard


@pytest.fixture
def page(opened: tuple[Page, Heard]) -> Page:
    return opened[0]


@pytest.fixture
def heard(opened: tuple[Page, Heard]) -> Heard:
    return opened[1]


def test_nothing_is_logged_and_nothing_is_requested(heard: Heard) -> None:
    assert heard.console == []
    assert [url for url in heard.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert len([url for url in heard.requests if url.startswith("file:")]) == 1


def test_references_and_samples_are_toggled(page: Page) -> None:
    assert page.evaluate(SHOWN) == [
        *("final, own", "final, probe"),
        *(f"{NASTY.replace('&', '&amp;').replace('<', '&lt;').replace('>', '&gt;')}, {s}" for s in ("own", "probe")),
    ]
    page.click("#references input")
    wait_for(page, f"{SHOWN}.length === 2")
    assert "final" not in page.evaluate(STATUS).split(".", 1)[1]
    page.click("#samples label:nth-of-type(2) input")
    wait_for(page, f"{SHOWN}.length === 1")
    page.click("#references input")
    page.click("#samples label:nth-of-type(2) input")
    wait_for(page, f"{SHOWN}.length === 4")


def test_the_logarithmic_scale_says_what_it_cannot_show(page: Page) -> None:
    assert page.evaluate(AXIS) == "linear"
    page.click("#log")
    wait_for(page, f"{AXIS} === 'log'")
    assert "Values at or below 0, not on the logarithmic scale: 20." in page.evaluate(STATUS)
    page.click("#log")
    wait_for(page, f"{AXIS} === 'linear'")


def test_gaps_stay_gaps_and_are_counted(page: Page) -> None:
    assert "Empty cells, drawn as gaps: 32." in page.evaluate(STATUS)
    assert page.evaluate("document.getElementById('chart').data.every((trace) => trace.connectgaps === false)")


def test_another_quantity_a_range_and_the_table(page: Page) -> None:
    page.evaluate(
        "(() => { const q = document.getElementById('quantity');"
        " q.value = [...q.options].find((option) => option.textContent.startsWith('loss:')).value;"
        " q.dispatchEvent(new Event('change', {bubbles: true})); })()"
    )
    wait_for(page, f"{STATUS}.startsWith('loss along step')")
    page.click("#values summary")
    wait_for(page, "document.querySelectorAll('#cells tbody tr').length === 25")
    page.evaluate(
        "for (const [id, value] of [['from', 10], ['to', 14]]) { const field = document.getElementById(id);"
        " field.value = value; field.dispatchEvent(new Event('change', {bubbles: true})); }"
    )
    wait_for(page, "document.querySelectorAll('#cells tbody tr').length === 5")
    assert "own: 5 values" in page.evaluate(STATUS)
    assert page.evaluate("document.getElementById('chart').layout.xaxis.range") == [10, 14]
    page.click("#all")
    wait_for(page, f"{STATUS}.includes('own: 80 values')")


def test_light_and_dark(page: Page) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    chart = "document.getElementById('chart').layout.paper_bgcolor"
    assert page.evaluate(background) == "rgb(255, 255, 255)"
    page.click("#theme")
    wait_for(page, f"{background} === 'rgb(22, 24, 27)' && {chart} === '#16181b'")
    assert page.evaluate("document.getElementById('theme').getAttribute('aria-label')") == "Change to light colours"
    page.click("#theme")
    wait_for(page, f"{chart} === '#ffffff'")
    page.evaluate("delete document.documentElement.dataset.theme")
    page.emulate_media(color_scheme="dark")
    wait_for(page, f"{chart} === '#16181b'")
    page.emulate_media(media="screen", color_scheme="light")
    wait_for(page, f"{chart} === '#ffffff'")


@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_is_wider_than_the_window(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_the_keyboard_reaches_every_control_and_one_sees_where_one_is(page: Page) -> None:
    page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
    page.evaluate("document.querySelector('.skip').focus()")
    seen = ["skip"]
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none", seen
        if seen[-1] == "marks":
            break
    assert [
        name for name in ("theme", "quantity", "along", "from", "to", "all", "log", "errors") if name not in seen
    ] == []


def test_on_paper_there_are_figures_and_no_controls(page: Page) -> None:
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.getElementById('series')).display") == "none"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.querySelector('figure img')).filter") == "none"
    page.emulate_media(media="screen", color_scheme="light")


def test_headings_landmarks_and_words_for_pictures(page: Page) -> None:
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map((each) => Number(each.tagName[1]))")
    assert levels.count(1) == 1 and all(b - a <= 1 for a, b in pairwise(levels))
    assert page.evaluate(
        "['header', 'nav', 'main', 'footer'].every((name) => document.querySelectorAll(name).length === 1)"
    )
    assert page.evaluate("[...document.images].length") > 5
    page.evaluate(
        "Promise.all([...document.images].map((image) => { image.loading = 'eager'; return image.decode(); }))"
    )
    assert page.evaluate("[...document.images].every((image) => image.alt && image.naturalWidth)")
    unnamed = "[...document.querySelectorAll('input,select')].filter((each) => !each.labels.length).length"
    assert page.evaluate(unnamed) == 0


def test_no_control_has_logged_anything(heard: Heard) -> None:
    assert heard.console == []
