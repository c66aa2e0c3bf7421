"""index.html in a real browser: 1,000 runs, sorted by any column, filtered by words and status."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import chromium
import numpy as np
import pytest
from index_rows import NASTY, done, failed

from trajcheck.commands.batch.page import write_page

if chromium.BINARY is None:
    pytest.skip("needs Chromium", allow_module_level=True)

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
def page(folder: Path) -> Iterator[chromium.Page]:
    rows = [
        done(
            f"/archive/gpt2/lr-{'0.1' if i % 2 else '0.03'}/seed{i}",
            ("final", "init"),
            status=STATUSES[i],
            final__cosine=float(COSINES[i]) if i % 10 else None,
            duration=float(i),
        )
        for i in range(RUNS - FAILED)
    ]
    rows += [failed(f"/archive/{NASTY}{i}", f"{NASTY}: truncated at byte {9000 + i}") for i in range(FAILED)]
    write_page(folder, rows)
    with chromium.Page(folder / "profile") as page:
        page.prefer("light")
        page.open(folder / "index.html", READY)
        yield page


def type_words(page: chromium.Page, words: str) -> None:
    page.value("document.getElementById('words').focus(); document.getElementById('words').select()")
    page.call("Input.insertText", text=words)
    if not words:
        page.value(
            "(() => { const field = document.getElementById('words'); field.value = '';"
            " field.dispatchEvent(new Event('input', {bubbles: true})); })()"
        )


def test_nothing_is_logged_nothing_is_requested_and_no_name_has_run(page: chromium.Page) -> None:
    assert page.console == []
    assert [url.rpartition("/")[2] for url in page.requests] == ["index.html"]
    assert page.value("document.querySelectorAll('script, b[onclick]').length") == 2


def test_a_click_sorts_by_the_unrounded_values_and_a_second_turns_it(page: chromium.Page) -> None:
    page.click(head("cosine, towards final"))
    page.wait_for(f"{COUNT}.includes('sorted by cosine, towards final, ascending')")
    known = np.array([value if i % 10 else np.nan for i, value in enumerate(COSINES[: RUNS - FAILED])])
    order = [f"seed{i}" for i in np.argsort(known)[:200]]
    assert [name.rpartition("/")[2] for name in page.value(NAMES)] == order
    assert page.value("document.querySelectorAll('[aria-sort]').length") == 1
    page.click(head("cosine, towards final"))
    page.wait_for(f"{COUNT}.includes('descending')")
    order = [f"seed{i}" for i in np.argsort(-known)[:200]]
    assert [name.rpartition("/")[2] for name in page.value(NAMES)] == order
    assert page.value("document.querySelector('[aria-sort]').getAttribute('aria-sort')") == "descending"


def test_numbers_in_names_are_in_the_order_of_their_values(page: chromium.Page) -> None:
    type_words(page, "seed9")
    page.click(head("run"))
    page.wait_for(f"{COUNT}.includes('sorted by run, ascending')")
    names = page.value(NAMES)
    seeds = [9, *range(90, 100), *range(900, 1000)]
    order = [f"gpt2/lr-{lr}/seed{i}" for odd, lr in ((0, 0.03), (1, 0.1)) for i in seeds if i % 2 == odd]
    assert names == [name for name in order if int(name.rpartition("seed")[2]) < RUNS - FAILED]
    type_words(page, "")


def test_an_empty_cell_comes_last_either_way(page: chromium.Page) -> None:
    type_words(page, "truncated seed10")
    assert page.value(NAMES) == []
    type_words(page, "")
    page.click("#all")
    for _ in range(2):
        page.click(head("duration"))
        assert page.value(f"{column('duration')}.slice(-{FAILED})") == ["–"] * FAILED


def test_words_and_statuses_filter_and_are_counted_aloud(page: chromium.Page) -> None:
    assert page.value("document.getElementById('count').getAttribute('role')") == "status"
    type_words(page, "LR-0.1 seed99")
    page.wait_for(f"{COUNT}.startsWith('2 of 1,000 runs')")  # 99 and 991
    type_words(page, "")
    page.click('input[value="done"]')
    page.wait_for(f"{COUNT}.startsWith('{STATUSES[: RUNS - FAILED].count('gone') + FAILED} of 1,000')")
    page.click('input[value="gone"]')
    page.wait_for(f"{COUNT}.startsWith('{FAILED} of 1,000')")
    assert all("truncated at byte" in each for each in page.value(column("message")))
    type_words(page, "BYTE 9003")
    page.wait_for(f"{COUNT}.startsWith('1 of 1,000')")
    type_words(page, "")
    page.click('input[value="done"]')
    page.click('input[value="gone"]')
    page.wait_for(f"{COUNT}.startsWith('1,000 of 1,000')")


def test_columns_are_hidden(page: chromium.Page) -> None:
    seen = "getComputedStyle(document.querySelector('td.r1')).display"
    assert page.value(seen) == "table-cell"
    page.click('input[value="r1"]')
    page.click('input[value="message"]')
    assert page.value(seen) == "none"
    assert page.value(f"{left('th.group.r0')} === {left('td.r0')}")
    page.click('input[value="message"]')
    assert page.value("[...document.querySelectorAll('thead th.r1')].every((each) => !each.offsetWidth)")
    page.click('input[value="r1"]')
    assert page.value(seen) == "table-cell"


def test_a_thousand_runs_stay_fluent(page: chromium.Page, folder: Path) -> None:
    page.open(folder / "index.html", READY)
    assert page.value(f"{NAMES}.length") == 200
    spent = (
        "(async (act) => { const start = performance.now(); act(); document.body.offsetHeight; await new Promise("
        "(drawn) => requestAnimationFrame(() => setTimeout(drawn))); return performance.now() - start; })"
    )
    for label in ("run", "cosine, towards init", "analyzed"):
        assert page.value(f"{spent}(() => document.querySelector({json.dumps(head(label))}).click())") < FLUENT
    act = (
        "const field = document.getElementById('words'); field.value = 'seed7'; field.dispatchEvent(new Event('input'))"
    )
    assert page.value(f"{spent}(() => {{ {act} }})") < FLUENT
    type_words(page, "")
    assert page.value(f"{NAMES}.length") == 200
    page.click("#all")
    assert page.value(f"{NAMES}.length") == RUNS
    assert page.value("document.activeElement.id") == "runs"


def test_the_keyboard_sorts_and_one_sees_where_one_is(page: chromium.Page) -> None:
    page.value("document.activeElement.blur(); window.scrollTo(0, 0); document.querySelector('.skip').focus()")
    seen = []
    for _ in range(40):
        page.press("Tab")
        here = "document.activeElement"
        seen.append(page.value(f"{here}.getAttribute('aria-label') || {here}.id || {here}.value || {here}.tagName"))
        assert page.value(f"getComputedStyle({here}).outlineStyle") != "none", seen
        if seen[-1] == "duration":
            break
    names = (
        "words",
        "done",
        "gone",
        "failed",
        "message",
        "r0",
        "Table of the runs",
        "run",
        "status",
        "ratio, towards init",
    )
    assert [name for name in names if name not in seen] == []
    page.press(" ")
    page.wait_for(f"{COUNT}.includes('sorted by duration, ascending')")


def test_light_and_dark(page: chromium.Page) -> None:
    background = "getComputedStyle(document.querySelector('tbody td')).backgroundColor"
    assert page.value(background) == "rgb(255, 255, 255)"
    page.click("#theme")
    assert page.value(background) == "rgb(22, 24, 27)"
    assert page.value("document.getElementById('theme').getAttribute('aria-label')") == "Change to light colours"
    page.value("delete document.documentElement.dataset.theme")
    page.prefer("dark")
    page.wait_for(f"{background} === 'rgb(22, 24, 27)'")
    page.prefer("light")
    page.wait_for(f"{background} === 'rgb(255, 255, 255)'")


@pytest.mark.parametrize("width", [360, 1400])
def test_the_page_is_not_wider_than_the_window_and_the_table_scrolls(page: chromium.Page, width: int) -> None:
    page.resize(width, 900)
    assert page.value("document.documentElement.scrollWidth") == width
    assert page.value("(() => { const e = document.getElementById('runs'); return e.scrollWidth > e.clientWidth; })()")
    page.resize(1400, 900)


def test_on_paper_there_are_all_runs_and_no_controls(page: chromium.Page, folder: Path) -> None:
    page.open(folder / "index.html", READY)
    assert page.value(f"{NAMES}.length") == 200
    page.prefer("dark", "print")
    page.value("dispatchEvent(new Event('beforeprint'))")
    assert page.value(f"{NAMES}.length") == RUNS
    assert page.value(COUNT) == "1,000 of 1,000 runs."
    assert page.value("getComputedStyle(document.getElementById('filter')).display") == "none"
    assert page.value("getComputedStyle(document.querySelector('tbody td')).backgroundColor") == "rgb(255, 255, 255)"
    page.value("dispatchEvent(new Event('afterprint'))")
    assert page.value(f"{NAMES}.length") == 200
    page.prefer("light")


def test_without_scripts_the_whole_table_is_there(page: chromium.Page, tmp_path: Path) -> None:
    write_page(tmp_path, [done(f"/runs/{i}") for i in range(300)])
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    page.call("Page.navigate", url=(tmp_path / "index.html").as_uri())
    page.wait_for("document.readyState === 'complete' && document.querySelectorAll('tbody tr').length === 300")
    assert page.value("document.querySelectorAll('tbody tr[hidden]').length") == 0
    assert page.value("getComputedStyle(document.getElementById('filter')).display") == "none"
    page.call("Emulation.setScriptExecutionDisabled", value=False)


def test_no_control_has_logged_anything(page: chromium.Page) -> None:
    assert page.console == []
