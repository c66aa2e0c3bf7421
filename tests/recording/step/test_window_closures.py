"""Window sums of steps with a closure, or that call their parent's step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from loops import batch_of, loss_of, network, read, sgd
from torch import Tensor, nn
from window_reference import Dense, double_batch
from windowed_runs import windowed


@pytest.mark.parametrize("positional", [True, False])
def test_closures(positional: bool, tmp_path: Path) -> None:
    model = network().double()
    optimizer = sgd(model, momentum=0.9, nesterov=True, foreach=True)
    dense = Dense()
    with windowed(tmp_path, model, optimizer, every=3) as recorder:
        for step in range(8):

            def closure(step: int = step) -> Tensor:
                optimizer.zero_grad()
                loss = loss_of(model, double_batch(step))
                loss.backward()
                recorder.observe(double_batch(step), loss)
                dense.note(model, loss.item())
                return loss

            optimizer.step(closure) if positional else optimizer.step(closure=closure)
    dense.check(tmp_path, 1e-12)


class Nested(torch.optim.SGD):
    """Its step() calls its parent's, so that the hooks run twice; it may move, or evaluate its closure, before that."""

    moves = 0.0

    def step(self, closure: Any = None) -> Any:
        with torch.no_grad():
            if self.moves:
                self.param_groups[0]["params"][0].add_(self.moves)
        if closure is not None:
            with torch.enable_grad():
                closure()
        return super().step()


@pytest.mark.parametrize("closures", [True, False])
@pytest.mark.parametrize("every", [1, 3])
def test_a_step_that_calls_its_parents_step_is_summed_once(closures: bool, every: int, tmp_path: Path) -> None:
    torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)  # from now on its step() calls hooks itself
    model = network().double()
    optimizer = Nested(model.parameters(), lr=0.1)
    dense = Dense()
    with windowed(tmp_path, model, optimizer, every=every) as recorder:
        for step in range(8):

            def closure(step: int = step) -> None:
                loss = loss_of(model, double_batch(step))
                loss.backward()
                recorder.observe(double_batch(step), loss)
                dense.note(model, loss.item())

            if closures:
                optimizer.step(closure)
            else:
                closure()
                optimizer.step()
            optimizer.zero_grad()
    dense.check(tmp_path, 1e-12)


@pytest.mark.parametrize("closures", [True, False])
def test_parameters_that_move_within_a_step_void_the_window(closures: bool, tmp_path: Path) -> None:
    torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    model = network()
    optimizer = Nested(model.parameters(), lr=0.1)
    with windowed(tmp_path, model, optimizer, every=2) as recorder:
        for step in range(6):
            optimizer.moves = float(step == 3)
            loss = loss_of(model, batch_of(step))
            loss.backward()
            recorder.observe(batch_of(step), loss)
            optimizer.step(lambda: None) if closures else optimizer.step()
            optimizer.zero_grad()
    assert ["window" in read(tmp_path, step)[1] for step in (0, 2, 4, 6)] == [False, True, False, True]


def test_a_closure_that_is_not_evaluated_voids_the_window(tmp_path: Path) -> None:
    class Ignoring(torch.optim.Optimizer):
        def step(self, closure: Any = None) -> Any: ...

    model = network()
    optimizer = Ignoring(model.parameters(), {})
    with windowed(tmp_path, model, optimizer, every=2) as recorder:
        for step in range(4):
            loss = loss_of(model, batch_of(step))
            loss.backward()
            recorder.observe(batch_of(step), loss)
            optimizer.step(lambda: None) if step == 1 else optimizer.step()
    assert ["window" in read(tmp_path, step)[1] for step in (0, 2, 4)] == [False, False, True]


def test_a_step_without_a_loss(tmp_path: Path) -> None:
    model = network().double()
    optimizer = sgd(model)
    with windowed(tmp_path, model, optimizer, every=2) as recorder:
        for step in range(6):
            loss = loss_of(model, double_batch(step))
            loss.backward()
            if step != 3:
                recorder.observe(double_batch(step), loss if step != 4 else float("inf"))
            optimizer.step()
            optimizer.zero_grad()
    losses = [read(tmp_path, step)[1]["window"]["loss_sum"] for step in (2, 4, 6)]
    assert isinstance(losses[0], float)
    assert losses[1:] == [None, None]
