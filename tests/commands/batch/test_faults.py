"""benchmarks/faults: a batch disturbed at random moments, a few times in each way, loses nothing and gets nothing
wrong; the harness itself sees what is lost or wrong."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.faults.batch import Result, differences, run_trials
from benchmarks.faults.batch_faults import FAULTS

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
def test_a_disturbed_batch_loses_nothing(tmp_path: Path) -> None:
    faults = [name for name, fault in FAULTS.items() if not fault.ray]
    rows = run_trials(tmp_path, len(faults), seed=1, faults=faults, runs=4, share=0.0)
    assert [fault for row in rows for fault in row.faults] == []
    assert sum(row.trials for row in rows) == len(faults)


ROW = {"run": "/r", "status": "done", "report": "r", "message": "", "analyzed": "now", "duration": "1"}
WHOLE = Result(0, {"/r": ROW}, {"r/steps.csv": b"1"})
FAILED = Result(4, {"/r": {**ROW, "status": "failed", "message": "m", "report": ""}}, {})


@pytest.mark.parametrize(
    ("found", "expected", "wrong"),
    [
        (WHOLE, WHOLE, 0),
        (Result(0, {"/r": {**ROW, "analyzed": "then", "duration": "2"}}, WHOLE.tables), WHOLE, 0),
        (Result(4, WHOLE.rows, WHOLE.tables), WHOLE, 1),
        (Result(0, {}, WHOLE.tables), WHOLE, 1),
        (Result(0, {"/r": {**ROW, "message": "x"}}, WHOLE.tables), WHOLE, 1),
        (Result(0, WHOLE.rows, {}), WHOLE, 1),
        (Result(0, WHOLE.rows, {"r/steps.csv": b"2"}), WHOLE, 1),
        (Result(0, WHOLE.rows, {**WHOLE.tables, "s/steps.csv": b"2"}), WHOLE, 1),
        (Result(0, {**WHOLE.rows, "/s": {**ROW, "status": "gone"}}, WHOLE.tables), WHOLE, 0),
        (Result(0, {**WHOLE.rows, "/s": ROW}, WHOLE.tables), WHOLE, 1),
        (FAILED, FAILED, 0),
        (Result(4, {"/r": {**FAILED.rows["/r"], "report": "r"}}, WHOLE.tables), FAILED, 0),
        (Result(4, FAILED.rows, {"r/steps.csv": b"2"}), FAILED, 1),
        (WHOLE, FAILED, 3),
    ],
)
def test_what_counts_as_lost_or_wrong(found: Result, expected: Result, wrong: int) -> None:
    assert len(differences(found, expected, WHOLE)) == wrong
