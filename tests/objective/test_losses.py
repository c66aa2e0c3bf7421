"""Losses that cannot be used."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_objectives import CPU, parameters_of, regression_batch
from torch import nn

from trajcheck.errors import ObjectiveError
from trajcheck.objective.objective import Objective
from trajcheck.objective.sample import make_sample


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda m, b: 3.0, "the loss returned a float; expected a scalar tensor"),
        (lambda m, b: m(b[0]).sum(1), r"the loss has shape \(8,\); expected a scalar, shape \(\): add .mean\(\)"),
        (lambda m, b: m(b[0]).sum().reshape(1), r"the loss has shape \(1,\); .*: add .squeeze\(\)"),
        (lambda m, b: m(b[0]).sum().long(), "the loss is int64; expected a floating dtype"),
        (lambda m, b: m(b[0]).sum() * 1j, "the loss is complex64; expected a floating dtype"),
        (lambda m, b: m(b[0]).sum().detach(), "the loss does not depend on any parameter through autograd"),
        (lambda m, b: (b[0].requires_grad_() ** 2).sum(), "the loss does not depend on any parameter through autograd"),
        (lambda m, b: m(b[1]).sum(), r"the loss raised RuntimeError: mat1 and mat2 .*\(.*line \d+\)"),
        (lambda m, b: sys.exit(2), r"the loss raised SystemExit: 2 \(test_losses.py, line \d+\)"),
    ],
)
def test_unusable_losses(loss: Callable[[nn.Module, Any], Any], message: str) -> None:
    model = nn.Linear(3, 2)
    with pytest.raises(ObjectiveError, match=rf"^objective o.py:f, step 120, at x_\(t-1\): {message}"):
        objective = Objective(model, loss, title="o.py:f", path=Path(__file__))
        sample = make_sample(regression_batch(), device=CPU)
        objective.loss_and_gradient(parameters_of(model), sample, where="step 120, at x_(t-1)")


def test_a_non_finite_loss_is_returned() -> None:
    model = nn.Linear(3, 2)
    objective = Objective(model, lambda m, b: m(b[0]).sum() / 0)
    loss, gradient = objective.loss_and_gradient(parameters_of(model), make_sample(regression_batch(), device=CPU))
    assert not loss.isfinite() and not gradient["weight"].isfinite().all()
