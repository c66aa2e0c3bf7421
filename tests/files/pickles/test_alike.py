"""Pickles that differ in numbers alone are filled in: what comes of it is what interpreting each would make."""

from __future__ import annotations

import gc
import io
import pickle
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from trajcheck.files.pickles import alike
from trajcheck.files.pickles.alike import AlikePickles, Blank
from trajcheck.files.pickles.inert import Inert
from trajcheck.files.pickles.tensors import Storage, StoredTensor
from trajcheck.files.pickles.torch_file import read_torch_file


def _adam(step: int) -> dict[str, Any]:
    torch.manual_seed(step)
    state = {place: {"step": step, "exp_avg": torch.randn(3, 2)} for place in range(3)}
    return {"state": state, "param_groups": [{"lr": 0.1 / step, "params": [0, 1, 2]}]}


def _tied(step: int) -> dict[str, Any]:
    weight = torch.full((4, 2), float(step))
    return {"model": {"a": weight, "b": weight, "c": weight[:2]}, "step": step, "log": [(step, 0.5 * step)]}


class _Own(dict):
    """Of a class that is not known: Inert."""


CASES: dict[str, Any] = {
    "a step and a rate": lambda t: {"model": OrderedDict(w=torch.ones(2) * t), "step": t, "lr": 0.3 / t},
    "Adam that counts": _adam,
    "tied": _tied,
    "settings": lambda t: {"model": {"w": torch.ones(2)}, "args": Namespace(seed=t, lr=[t, t / 3], name="x")},
    "an object": lambda t: {"model": {"w": torch.ones(2)}, "own": _Own(step=t, inner=_Own(best=1.0 / t))},
    "parameters": lambda t: {"w": torch.nn.Parameter(torch.ones(2) * t), "epoch": t},
    # nothing of these may be filled in
    "a shape": lambda t: {"w": torch.zeros(12).view(t, 1, -1)[:1, :, :1].expand(t, 1, 1), "step": 3},
    "a key": lambda t: {"w": torch.ones(2), "by_step": {t: 0.5}},
    "a key that is a tuple": lambda t: {"w": torch.ones(2), "by_step": {(t, "x"): 0.5}},
    "numpy's number": lambda t: {"w": torch.ones(2), "best": np.float64(1.0 / t)},
    "a set": lambda t: {"w": torch.ones(2), "seen": {t}},
    "a truth value": lambda t: {"w": torch.ones(2), "odd": t % 2 == 1},
    "a text": lambda t: {"w": torch.ones(2), "name": f"run {t}"},
    "a complex number": lambda t: {"w": torch.ones(2), "z": complex(t, 1)},
}
FILLED = list(CASES)[:6]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, (StoredTensor, Storage, Inert)):
        return type(one) is type(other) and all(_same(getattr(one, n), getattr(other, n)) for n in one.__slots__)
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(_same(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and one == other


def _blank_inside(value: Any) -> bool:
    waiting, seen = [value], set()
    while waiting:
        each = waiting.pop()
        if isinstance(each, Blank):
            return True
        if id(each) not in seen and not isinstance(each, (type, ModuleType)):
            seen.add(id(each))
            waiting += gc.get_referents(each)
    return False


@pytest.fixture
def filled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of the pickles that were filled in."""
    lengths: list[int] = []
    fill = alike._Template.filled

    def counted(template: Any, data: bytes, place: Any) -> Any:
        lengths.append(len(data))
        return fill(template, data, place)

    monkeypatch.setattr(alike._Template, "filled", counted)
    return lengths


@pytest.mark.parametrize("name", CASES)
def test_each_is_what_interpreting_it_makes(
    name: str, tmp_path: Path, filled: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = []
    for step in (1, 2, 3, 4, 200, 255, 256, 300, 70_000, 70_001, 70_002):
        if name != "a shape" or step < 5:
            paths.append(str(tmp_path / f"{step}.pt"))
            torch.save(CASES[name](step), paths[-1])
    known = AlikePickles()
    monkeypatch.setattr("trajcheck.files.pickles.torch_file._ALIKE", known)
    for path in paths:
        found = read_torch_file(path).value
        with monkeypatch.context() as whole:
            whole.setattr("trajcheck.files.pickles.torch_file._ALIKE", AlikePickles())
            count = len(filled)
            assert _same(found, read_torch_file(path).value)
            assert len(filled) == count  # the other was interpreted
        assert not _blank_inside(found)
    assert bool(filled) == (name in FILLED)


def test_tied_tensors_share_a_storage_of_their_own_file(tmp_path: Path, filled: list[int]) -> None:
    for step in (1, 2, 3):
        torch.save(_tied(step), tmp_path / f"{step}.pt")
        model = read_torch_file(str(tmp_path / f"{step}.pt")).value["model"]
        assert model["a"] is model["b"] and model["a"].storage.offset == model["c"].storage.offset > 0
        assert model["a"].storage.path == str(tmp_path / f"{step}.pt")
    assert filled


def test_numbers_that_begin_to_differ_later_are_filled_in_too(filled: list[int]) -> None:
    """As a rate that falls at last, a loss that is logged from some step on, in one archive after another."""
    known = AlikePickles()
    for step in range(100):
        value = [step, *(0.5 if step < 10 * k else 1.0 / (step + k) for k in range(1, 9)), "ab"[step // 60]]
        assert known.load(pickle.dumps(value, 2), lambda made: None) == value
    assert len(filled) > 95


def test_a_value_that_holds_itself_is_interpreted(filled: list[int]) -> None:
    known = AlikePickles()
    for step in (1, 2, 3):
        value: dict[str, Any] = {"step": step, "inner": []}
        value["inner"].append(value)
        found = known.load(pickle.dumps(value, 2), lambda made: None)
        assert found["step"] == step and found["inner"][0] is found
    assert not filled


def test_a_pickle_of_the_same_length_that_goes_on_behind_its_value_is_refused() -> None:
    known = AlikePickles()
    for step in (1, 2, 3):
        known.load(pickle.dumps([step, 300], 2), lambda made: None)
    file = io.BytesIO(pickle.dumps([4, 3], 2) + b".")
    with pytest.raises(ValueError, match="goes on behind"):
        known.load(file.getvalue(), lambda made: None)
