"""A model that runs more often than its losses are observed: the masks, buffers and modes of the loss's forwards count.

Every step is computed again in float64, plainly, with the generators as the loop itself saw them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from loops import read
from torch import Tensor, nn
from torch.nn import functional as F

import trajcheck

STEPS = 5
bce = F.binary_cross_entropy_with_logits

OBJECTIVES = """
import torch
from torch import nn
from torch.nn import functional as F

def network():
    return nn.Sequential(nn.Linear(4, 16), nn.LeakyReLU(0.2), nn.Dropout(0.3), nn.Linear(16, 1))

def judge_loss(d, batch):
    real, fake = batch
    bce = F.binary_cross_entropy_with_logits
    return bce(d(real), torch.ones(len(real), 1)) + bce(d(fake), torch.zeros(len(fake), 1))

def judge():
    return network(), judge_loss

def judge_at_once():
    def loss(d, batch):
        said = d(torch.cat(batch)).chunk(2)
        bce = F.binary_cross_entropy_with_logits
        return bce(said[0], torch.ones_like(said[0])) + bce(said[1], torch.zeros_like(said[1]))
    return network(), loss

def penalised():
    def loss(d, batch):
        real, fake, mixed = batch
        mixed = mixed.clone().requires_grad_()
        value = judge_loss(d, (real, fake))
        slope, = torch.autograd.grad(d(mixed).sum(), mixed, create_graph=True)
        return value + (slope.norm(dim=1) - 1).square().mean()
    return network(), loss

def classifier():
    return network(), lambda model, batch: F.binary_cross_entropy_with_logits(model(batch[0]), batch[1])
"""


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 16), nn.LeakyReLU(0.2), nn.Dropout(0.3), nn.Linear(16, 1))


def judge_loss(d: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    return bce(d(real), torch.ones(len(real), 1)) + bce(d(fake), torch.zeros(len(fake), 1))


class Seen:
    """What each step must give: its model in float64, and f of it as a function of the generators' states then."""

    def __init__(self) -> None:
        self.steps: list[tuple[nn.Module, Callable[[nn.Module], Tensor]]] = []

    def note(self, model: nn.Module, loss: Callable[[nn.Module], Tensor]) -> None:
        self.steps.append((copy.deepcopy(model).double(), loss))

    def dense(self, step: int, end: list[Tensor]) -> tuple[float, float]:
        """f and cos(g, x_t - x*) at a step."""
        model, loss = self.steps[step]
        parameters = list(model.parameters())
        with torch.random.fork_rng():
            value = loss(model)
            gradient = torch.cat([part.flatten() for part in torch.autograd.grad(value, parameters)])
        away = torch.cat([(p.detach() - q).flatten() for p, q in zip(parameters, end, strict=True)])
        return float(value.detach()), float(gradient @ away / (gradient.norm() * away.norm()))

    def check(self, run: Path, objective: str, model: nn.Module) -> list[str]:
        """Every step of the run's analysis against the dense one; the warnings."""
        file = run.parent / "objectives.py"
        file.write_text(OBJECTIVES)
        report = trajcheck.analyze(run, refs=["final"], objective=f"{file}:{objective}", out=run.parent / "report")
        steps, towards = report.steps.set_index("step"), report.references.set_index("step")
        end = [p.detach().double() for p in model.parameters()]
        for step in range(len(self.steps)):
            loss, cosine = self.dense(step, end)
            assert steps["loss"][step] == pytest.approx(loss, rel=1e-5), step
            assert steps["replay_loss_error"][step] < 1e-5
            assert towards["cos"][step] == pytest.approx(cosine, rel=1e-4, abs=1e-5), step
        return list(report.summary["warnings"])


def at(state: Tensor, model: nn.Module) -> Callable[[Tensor], Tensor]:
    """The model, its next forward with masks from a state, in float64."""

    def forward(inputs: Tensor) -> Tensor:
        torch.set_rng_state(state)
        return model(inputs.double())

    return forward


