"""Which tables of a report are still those that a batch has written, found without reading what cannot be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trajcheck.commands.batch import run_state
from trajcheck.commands.batch.run_state import Fingerprint, RunState, tables_of
from trajcheck.files.prints import FilePrints


def test_a_table_of_another_size_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sparse one of 64 GB took the night; one that was only touched is the same."""
    table, print_ = tmp_path / "steps.csv", Fingerprint("files", "options")
    table.write_text("step\n1\n")
    (tmp_path / "summary.json").write_text("{}")
    state = RunState("run", print_, {"status": "done"}, tables=tables_of(tmp_path, ["steps.csv"]))
    os.utime(table, (1, 1))
    assert state.holds(print_, tmp_path, FilePrints(deep=True))
    table.write_text("step\n2\n")
    assert not state.holds(print_, tmp_path, FilePrints(deep=True))
    os.truncate(table, 1 << 36)
    monkeypatch.setattr(run_state, "hash_file", lambda path: pytest.fail(f"{path} is read"))
    assert not state.holds(print_, tmp_path, FilePrints(deep=True))
