"""CITATION.cff and CHANGELOG.md: the version and its date, and every paper that the pages name."""

from __future__ import annotations

import re

import pytest
from documents import DOCS
from places import ROOT

from trajcheck.metrics.assumptions.catalogue import assumptions
from trajcheck.metrics.catalogue import TABLES, quantities
from trajcheck.version import __version__

PAPER = re.compile(r"(?<![\d.])\d{4}\.\d{5}(?!\d)")  # arXiv's numbers, and no part of a DOI
TEXT = (ROOT / "CITATION.cff").read_text()


def test_the_version_and_its_date_are_those_of_the_changelog() -> None:
    yaml = pytest.importorskip("yaml")
    about = yaml.safe_load(TEXT)
    (first, *_) = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first == f"{about['version']} ({about['date-released']})"
    assert about["version"] == __version__
    for paper in about["references"]:
        assert {"type", "title", "authors", "year", "url"} <= paper.keys()
        assert all({"family-names", "given-names"} <= author.keys() for author in paper["authors"])


def test_every_paper_that_is_named_is_cited() -> None:
    cited = set(PAPER.findall(TEXT))
    pages = [page.read_text() for page in DOCS.glob("*.md") if page.stem != "house"]
    sources = [each.source for table in TABLES for each in quantities(table).values()]
    sources += [each.source for each in assumptions().values()]
    named = {number for text in (*pages, *sources) for number in PAPER.findall(text)}
    assert named == cited
