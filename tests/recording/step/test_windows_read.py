"""Windows of a recorded run as they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loops import network, read, sgd, train, weights
from plain_run_files import write_plain_step
from windowed_runs import windowed

from trajcheck.errors import StepFileError
from trajcheck.runs.divergence import cut_at_divergence, find_bad_steps
from trajcheck.runs.trajectory import open_trajectory

WINDOW = {"from": 2, "steps": 1, "grad_dot_offset": -0.5, "loss_sum": 2.5, "grad_sq_sum": 3.0}
G = {"window/layer.weight": np.ones((3, 2), np.float32), "window/layer.bias": np.zeros(2, np.float32)}


def rewrite(run: Path, step: int, tensors: dict[str, np.ndarray], **metadata: Any) -> None:
    held, known = read(run, step)
    arrays = {name: tensor.numpy() for name, tensor in held.items()}
    known.pop("format")
    write_plain_step(run, known.pop("step"), {**arrays, **tensors}, **known, **metadata)


def test_windows_are_read(plain_run: Path) -> None:
    rewrite(plain_run, 3, G, window=WINDOW)
    rewrite(plain_run, 4, G, window={**WINDOW, "from": 3, "steps": 0, "loss_sum": None, "grad_sq_sum": None})
    snapshots = open_trajectory(plain_run).snapshots
    assert snapshots[2].window is None
    assert not snapshots[2].window_gradient
    window = snapshots[3].window
    assert window is not None
    assert (window.start, window.steps, window.grad_dot_offset) == (2, 1, -0.5)
    assert (window.loss_sum, window.grad_sq_sum) == (2.5, 3.0)
    assert snapshots[3].window_gradient["layer.weight"].shape == (3, 2)
    empty = snapshots[4].window
    assert empty is not None
    assert (empty.steps, empty.loss_sum, empty.grad_sq_sum) == (0, None, None)


def test_recorded_windows_are_read(tmp_path: Path) -> None:
    model = network()
    with windowed(tmp_path, model, sgd(model), every=3) as recorder:
        train(model, recorder._optimizer, 5, recorder)
    trajectory = open_trajectory(tmp_path)
    assert [s.window.start if s.window else None for s in trajectory.snapshots] == [None, 0, 3]
    assert set(trajectory.snapshots[2].window_gradient) == set(weights(model))


BAD: dict[str, tuple[Any, dict[str, np.ndarray], str]] = {
    "steps below zero": ({"steps": -1}, G, "'window.steps' is -1"),
    "from below zero": ({"from": -1}, G, "'window.from' is -1"),
    "from itself": ({"from": 3, "steps": 0}, G, "from step 3 on; expected at most those before step 3"),
    "from later": ({"from": 4, "steps": 0}, G, "from step 4 on"),
    "too many steps": ({"steps": 2}, G, "2 steps from step 2 on"),
    "no start": ({"from": None}, G, "lacks 'from'"),
    "no offset": ({"grad_dot_offset": None}, G, "lacks 'grad_dot_offset'"),
    "not a number": ({"grad_dot_offset": float("nan")}, G, "window.grad_dot_offset' is nan"),
    "not finite": ({"loss_sum": float("inf")}, G, "window.loss_sum' is inf"),
    "a flag": ({"grad_sq_sum": True}, G, "window.grad_sq_sum' is True"),
    "a negative square": ({"grad_sq_sum": -1.0}, G, "window.grad_sq_sum' is -1.0"),
    "no metadata": (None, G, "tensors window/... without metadata 'window'"),
    "no tensors": ({}, {}, "metadata 'window' without tensors"),
    "a missing tensor": ({}, {"window/layer.bias": G["window/layer.bias"]}, "lacks tensor window/layer.weight"),
    "an extra tensor": ({}, {**G, "window/other": np.ones(1, np.float32)}, "holds window/other"),
    "another shape": ({}, {**G, "window/layer.bias": np.ones(3, np.float32)}, "window/layer.bias has shape"),
    "integers": ({}, {**G, "window/layer.bias": np.ones(2, np.int64)}, "window/layer.bias: dtype I64"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_windows(case: str, plain_run: Path) -> None:
    changes, tensors, message = BAD[case]
    extra = {} if changes is None else {"window": {**WINDOW, **changes}}
    rewrite(plain_run, 3, tensors, **extra)
    with pytest.raises(StepFileError, match="step-000000003") as caught:
        open_trajectory(plain_run)
    assert message in str(caught.value)
    trajectory = open_trajectory(plain_run, skip_bad=True)
    assert list(trajectory.left_out) == [3]


def test_windows_that_are_not_finite(plain_run: Path) -> None:
    bad = {**G, "window/layer.bias": np.array([0.0, np.inf], np.float32)}
    rewrite(plain_run, 3, bad, window=WINDOW)
    whole = open_trajectory(plain_run)
    assert find_bad_steps(whole) == {3: "step 3, tensor window/layer.bias: holds NaN or Inf"}
    assert cut_at_divergence(whole) is whole
    rewrite(plain_run, 10, bad, window={**WINDOW, "from": 9})
    cut = cut_at_divergence(open_trajectory(plain_run))
    assert cut.ended == "the run ends in NaN or Inf: step 10, tensor window/layer.bias"
    assert cut.steps[-1] == 10
    assert cut.snapshots[-1].window is None
    assert not cut.snapshots[-1].window_gradient


def test_a_window_that_is_no_object(plain_run: Path) -> None:
    rewrite(plain_run, 3, G, window=[1])
    with pytest.raises(StepFileError, match=r"'window' is \[1\]; expected an object"):
        open_trajectory(plain_run)
