"""Running what the documents show: the commands of a shell, sessions with their output, Python."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from difflib import unified_diff
from pathlib import Path
from typing import Any

import pytest
from documents import Block, blocks
from forked_ranks import on_ranks
from places import ROOT
from plain_run_files import Outcome

from trajcheck.commands.batch import command as batch
from trajcheck.runners.local import LocalRunner

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NUMBER = re.compile(r"(?<![\w.-])-?\d[\d,]*\.?\d*(?:e-?\d+)?")
SHELL, SESSION, PYTHON = ("sh", "bash"), "console", "python"
#: Blocks that are there to be looked at. Commands in them would be missed, so there are none.
PICTURES = ("text", "json", "toml", "yaml")


def same_but_for_rounding(shown: str, got: str) -> None:
    """The words are equal; numbers agree to the last digit shown, give or take what another processor rounds."""
    difference = "\n".join(unified_diff(shown.splitlines(), got.splitlines(), "shown", "printed", lineterm=""))
    assert NUMBER.sub("#", shown).split() == NUMBER.sub("#", got).split(), difference
    for a, b in zip(NUMBER.findall(shown), NUMBER.findall(got), strict=True):
        x, y = float(a.replace(",", "")), float(b.replace(",", ""))
        assert x == pytest.approx(y, rel=0.02, abs=1.01 if "." not in a else 0), difference


def is_run(block: Block) -> bool:
    """Whether a block is run by itself; a file is run by the blocks that name it."""
    runs = block.language in (*SHELL, SESSION, PYTHON)
    return runs and not block.notes.keys() & {"not run", "file", "example"}


def before(block: Block) -> list[Block]:
    """The blocks of a session that come before one."""
    name = block.notes.get("session")
    earlier = [each for each in blocks(block.page) if each.line < block.line and name]
    return [each for each in earlier if each.notes.get("session") == name]


def goes_on(block: Block) -> bool:
    """Whether a later block of its session is run, and this one before it."""
    return any(block in before(each) for each in blocks(block.page) if is_run(each))


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command of a shell's lines."""
    for line in text.replace("\\\n", " ").splitlines():
        words: list[str] = []
        for word in shlex.split(line, comments=True):
            if word == "&&":
                yield words
                words = []
            else:
                words.append(word)
        if words:
            yield words


def session(text: str) -> Iterator[tuple[str, str]]:
    """Each command of a session and what it is shown to print."""
    _, *parts = re.split(r"^\$ ", text, flags=re.MULTILINE)
    for part in parts:
        command, _, shown = part.partition("\n")
        yield command, shown


#: What analyses wrote that several pages begin with, by what was asked.
_REPORTS: dict[tuple[str, ...], Path] = {}


def _asked(arguments: Sequence[str]) -> tuple[str, ...]:
    """Of an analysis that prints nothing and says last where its report goes; else ()."""
    match arguments:
        case ["analyze", *asked, "--quiet", "--out", _]:
            return tuple(asked)
    return ()


class Page:
    """Runs the blocks of a page in the working folder, which holds the sample runs and the page's files."""

    def __init__(self, page: Path, folder: Path, cli: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder, self._cli, self._monkeypatch = folder, cli, monkeypatch
        self._names: dict[str, Any] = {"__name__": "page"}
        (folder / "sample_checkpoints").symlink_to(ROOT / "sample_checkpoints")
        for block in blocks(page):
            if name := block.notes.get("file"):
                (folder / name).write_text(block.text)

    def run(self, block: Block) -> None:
        if block.language == PYTHON:
            exec(compile(block.text, str(block), "exec"), self._names)
        elif block.language == SESSION:
            for command, shown in session(block.text):
                (words,) = commands(command)
                outcome = self._command(words)
                assert outcome is not None, f"{words[0]} has no output to compare"
                same_but_for_rounding(shown, outcome.out)
                if "--format" not in words:
                    assert all(len(line) <= 80 for line in outcome.out.splitlines())
        else:
            for words in commands(block.text):
                self._command(words)

    def _command(self, words: Sequence[str]) -> Outcome | None:
        match words:
            case ["trajcheck", *arguments]:
                if "batch" in arguments:  # which says nothing where no terminal is; workers have tests of their own
                    self._monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
                    self._monkeypatch.setattr(batch, "make_runner", lambda *_, **__: LocalRunner())
                if kept := _REPORTS.get(_asked(arguments)):
                    shutil.copytree(kept, arguments[-1])
                    return Outcome(0, "", "")
                outcome = self._cli(*arguments)
                assert outcome.code == 0, outcome
                if asked := _asked(arguments):
                    _REPORTS[asked] = shutil.copytree(arguments[-1], self._folder / f".report-{len(_REPORTS)}")
                return outcome
            case ["pip", "install", *wanted]:
                check_extras(wanted)
            case ["pytest", *arguments]:
                check_tests(arguments)
            case ["python", script] if script.startswith("docs/"):
                compile((ROOT / script).read_text(), script, "exec")  # it writes into docs/; test_columns_page runs it
            case ["torchrun", "--nproc-per-node", ranks, script]:
                on_ranks(Path(script).read_text(), int(ranks))
            case _:
                raise ValueError(f"no test runs {words[0]!r}")
        return None


def check_extras(wanted: Sequence[str]) -> None:
    """What pip is told to install of the project is there; the gate installs it."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    own = [match for each in wanted if (match := re.fullmatch(r"(?:\.|trajcheck)(?:\[(.*)\])?", each))]
    assert own
    for match in own:
        assert set((match[1] or "").split(",")) - {""} <= extras.keys()


def check_tests(arguments: Sequence[str]) -> None:
    """What pytest is told to run is there."""
    for option, each in zip(("", *arguments), arguments, strict=False):
        if not (option in ("-k", "-n", "-m") or each.startswith("-")):
            assert (ROOT / each.partition("::")[0]).exists(), each
