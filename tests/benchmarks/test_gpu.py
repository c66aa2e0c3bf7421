"""python -m benchmarks gpu, whole and as small as it goes: where there is no CUDA device, its lines run on the CPU."""

from __future__ import annotations

import json
from math import inf
from pathlib import Path

import pytest

import benchmarks.gpu
from benchmarks.gpu.budget import FAILED, NO_TIME, Budget
from benchmarks.gpu.correctness import largest_difference
from benchmarks.gpu.sizes import TEST
from benchmarks.table import Row
from trajcheck.scalars.values import RowScalars, StepScalars

CORRECT = 17  # rows that say what is right or wrong; they come first


def test_every_line_of_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmarks.gpu, "CPU", TEST)
    benchmarks.gpu.main("cpu", 2.0, tmp_path, tmp_path / "gpu.json")
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert not [row for row in rows if row["note"].startswith((FAILED, NO_TIME))]
    assert all(row["measured"] <= row["target"] for row in rows[:CORRECT])
    assert "replay" not in rows[CORRECT - 1]["what"] and rows[CORRECT]["what"].startswith("replay, mlp")
    said = capsys.readouterr().out
    assert all(f"\n| {row['what']} | " in said for row in rows)
    assert list(tmp_path.iterdir()) == [tmp_path / "gpu.json"]


def test_what_raises_costs_its_own_row(capsys: pytest.CaptureFixture[str]) -> None:
    def wrong() -> list[Row]:
        raise RuntimeError("an illegal memory access was encountered")

    budget = Budget(1.0, rounds=True)
    budget.take("wrong", wrong)
    budget.take("right", lambda: [Row("right", 1.0)])
    assert [row.what for row in budget.rows] == ["wrong", "right"]
    assert (
        budget.rows[0].met is False
        and budget.rows[0].note == f"{FAILED}RuntimeError: an illegal memory access was encountered"
    )
    over = Budget(0.0, rounds=True)
    over.take("late", wrong)
    assert over.rows == [Row("late", inf, note=NO_TIME)]
    assert len(budget.in_turn({"a": lambda: 1.0}).seconds["a"]) == 5


def test_a_difference_is_seen() -> None:
    def row(loss: float | None, grad_sq: float) -> RowScalars:
        return RowScalars(StepScalars(0, loss=loss, grad_sq=grad_sq))

    here = [row(1.0, 100.0), row(2.0, 50.0)]
    assert largest_difference(here, here)[0] == 0.0
    assert largest_difference(here, [row(1.0, 100.0), row(2.0, 51.0)]) == (0.01, "grad_sq")
    assert largest_difference(here, [row(None, 100.0), row(2.0, 50.0)])[0] == inf
