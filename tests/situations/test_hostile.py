"""benchmarks/faults/hostile.py: a few of its trials; `python -m benchmarks.faults hostile` has a thousand."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.faults.hostile import run_trials
from benchmarks.faults.hostile_faults import FAULTS

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
    pytest.mark.skipif(sys.platform != "linux", reason="children are found and limited as on Linux"),
]

#: Every fault five times. A trial takes some eighty milliseconds of a processor.
TRIALS = 60


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_strangers_and_neighbours_change_nothing(tmp_path: Path) -> None:
    rows = run_trials(tmp_path, TRIALS, seed=1, faults=list(FAULTS))
    assert [fault for row in rows for fault in row.faults] == []
    assert sum(row.trials for row in rows) == TRIALS and min(row.trials for row in rows) >= TRIALS // len(FAULTS)
