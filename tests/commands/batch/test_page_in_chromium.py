"""index.html in a real browser: 1,000 runs, sorted by any column, filtered by words, status, reference and sample."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from browser import Heard, need_browser, open_page, wait_for
from index_rows import NASTY, done, failed

from trajcheck.commands.batch.page import write_page

if TYPE_CHECKING:
    from playwright.sync_api import Page

need_browser()
READY = "document.documentElement.dataset.ready === 'yes'"
COUNT = "document.getElementById('count').textContent"
#: The runs that are shown, in order.
NAMES = "[...document.querySelectorAll('tbody tr:not([hidden]) th')].map((each) => each.textContent)"
RUNS, FAILED = 1000, 7
#: Milliseconds that a control may take on a busy machine.
FLUENT = 1500

COSINES = np.random.default_rng(0).normal(size=RUNS)
STATUSES = ["gone" if i % 100 == 1 else "done" for i in range(RUNS)]


def left(selector: str) -> str:
    return f"document.querySelector('{selector}').getBoundingClientRect().left"


def head(label: str) -> str:
    return f'thead button[aria-label="{label}"]'


def column(label: str) -> str:
    """The cells of a column in the rows that are shown."""
    place = f"document.querySelector({json.dumps(head(label))}).dataset.place"
    return f"[...document.querySelectorAll('tbody tr:not([hidden])')].map((row) => row.cells[{place}].textContent)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("index")


@pytest.fixture(scope="module")
def opened(folder: Path) -> Iterator[tuple[Page, Heard]]:
    rows = [
        done(
            f"/archive/gpt2/lr-{'0.1' if i % 2 else '0.03'}/seed{i}",
            ("final",),
            status=STATUSES[i],
            q__cosine=float(COSINES[i]) if i % 10 else None,
            duration=float(i),
        )
        for i in range(RUNS - FAILED)
    ]
    for row in rows:
        del row["rows"][1:]  # x_(t-1): one row a run, but for the first
    rows[0] = done("/archive/gpt2/lr-0.03/seed0", status=STATUSES[0], q__cosine=None, duration=0.0)
    rows += [failed(f"/archive/{NASTY}{i}", f"{NASTY}: truncated at byte {9000 + i}") for i in range(FAILED)]
    write_page(folder, rows)
    with open_page() as (page, heard):
        show(page, folder)
        yield page, heard


@pytest.fixture
def page(opened: tuple[Page, Heard]) -> Page:
    return opened[0]


@pytest.fixture
def heard(opened: tuple[Page, Heard]) -> Heard:
    return opened[1]


def show(page: Page, folder: Path) -> None:
    page.goto((folder / "index.html").as_uri())
    wait_for(page, READY)


def test_nothing_is_logged_nothing_is_requested_and_no_name_has_run(page: Page, heard: Heard) -> None:
    assert heard.console == []
    assert [url.rpartition("/")[2] for url in heard.requests] == ["index.html"]
    assert page.evaluate("document.querySelectorAll('script, b[onclick]').length") == 2


def test_a_click_sorts_by_the_unrounded_values_and_a_second_turns_it(page: Page) -> None:
    page.click(head("cosine"))
    wait_for(page, f"{COUNT}.includes('sorted by cosine, ascending')")
    known = np.array([value if i % 10 else np.nan for i, value in enumerate(COSINES[: RUNS - FAILED])])
    order = [f"seed{i}" for i in np.argsort(known)[:200]]
    assert [name.rpartition("/")[2] for name in page.evaluate(NAMES)] == order
    assert page.evaluate("document.querySelectorAll('[aria-sort]').length") == 1
    page.click(head("cosine"))
    wait_for(page, f"{COUNT}.includes('descending')")
    order = [f"seed{i}" for i in np.argsort(-known)[:200]]
    assert [name.rpartition("/")[2] for name in page.evaluate(NAMES)] == order
    assert page.evaluate("document.querySelector('[aria-sort]').getAttribute('aria-sort')") == "descending"


def test_numbers_in_names_are_in_the_order_of_their_values(page: Page) -> None:
    page.fill("#words", "seed9")
    page.click(head("run"))
    wait_for(page, f"{COUNT}.includes('sorted by run, ascending')")
    names = page.evaluate(NAMES)
    seeds = [9, *range(90, 100), *range(900, 1000)]
    order = [f"gpt2/lr-{lr}/seed{i}" for odd, lr in ((0, 0.03), (1, 0.1)) for i in seeds if i % 2 == odd]
    assert names == [name for name in order if int(name.rpartition("seed")[2]) < RUNS - FAILED]
    page.fill("#words", "")


def test_an_empty_cell_comes_last_either_way(page: Page) -> None:
    page.fill("#words", "truncated seed10")
    assert page.evaluate(NAMES) == []
    page.fill("#words", "")
    page.click("#all")
    page.click('input[value="about"]')
    for _ in range(2):
        page.click(head("duration"))
        assert page.evaluate(f"{column('duration')}.slice(-{FAILED})") == ["–"] * FAILED
    page.click('input[value="about"]')


def test_words_and_statuses_filter_and_are_counted_aloud(page: Page) -> None:
    assert page.evaluate("document.getElementById('count').getAttribute('role')") == "status"
    page.fill("#words", "LR-0.1 seed99")
    wait_for(page, f"{COUNT}.startsWith('2 of 1,001 rows')")  # 99 and 991
    page.fill("#words", "")
    page.click('input[value="done"]')
    wait_for(page, f"{COUNT}.startsWith('{STATUSES[: RUNS - FAILED].count('gone') + FAILED} of 1,001')")
    page.click('input[value="gone"]')
    wait_for(page, f"{COUNT}.startsWith('{FAILED} of 1,001')")
    assert all("truncated at byte" in each for each in page.evaluate(column("message")))
    page.fill("#words", "BYTE 9003")
    wait_for(page, f"{COUNT}.startsWith('1 of 1,001')")
    page.fill("#words", "")
    page.click('input[value="done"]')
    page.click('input[value="gone"]')
    wait_for(page, f"{COUNT}.startsWith('1,001 of 1,001')")


def test_a_reference_is_chosen_and_runs_that_failed_stay(page: Page) -> None:
    page.select_option("#ref", "x_(t-1)")
    wait_for(page, f"{COUNT}.startsWith('{1 + FAILED} of 1,001')")
    assert page.evaluate(f"{column('ref')}.filter((word) => word)") == ["x_(t-1)"]
    page.select_option("#ref", "")
    wait_for(page, f"{COUNT}.startsWith('1,001 of 1,001')")
    assert page.evaluate("document.getElementById('sample')") is None  # there is one alone


def test_columns_are_shown_and_hidden(page: Page) -> None:
    seen = "getComputedStyle(document.querySelector('td.{}')).display"
    assert page.evaluate(seen.format("headline")) == "table-cell"
    assert page.evaluate(seen.format("sums")) == page.evaluate(seen.format("about")) == "none"
    page.click('input[value="sums"]')
    page.click('input[value="message"]')
    assert page.evaluate(seen.format("sums")) == "table-cell"
    assert page.evaluate(f"{left('th.group.sums')} === {left('td.sums')}")
    page.click('input[value="message"]')
    page.click('input[value="sums"]')
    assert page.evaluate("[...document.querySelectorAll('thead th.sums')].every((each) => !each.offsetWidth)")
    page.click('input[value="about"]')
    assert page.evaluate(seen.format("about")) == "table-cell"


def test_a_thousand_runs_stay_fluent(page: Page, folder: Path) -> None:
    show(page, folder)
    assert page.evaluate(f"{NAMES}.length") == 200
    spent = (
        "(async (act) => { const start = performance.now(); act(); document.body.offsetHeight; await new Promise("
        "(drawn) => requestAnimationFrame(() => setTimeout(drawn))); return performance.now() - start; })"
    )
    for label in ("run", "cosine", "analyzed"):
        assert page.evaluate(f"{spent}(() => document.querySelector({json.dumps(head(label))}).click())") < FLUENT
    act = (
        "const field = document.getElementById('words'); field.value = 'seed7'; field.dispatchEvent(new Event('input'))"
    )
    assert page.evaluate(f"{spent}(() => {{ {act} }})") < FLUENT
    page.fill("#words", "")
    assert page.evaluate(f"{NAMES}.length") == 200
    page.click("#all")
    assert page.evaluate(f"{NAMES}.length") == RUNS + 1
    assert page.evaluate("document.activeElement.id") == "runs"


def test_the_keyboard_sorts_and_one_sees_where_one_is(page: Page, folder: Path) -> None:
    show(page, folder)
    page.click('input[value="about"]')
    page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0); document.querySelector('.skip').focus()")
    seen = []
    for _ in range(40):
        page.keyboard.press("Tab")
        here = "document.activeElement"
        seen.append(page.evaluate(f"{here}.getAttribute('aria-label') || {here}.id || {here}.value || {here}.tagName"))
        assert page.evaluate(f"getComputedStyle({here}).outlineStyle") != "none", seen
        if seen[-1] == "duration":
            break
    names = (
        "words",
        "done",
        "gone",
        "failed",
        "ref",
        "message",
        "headline",
        "Table of the rows",
        "run",
        "status",
        "ratio",
    )
    assert [name for name in names if name not in seen] == []
    page.keyboard.press("Space")
    wait_for(page, f"{COUNT}.includes('sorted by duration, ascending')")


def test_light_and_dark(page: Page) -> None:
    page.mouse.move(0, 0)
    background = "getComputedStyle(document.querySelector('tbody td')).backgroundColor"
    assert page.evaluate(background) == "rgb(255, 255, 255)"
    page.click("#theme")
    assert page.evaluate(background) == "rgb(22, 24, 27)"
    assert page.evaluate("document.getElementById('theme').getAttribute('aria-label')") == "Change to light colours"
    page.evaluate("delete document.documentElement.dataset.theme")
    page.emulate_media(color_scheme="dark")
    wait_for(page, f"{background} === 'rgb(22, 24, 27)'")
    page.emulate_media(media="screen", color_scheme="light")
    wait_for(page, f"{background} === 'rgb(255, 255, 255)'")


@pytest.mark.parametrize("width", [360, 1400])
def test_the_page_is_not_wider_than_the_window_and_the_table_scrolls(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(
        "(() => { const e = document.getElementById('runs'); return e.scrollWidth > e.clientWidth; })()"
    )
    page.set_viewport_size({"width": 1400, "height": 900})


def test_on_paper_there_are_all_runs_and_no_controls(page: Page, folder: Path) -> None:
    show(page, folder)
    assert page.evaluate(f"{NAMES}.length") == 200
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(f"{NAMES}.length") == RUNS + 1
    assert page.evaluate(COUNT) == "1,001 of 1,001 rows."
    assert page.evaluate("getComputedStyle(document.getElementById('filter')).display") == "none"
    assert page.evaluate("getComputedStyle(document.querySelector('tbody td')).backgroundColor") == "rgb(255, 255, 255)"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(f"{NAMES}.length") == 200
    page.emulate_media(media="screen", color_scheme="light")


def test_without_scripts_the_whole_table_is_there(page: Page, tmp_path: Path) -> None:
    write_page(tmp_path, [done(f"/runs/{i}") for i in range(300)])
    assert page.context.browser is not None
    silent = page.context.browser.new_page(java_script_enabled=False)
    silent.goto((tmp_path / "index.html").as_uri())
    rows = silent.locator("tbody tr")
    assert rows.count() == 600 and all(row.is_visible() for row in (rows.first, rows.last))
    assert silent.locator("tbody tr[hidden]").count() == 0
    assert silent.locator("#filter").is_hidden()
    silent.context.close()


def test_no_control_has_logged_anything(heard: Heard) -> None:
    assert heard.console == []
