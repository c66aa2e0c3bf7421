"""README.md, docs/ and the other documents: every command that they show runs, and prints what they say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from documents import NOTES, Block, blocks, pages
from plain_run_files import Outcome
from running_pages import PICTURES, PYTHON, SESSION, SHELL, Page, before, commands, goes_on, is_run

pytestmark = pytest.mark.usefixtures("two_precisions")

EVERY = [block for page in pages() for block in blocks(page)]

#: Why a block cannot run in a test. Each has a test of its own of what can be tested of it.
NOT_RUN = {
    "docs/archives.md": 1,
    "CONTRIBUTING.md": 2,  # a virtual environment, the gate
    "docs/batch.md": 4,  # cron, Slurm twice, Kubernetes
    "docs/figures.md": 1,  # an account of Weights & Biases
    "docs/objectives.md": 1,  # an archive of transformers: tests/integrations/test_hf.py
}


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set", "ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*`isinstance.treespec, LeafSpec.` is deprecated")
@pytest.mark.parametrize("last", [block for block in EVERY if is_run(block) and not goes_on(block)], ids=str)
def test_what_is_shown_runs(
    last: Block, cli: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block, or all of a session, in their order."""
    chain = [*before(last), last]
    for name in ("transformers", "lightning"):
        if any(f"import {name}" in each.text or f"from {name}" in each.text for each in chain):
            pytest.importorskip(name)
    if any("trajcheck report" in each.text for each in chain):
        pytest.importorskip("matplotlib")
        pytest.importorskip("plotly")
    if any("--tensorboard" in each.text for each in chain):
        pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    page = Page(last.page, tmp_path, cli, monkeypatch)
    for each in chain:
        page.run(each)


def test_few_blocks_are_not_run() -> None:
    """Those that need what a test does not have, each with its reason."""
    found: dict[str, int] = {}
    for block in EVERY:
        if reason := block.notes.get("not run"):
            assert len(reason.split()) >= 3, f"{block}: {reason}"
            page = str(block).partition(":")[0]
            found[page] = found.get(page, 0) + 1
    assert found == NOT_RUN


def test_no_command_hides_in_a_block_that_is_not_run() -> None:
    for block in EVERY:
        assert block.language in (*SHELL, SESSION, PYTHON, *PICTURES), f"{block}: {block.language!r}"
        assert block.notes.keys() <= set(NOTES), f"{block}: {[*block.notes]}"
        if block.language in PICTURES and not block.notes:
            assert not any(line.startswith(("$ ", "trajcheck ", "pip ")) for line in block.text.splitlines()), block


def test_every_file_that_is_shown_is_used() -> None:
    for block in EVERY:
        if name := block.notes.get("file"):
            users = [each for each in blocks(block.page) if is_run(each) and name in each.text]
            assert users, f"{block}: no block runs {name}"


def test_commands_are_cut_as_a_shell_does() -> None:
    shown = "pip install '.[test]' && trajcheck analyze a \\\n  --ref 'mean:4'  # both\n"
    assert list(commands(shown)) == [["pip", "install", ".[test]"], ["trajcheck", "analyze", "a", "--ref", "mean:4"]]