@pytest.mark.parametrize("between", [False, True], ids=["batch first", "noise between the forwards"])
def test_the_judge_of_a_gan(between: bool, tmp_path: Path) -> None:
    """The generator's step runs the judge too, before the judge's next loss; and the noise may be drawn between its two
    forwards, so that the second one's masks do not follow from the first's."""
    torch.manual_seed(3)
    g, d = nn.Linear(3, 4), network()
    of_g, of_d = torch.optim.SGD(g.parameters(), lr=0.05), torch.optim.SGD(d.parameters(), lr=0.05)
    seen = Seen()
    with trajcheck.Recorder(tmp_path / "run", d, of_d, every=1, quiet=True, strict=True) as recorder:
        for _ in range(STEPS):
            real = torch.randn(8, 4)
            fake = g(torch.randn(8, 3)).detach()
            first = torch.get_rng_state()
            said = d(real)
            if between:
                fake = g(torch.randn(8, 3)).detach()
            second = torch.get_rng_state()
            loss = bce(said, torch.ones(8, 1)) + bce(d(fake), torch.zeros(8, 1))
            of_d.zero_grad()
            loss.backward()
            recorder.observe((real, fake), loss)

            def dense(model: nn.Module, real: Any = real, fake: Any = fake, a: Any = first, b: Any = second) -> Tensor:
                ones, zeros = torch.ones(8, 1).double(), torch.zeros(8, 1).double()
                return bce(at(a, model)(real), ones) + bce(at(b, model)(fake), zeros)

            seen.note(d, dense)
            of_d.step()
            fooled = bce(d(g(torch.randn(8, 3))), torch.ones(8, 1))
            of_g.zero_grad()
            fooled.backward()
            of_g.step()
    _, metadata = read(tmp_path / "run", 1)
    assert metadata.get("forwards") == ([2] if between else None)
    assert seen.check(tmp_path / "run", "judge", d) == []
    if between:  # masks of two forwards cannot be given to one
        said_of = trajcheck.analyze(
            tmp_path / "run", objective=f"{tmp_path / 'objectives.py'}:judge_at_once", out=tmp_path / "other"
        ).summary["warnings"]
        [one] = [warning for warning in said_of if "randomness" in warning]  # and it is not said in other words too
        assert f"the randomness of {STEPS} steps is not the step's own: in training 2 forwards" in one


def test_a_gradient_penalty_is_part_of_the_loss(tmp_path: Path) -> None:
    """The penalty's forward is no part of the graph of its own derivative, where the activations are piecewise linear;
    it comes first here, so that the state in which it began is the loss's."""
    torch.manual_seed(4)
    d = network()
    optimizer = torch.optim.SGD(d.parameters(), lr=0.05)
    seen = Seen()
    with trajcheck.Recorder(tmp_path / "run", d, optimizer, every=1, quiet=True, strict=True) as recorder:
        for _ in range(STEPS):
            real, fake, mixed = torch.randn(8, 4), torch.randn(8, 4), torch.randn(8, 4)
            d(real)  # leads to nothing
            states = [torch.get_rng_state()]
            on_real = bce(d(real), torch.ones(8, 1))
            states.append(torch.get_rng_state())
            on_fake = bce(d(fake), torch.zeros(8, 1))
            torch.rand(3)
            states.append(torch.get_rng_state())
            point = mixed.clone().requires_grad_()
            (slope,) = torch.autograd.grad(d(point).sum(), point, create_graph=True)
            loss = on_real + on_fake + (slope.norm(dim=1) - 1).square().mean()
            loss.backward()
            recorder.observe((real, fake, mixed), loss)

            def dense(model: nn.Module, parts: Any = (real, fake, mixed), states: Any = states) -> Tensor:
                real, fake, mixed = parts
                ones, zeros = torch.ones(8, 1).double(), torch.zeros(8, 1).double()
                value = bce(at(states[0], model)(real), ones) + bce(at(states[1], model)(fake), zeros)
                point = mixed.double().requires_grad_()
                (slope,) = torch.autograd.grad(at(states[2], model)(point).sum(), point, create_graph=True)
                return value + (slope.norm(dim=1) - 1).square().mean()

            seen.note(d, dense)
            optimizer.step()
            optimizer.zero_grad()
    assert read(tmp_path / "run", 1)[1]["forwards"] == [3]
    assert seen.check(tmp_path / "run", "penalised", d) == []


