"""The documents hang together: links lead somewhere, also on the built pages; files that are named are there."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest
from documents import BESIDE, DOCS, README, code_words, headings, links, pages
from places import ROOT

#: What a path in the repository begins with.
PATH = re.compile(r"(?:trajcheck|tests|docs|benchmarks|sample_checkpoints|\.ci|\.github)/[\w./-]*")


def on_github(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def on_the_site(heading: str) -> str:
    """What mkdocs makes of it."""
    plain = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for line, target in links(page):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        there = page if not path else (page.parent / path).resolve()
        assert there.is_relative_to(ROOT) and there.exists(), f"{page.name}:{line}: {target}"
        if page.is_relative_to(DOCS):
            assert there.is_relative_to(DOCS), f"{page.name}:{line}: {target} is not on the site"
        if anchor:
            named = [heading for heading in headings(there) if on_github(heading) == anchor]
            assert len(named) == 1, f"{page.name}:{line}: {target}"
            assert on_the_site(named[0]) == anchor, f"{page.name}:{line}: {target} is another on the site"


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_are_there(page: Path) -> None:
    for word in code_words(page.read_text()):
        if PATH.fullmatch(word) and page.stem != "house":  # whose recipes name files that are to be made
            assert (ROOT / word).exists(), f"{page.name}: {word}"


def test_every_page_is_linked_from_the_readme() -> None:
    linked = {(README.parent / target.partition("#")[0]).resolve() for _, target in links(README)}
    every = {*DOCS.glob("*.md"), *(ROOT / name for name in BESIDE)} - {README, DOCS / "index.md"}
    assert every <= linked, [str(page) for page in every - linked]


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 150


def test_no_page_has_what_a_browser_takes_for_a_tag() -> None:
    """Outside of code, <g_t, e_t> would vanish from the built page: inner products are written ⟨g_t, e_t⟩."""
    for page in sorted(DOCS.glob("*.md")):
        text = re.sub(r"```.*?```|`[^`\n]*`|<!--.*?-->", "", page.read_text(), flags=re.DOTALL)
        assert not re.findall(r"<[A-Za-z/][^<>]*>", text), page
