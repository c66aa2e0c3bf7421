"""The documents as text: pages, their fenced blocks, their headings and links.

What a test has to know of a block beyond its language stands in a comment before it, which no reader sees:

    <!-- file: NAME -->      the block is a file of this name, which the page's other blocks find where they run
    <!-- session: NAME -->   it goes on where the page's blocks of this name before it ended, in their folder
    <!-- example: NAME -->   what it shows is not there: a test of its own tries it, as if it were
    <!-- not run: WHY -->    it cannot run in a test
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from places import ROOT

README, DOCS = ROOT / "README.md", ROOT / "docs"
BESIDE = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "sample_checkpoints/README.md", "benchmarks/README.md")
NOTES = ("file", "session", "example", "not run")

_FENCE = re.compile(r"^```(\S*)\s*$")
_NOTE = re.compile(r"^<!-- ([a-z ]+): (.*) -->$")
_LINK = re.compile(r"(?<!\\)\[(?:[^\[\]]|\[[^\[\]]*\])*\]\(([^()\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block; `line` is that of its fence."""

    page: Path
    line: int
    language: str
    text: str
    notes: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """All documents of the repository."""
    return [*(ROOT / name for name in BESIDE), *sorted(DOCS.rglob("*.md"))]


@cache
def blocks(page: Path) -> tuple[Block, ...]:
    """The fenced blocks of a page, in order. Raises ValueError for a fence that is not closed."""
    lines = page.read_text().splitlines()
    found, place = [], 0
    while place < len(lines):
        if opening := _FENCE.match(lines[place]):
            end = next((k for k in range(place + 1, len(lines)) if lines[k] == "```"), None)
            if end is None:
                raise ValueError(f"{page}:{place + 1}: this block does not end")
            text = "".join(f"{line}\n" for line in lines[place + 1 : end])
            found.append(Block(page, place + 1, opening[1], text, _notes(lines, place)))
            place = end
        place += 1
    return tuple(found)


def _notes(lines: list[str], place: int) -> dict[str, str]:
    notes = {}
    while place and (note := _NOTE.match(lines[place - 1])):
        notes[note[1]] = note[2]
        place -= 1
    return notes


def fenced(page: Path, language: str) -> list[Block]:
    return [block for block in blocks(page) if block.language == language]


def section(page: Path, heading: str) -> str:
    """What stands under a heading `## ...` of a page."""
    _, found, rest = page.read_text().partition(f"\n## {heading}\n")
    if not found:
        raise ValueError(f"{page}: no section {heading!r}")
    return rest.partition("\n## ")[0]


def prose(page: Path) -> str:
    """The page without its fenced blocks, line for line."""
    inside, kept = False, []
    for line in page.read_text().splitlines():
        fence = line.startswith("```")
        kept.append("" if inside or fence else line)
        inside ^= fence
    return "\n".join(kept)


def links(page: Path) -> Iterator[tuple[int, str]]:
    """Line and target of every link and picture."""
    for number, line in enumerate(_whole_links(prose(page)).splitlines(), 1):
        for match in _LINK.finditer(re.sub(r"`[^`]*`", "", line)):
            yield number, match[1]


def _whole_links(text: str) -> str:
    """A link whose text runs over two lines, on its first."""
    return re.sub(r"\[([^\[\]`]*)\n([^\[\]`]*)\]\(", r"[\1 \2](", text)


def headings(page: Path) -> list[str]:
    """The texts of a page's headings, without marks."""
    found = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return [re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", text) for text in found]


def code_words(text: str) -> list[str]:
    """What stands in backquotes."""
    return re.findall(r"`([^`\n]+)`", text)
