"""Points of small models in the replay's dtype, beside what was recorded."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from trajcheck.objective.sample import make_sample
from trajcheck.replay import row_reading
from trajcheck.replay.around import Around
from trajcheck.replay.evaluations import Evaluations
from trajcheck.replay.reducer import Widened
from trajcheck.replay.row_reading import RowReading
from trajcheck.replay.vector_reader import Loaded


def _reading(dtype: torch.dtype, *, copies: bool = False) -> RowReading:
    objective = SimpleNamespace(device=torch.device("cpu"), copies_points=copies, dtype_of=lambda name: dtype)
    reading: Any = object.__new__(RowReading)
    reading._setting = SimpleNamespace(objective=objective)
    return reading


def test_only_dtypes_that_hold_the_same_numbers_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = {"a": torch.randn(3), "b": torch.randn(2, dtype=torch.float64), "c": torch.randn(4).bfloat16()}
    point = Loaded(recorded, torch.empty(64, dtype=torch.uint8))
    for wanted in (torch.float64, torch.float32):
        found = _reading(wanted)._widened(point)
        assert isinstance(found.tensors, Widened)
        assert found.buffer is point.buffer
        for name, tensor in recorded.items():
            assert found.tensors[name] is tensor
            wide = found.tensors.wide[name]
            assert wide.dtype is torch.promote_types(tensor.dtype, wanted)
            assert torch.equal(wide.double(), tensor.double())
    assert _reading(torch.float64, copies=True)._widened(point) is point
    monkeypatch.setattr(row_reading, "WIDENED", 63)
    assert _reading(torch.float64)._widened(point) is point


def test_evaluations_take_the_wide_ones_with_what_is_around() -> None:
    point = Widened({"w": torch.ones(2)})
    point.wide["w"] = torch.ones(2, dtype=torch.float64)
    frozen = {"f": torch.zeros(1)}
    nobody: Any = None
    on = Evaluations(nobody, make_sample({"": torch.ones(1)}, device=torch.device("cpu")))
    found, _ = on.at(point, Around(frozen, {}))
    assert found["w"] is point.wide["w"]
    assert found["f"] is frozen["f"]
