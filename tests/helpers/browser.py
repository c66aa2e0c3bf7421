"""A page in the system's headless Chromium, driven by Playwright, with what it logs and asks for."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

BINARY = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE = 90.0  # seconds

_ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)


@dataclass
class Heard:
    """What a page has logged, every error included, and the addresses that it has asked for."""

    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


def need_browser() -> None:
    """Skip a module where there is no Playwright, or no browser for it to drive."""
    pytest.importorskip("playwright", reason="needs Playwright: pip install 'trajcheck[test]'")
    if BINARY is None:
        pytest.skip("needs Chromium", allow_module_level=True)


@contextmanager
def open_page(**options: Any) -> Iterator[tuple[Page, Heard]]:
    """An empty page of 1400 x 900 in light colours; `options` as for Playwright's Browser.new_page."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BINARY, args=[*_ARGUMENTS])
        window = {"width": 1400, "height": 900}
        page = browser.new_page(**{"viewport": window, "color_scheme": "light", **options})
        page.set_default_timeout(1000 * PATIENCE)
        heard = Heard()
        page.on("console", lambda message: heard.console.append(message.text))
        page.on("pageerror", lambda error: heard.console.append(str(error)))
        page.on("request", lambda request: heard.requests.append(request.url))
        yield page, heard
        browser.close()


def wait_for(page: Page, expression: str) -> None:
    """Until a JavaScript expression holds. Playwright's own wait evaluates text in the page, which the page forbids."""
    until = time.monotonic() + PATIENCE
    while not page.evaluate(expression):
        assert time.monotonic() < until, expression
        page.wait_for_timeout(20)
