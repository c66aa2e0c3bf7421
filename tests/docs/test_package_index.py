"""README.md on a package index: every link leads to the repository, and nothing else is changed."""

from __future__ import annotations

import importlib.util
import re

from documents import README, blocks, links
from places import ROOT

REPOSITORY = "https://github.com/owner/name"


def absolute(text: str) -> str:
    found = importlib.util.spec_from_file_location("absolute_links", ROOT / ".ci" / "absolute_links.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    changed: str = module.absolute(text, REPOSITORY, "v1")
    return changed


def test_every_link_leads_to_the_repository() -> None:
    before = README.read_text()
    text = absolute(before)
    targets = [target for _, target in links(README)]
    relative = [target for target in targets if not target.startswith("https://")]
    assert len(relative) > 20
    assert text.count(f"]({REPOSITORY}/") == len(relative)
    assert f"]({REPOSITORY}/raw/v1/docs/pictures/digits-cosine.png)" in text
    assert f"]({REPOSITORY}/blob/v1/docs/analyze.md)" in text
    assert re.sub(rf"{REPOSITORY}/(?:raw|blob)/v1/", "", text) == before
    assert all(block.text in text for block in blocks(README))


def test_what_is_no_relative_link_stays() -> None:
    text = "[a](https://b.c) [d](#e)\n```\n[h](i)\n```\n"
    assert absolute(text) == text


def test_a_release_has_such_links() -> None:
    """In every distribution that is built, before it is."""
    jobs = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    built = [jobs.index("cibuildwheel=="), jobs.index("build --sdist")]
    changed = [match.start() for match in re.finditer(re.escape(".ci/absolute_links.py"), jobs)]
    assert len(changed) == 2 and all(before < after for before, after in zip(changed, built, strict=True))
