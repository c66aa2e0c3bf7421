"""docs/ as a site: mkdocs builds it without a warning, with every page in its contents."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from documents import DOCS, blocks, prose
from places import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    # Not --quiet, under which it counts no warnings.
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_built_and_in_the_contents(site: Path) -> None:
    contents = (site / "index.html").read_text()
    for page in sorted(DOCS.glob("*.md")):
        built = site / "index.html" if page.stem == "index" else site / page.stem / "index.html"
        assert built.is_file(), page
        assert page.stem == "index" or f'href="{page.stem}/"' in contents, page


def test_tables_and_blocks_come_out_whole(site: Path) -> None:
    for page in sorted(DOCS.glob("*.md")):
        html = (site / ("" if page.stem == "index" else page.stem) / "index.html").read_text()
        tables = len(re.findall(r"^\|(?: ?:?-+:? ?\|)+$", prose(page), re.MULTILINE))
        assert html.count("<table>") == tables, page
        assert html.count("<pre><code") == len(blocks(page)), page
        words = re.sub(r"<code.*?</code>", "", html, flags=re.DOTALL)
        assert not re.search(r"\\[|*_]|```|\*\*\w", words), page


def test_pages_need_no_network(site: Path) -> None:
    for path in site.rglob("*.html"):
        assert not re.search(r'(?:src|href)="(?:https?:)?//[^"]*\.(?:js|css|woff2?)', path.read_text()), path
