"""The page in a real browser: no console error, no request, and every control does what it says."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("plotly")

import chromium
from saved_reports import analysis

from trajcheck.commands.report.one_report import draw_report

if chromium.BINARY is None:
    pytest.skip("needs Chromium", allow_module_level=True)

READY = "document.documentElement.dataset.ready === 'yes'"
NASTY = "</script><b>\"'&"
#: Names of the lines that the chart shows.
SHOWN = "[...new Set(document.getElementById('chart').data.map((trace) => trace.name))]"
STATUS = "document.getElementById('status').textContent"
AXIS = "document.getElementById('chart').layout.yaxis.type"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    folder = tmp_path_factory.mktemp("page")
    values = np.where(np.arange(80) % 10 == 3, np.nan, np.arange(80) - 5.0)
    analysis(folder / "report", ["final", NASTY], rows=80, samples=("own", "probe"), change={"cos": values})
    drawn = draw_report(folder / "report", ["png"])
    with chromium.Page(folder / "profile") as page:
        page.prefer("light")
        page.open(drawn.page, READY)
        yield page


def test_nothing_is_logged_and_nothing_is_requested(page: chromium.Page) -> None:
    assert page.console == []
    assert [url for url in page.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert len([url for url in page.requests if url.startswith("file:")]) == 1


def test_references_and_samples_are_toggled(page: chromium.Page) -> None:
    assert page.value(SHOWN) == [
        *("final, own", "final, probe"),
        *(f"{NASTY.replace('&', '&amp;').replace('<', '&lt;').replace('>', '&gt;')}, {s}" for s in ("own", "probe")),
    ]
    page.click("#references input")
    page.wait_for(f"{SHOWN}.length === 2")
    assert "final" not in page.value(STATUS).split(".", 1)[1]
    page.click("#samples label:nth-of-type(2) input")
    page.wait_for(f"{SHOWN}.length === 1")
    page.click("#references input")
    page.click("#samples label:nth-of-type(2) input")
    page.wait_for(f"{SHOWN}.length === 4")


def test_the_logarithmic_scale_says_what_it_cannot_show(page: chromium.Page) -> None:
    assert page.value(AXIS) == "linear"
    page.click("#log")
    page.wait_for(f"{AXIS} === 'log'")
    assert "Values at or below 0, not on the logarithmic scale: 20." in page.value(STATUS)
    page.click("#log")
    page.wait_for(f"{AXIS} === 'linear'")


def test_gaps_stay_gaps_and_are_counted(page: chromium.Page) -> None:
    assert "Empty cells, drawn as gaps: 32." in page.value(STATUS)
    assert page.value("document.getElementById('chart').data.every((trace) => trace.connectgaps === false)")


def test_another_quantity_a_range_and_the_table(page: chromium.Page) -> None:
    page.value(
        "(() => { const q = document.getElementById('quantity');"
        " q.value = [...q.options].find((option) => option.textContent.startsWith('loss:')).value;"
        " q.dispatchEvent(new Event('change', {bubbles: true})); })()"
    )
    page.wait_for(f"{STATUS}.startsWith('loss along step')")
    page.click("#values summary")
    page.wait_for("document.querySelectorAll('#cells tbody tr').length === 25")
    page.value(
        "for (const [id, value] of [['from', 10], ['to', 14]]) { const field = document.getElementById(id);"
        " field.value = value; field.dispatchEvent(new Event('change', {bubbles: true})); }"
    )
    page.wait_for("document.querySelectorAll('#cells tbody tr').length === 5")
    assert "own: 5 values" in page.value(STATUS)
    assert page.value("document.getElementById('chart').layout.xaxis.range") == [10, 14]
    page.click("#all")
    page.wait_for(f"{STATUS}.includes('own: 80 values')")


def test_light_and_dark(page: chromium.Page) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    chart = "document.getElementById('chart').layout.paper_bgcolor"
    assert page.value(background) == "rgb(255, 255, 255)"
    page.click("#theme")
    page.wait_for(f"{background} === 'rgb(22, 24, 27)' && {chart} === '#16181b'")
    assert page.value("document.getElementById('theme').getAttribute('aria-label')") == "Change to light colours"
    page.click("#theme")
    page.wait_for(f"{chart} === '#ffffff'")
    page.value("delete document.documentElement.dataset.theme")
    page.prefer("dark")
    page.wait_for(f"{chart} === '#16181b'")
    page.prefer("light")
    page.wait_for(f"{chart} === '#ffffff'")


@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_is_wider_than_the_window(page: chromium.Page, width: int) -> None:
    page.resize(width, 900)
    assert page.value("document.documentElement.scrollWidth") == width


def test_the_keyboard_reaches_every_control_and_one_sees_where_one_is(page: chromium.Page) -> None:
    page.value("document.activeElement.blur(); window.scrollTo(0, 0)")
    page.value("document.querySelector('.skip').focus()")
    seen = ["skip"]
    for _ in range(60):
        page.press("Tab")
        seen.append(page.value("document.activeElement.id || document.activeElement.tagName"))
        assert page.value("getComputedStyle(document.activeElement).outlineStyle") != "none", seen
        if seen[-1] == "marks":
            break
    assert [
        name for name in ("theme", "quantity", "along", "from", "to", "all", "log", "errors") if name not in seen
    ] == []


def test_on_paper_there_are_figures_and_no_controls(page: chromium.Page) -> None:
    page.prefer("dark", "print")
    assert page.value("getComputedStyle(document.getElementById('series')).display") == "none"
    assert page.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.value("getComputedStyle(document.querySelector('figure img')).filter") == "none"
    page.prefer("light")


def test_headings_landmarks_and_words_for_pictures(page: chromium.Page) -> None:
    levels = page.value("[...document.querySelectorAll('h1,h2,h3')].map((each) => Number(each.tagName[1]))")
    assert levels.count(1) == 1 and all(b - a <= 1 for a, b in pairwise(levels))
    assert page.value(
        "['header', 'nav', 'main', 'footer'].every((name) => document.querySelectorAll(name).length === 1)"
    )
    assert page.value("[...document.images].length") > 5
    page.value("Promise.all([...document.images].map((image) => { image.loading = 'eager'; return image.decode(); }))")
    assert page.value("[...document.images].every((image) => image.alt && image.naturalWidth)")
    unnamed = "[...document.querySelectorAll('input,select')].filter((each) => !each.labels.length).length"
    assert page.value(unnamed) == 0


def test_no_control_has_logged_anything(page: chromium.Page) -> None:
    assert page.console == []