def by_grad(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    return torch.autograd.grad(bce(model(inputs), targets), inputs)[0]


def by_backward(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    bce(model(inputs), targets).backward()
    model.zero_grad()
    assert inputs.grad is not None
    return inputs.grad


@pytest.mark.parametrize("slope_of", [by_grad, by_backward])
@pytest.mark.parametrize("wrap", ["plain", "compiled", "compiled in place"])
def test_adversarial_training(slope_of: Any, wrap: str, tmp_path: Path) -> None:
    """Two steps of PGD, then the loss; accumulated over two micro-batches, without a word of it to the Recorder."""
    torch.manual_seed(5)
    model = network()
    called: Any = torch.compile(model, backend="eager") if wrap == "compiled" else model
    if wrap == "compiled in place":
        model.compile(backend="eager")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen = Seen()
    with trajcheck.Recorder(tmp_path / "run", called, optimizer, every=1, quiet=True, strict=True) as recorder:
        for _ in range(STEPS):
            inputs, targets = torch.randn(8, 4), torch.rand(8, 1).round()
            moved = inputs
            for _ in range(2):
                moved = moved.detach().requires_grad_()
                moved = moved + 0.1 * slope_of(called, moved, targets).sign()
            moved = moved.detach()
            state = torch.get_rng_state()
            loss = bce(called(moved), targets)
            loss.backward()
            recorder.observe((moved, targets), loss)

            def dense(model: nn.Module, x: Any = moved, y: Any = targets, state: Any = state) -> Tensor:
                return bce(at(state, model)(x), y.double())

            seen.note(model, dense)
            optimizer.step()
            optimizer.zero_grad()
    assert seen.check(tmp_path / "run", "classifier", model) == []


@pytest.mark.parametrize("what", ["number", "detached"])
def test_a_loss_without_its_graph_is_not_guessed_at(what: str, tmp_path: Path) -> None:
    torch.manual_seed(6)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with trajcheck.Recorder(tmp_path / "run", model, optimizer, every=1, quiet=True, strict=True) as recorder:
        for step in range(2):
            inputs, targets = torch.randn(8, 4).requires_grad_(), torch.rand(8, 1).round()
            if step == 1:
                by_grad(model, inputs, targets)
            loss = bce(model(inputs), targets)
            loss.backward()
            recorder.observe((inputs, targets), loss.item() if what == "number" else loss.detach())
            optimizer.step()
            optimizer.zero_grad()
    (first, said_first), (second, said) = (read(tmp_path / "run", step) for step in range(2))
    assert "rng/cpu" in first and "omitted" not in said_first  # one forward: there is nothing to guess
    assert "rng/cpu" not in second
    assert said["omitted"]["randomness"].startswith("its loss was given to observe() without its graph")
    file = tmp_path / "objectives.py"
    file.write_text(OBJECTIVES)
    warned = trajcheck.analyze(tmp_path / "run", objective=f"{file}:classifier", out=tmp_path / "report").summary[
        "warnings"
    ]
    [one] = [warning for warning in warned if "randomness" in warning]
    assert "the randomness of 1 steps is seeded: its loss was given to observe() without its graph" in one


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("usual", [False, True])
def test_a_compiler_that_draws_masks_in_its_own_way(in_place: bool, usual: bool, tmp_path: Path) -> None:
    """As inductor does, by which nothing has to be compiled here; a model that draws nothing is recorded as ever."""

    def backend(graph: Any, inputs: Any) -> Any:
        return graph.forward

    backend.get_compiler_config = lambda: {"fallback_random": usual}  # type: ignore[attr-defined]
    torch.manual_seed(7)
    model = network()
    called: Any = model
    compiler = torch._dynamo.optimize(backend)
    if in_place:
        model._compiled_call_impl = compiler(model._call_impl)
    else:
        called = compiler(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with trajcheck.Recorder(tmp_path / "run", called, optimizer, every=1, quiet=True, strict=True) as recorder:
        for step in range(2):
            model[2].p = 0.3 if step == 0 else 0.0  # type: ignore[assignment]
            inputs, targets = torch.randn(8, 4), torch.rand(8, 1).round()
            loss = bce(called(inputs), targets)
            loss.backward()
            recorder.observe((inputs, targets), loss)
            optimizer.step()
            optimizer.zero_grad()
    (first, said), (_, other) = (read(tmp_path / "run", step) for step in range(2))
    assert ("rng/cpu" in first) == usual
    assert (
        said.get("omitted", {}).get("randomness", "").startswith("" if usual else "the model is compiled by a backend")
    )
    assert "omitted" not in other
