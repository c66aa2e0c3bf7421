"""benchmarks/faults: a batch that is killed, or whose archive is damaged, loses nothing and gets nothing wrong; the
harness itself sees what is lost or wrong."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.faults.batch import Result, differences, run_trials

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


#: One that strikes the call and one that strikes the archive; once a week `python -m benchmarks.faults batch` has all.
HERE = ("SIGKILL", "bit flipped in a header")


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
def test_a_disturbed_batch_loses_nothing(tmp_path: Path) -> None:
    rows = run_trials(tmp_path, len(HERE), seed=1, faults=HERE, runs=4, share=0.0)
    assert [fault for row in rows for fault in row.faults] == []
    assert [row.trials for row in rows] == [1, 1]


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
