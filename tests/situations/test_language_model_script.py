"""A training script as many are written: the model returns (logits, loss), the loop divides the loss by the number of
micro-batches, scales and clips; compiled or not. Recorded without an edit, and analyzed against float64."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from loops import read
from torch import Tensor, nn
from torch.nn import functional as F

import trajcheck

STEPS, PARTS, SCALE = 4, 2, 1024.0

OBJECTIVE = """
from torch import nn
from torch.nn import functional as F

class Language(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte, self.drop, self.head = nn.Embedding(11, 6), nn.Dropout(0.2), nn.Linear(6, 11, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, tokens, targets):
        logits = self.head(self.drop(self.wte(tokens)).cumsum(1))
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())

def language():
    return Language(), lambda model, batch: model(*batch)[1]
"""


class Language(nn.Module):
    def __init__(self, returns: str) -> None:
        super().__init__()
        self.wte, self.drop, self.head = nn.Embedding(11, 6), nn.Dropout(0.2), nn.Linear(6, 11, bias=False)
        self.head.weight = self.wte.weight
        self.returns = returns

    def forward(self, tokens: Tensor, targets: Tensor) -> Any:
        logits = self.head(self.drop(self.wte(tokens)).cumsum(1))
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        if self.returns == "tuple":
            return logits, loss
        if self.returns == "dict":
            return {"aux": logits.square().mean(), "out": {"loss": loss}}
        return Output(logits, loss)


@dataclass
class Output:
    logits: Tensor
    ce: Tensor


def loss_of(returned: Any) -> Tensor:
    if isinstance(returned, tuple):
        return returned[1]
    return returned["out"]["loss"] if isinstance(returned, dict) else returned.ce


def script(returns: str, compiled: str, seen: list[Any] | None) -> nn.Module:
    torch.manual_seed(1)
    data = torch.randint(11, (200,))

    def get_batch() -> tuple[Tensor, Tensor]:
        starts = torch.randint(len(data) - 6, (3,))
        return torch.stack([data[i : i + 5] for i in starts]), torch.stack([data[i + 1 : i + 6] for i in starts])

    raw = Language(returns)
    scaler = torch.amp.GradScaler("cpu", init_scale=SCALE)
    optimizer = torch.optim.AdamW(raw.parameters(), lr=0.02)
    model: Any = torch.compile(raw, backend="eager") if compiled == "compiled" else raw
    if compiled == "in place":
        model.compile(backend="eager")
    inputs, targets = get_batch()
    for step in range(STEPS):
        if step % 2 == 0:
            with torch.no_grad():
                raw.eval()
                model(inputs, targets)
                raw.train()
        note: list[Any] = []
        if seen is not None:
            seen.append((copy.deepcopy(raw), note))
        for _ in range(PARTS):
            note.append((inputs, targets, torch.get_rng_state()))
            loss = loss_of(model(inputs, targets)) / PARTS
            inputs, targets = get_batch()  # draws from the generator that the masks come from
            scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
    return raw


def dense(model: nn.Module, parts: list[Any]) -> tuple[float, list[Tensor]]:
    """f = 1/2 sum_i loss_i and its gradient, in float64."""
    wide: Any = model.double()
    total = torch.zeros((), dtype=torch.float64)
    with torch.random.fork_rng():
        for inputs, targets, state in parts:
            torch.set_rng_state(state)
            total = total + loss_of(wide(inputs, targets)) / PARTS
    return float(total.detach()), list(torch.autograd.grad(total, list(wide.parameters())))


@pytest.mark.parametrize(
    ("returns", "compiled"),
    [("tuple", "no"), ("dict", "no"), ("dataclass", "no"), ("tuple", "compiled"), ("tuple", "in place")],
)
def test_the_loss_and_its_weights_are_seen(
    returns: str, compiled: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Any] = []
    before = torch.autograd.backward, nn.Module.compile
    with trajcheck.record(tmp_path / "run", every=1, strict=True):
        trained = script(returns, compiled, seen)
    assert (torch.autograd.backward, nn.Module.compile) == before
    untouched = script(returns, compiled, None)
    assert all(torch.equal(a, b) for a, b in zip(trained.parameters(), untouched.parameters(), strict=True))
    said = capsys.readouterr().err
    assert "not seen" not in said and "not known" not in said and "missing" not in said
    (tmp_path / "objective.py").write_text(OBJECTIVE)
    report = trajcheck.analyze(
        tmp_path / "run", objective=f"{tmp_path / 'objective.py'}:language", out=tmp_path / "report"
    )
    steps = report.steps.set_index("step")
    for step, (model, parts) in enumerate(seen):
        loss, gradient = dense(model, parts)
        tensors, metadata = read(tmp_path / "run", step)
        assert metadata["micro_weights"] == [1 / PARTS] * PARTS
        assert metadata["loss"] == pytest.approx(loss, rel=1e-6)
        recorded = tensors["grad/wte.weight"].double() / metadata["clip"]
        assert torch.allclose(recorded, gradient[0], rtol=1e-4, atol=1e-7)
        assert steps["loss"][step] == pytest.approx(loss, rel=1e-6)
        assert steps["replay_loss_error"][step] < 1e-6
        assert steps["replay_grad_error"][step] < 1e-4


def test_a_loop_that_adds_to_the_loss_that_the_model_returned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What backward() was called on is recorded; how it is made of the model's loss is not known, and no guess."""
    torch.manual_seed(2)
    with trajcheck.record(tmp_path / "run", every=1, strict=True):
        model = Language("tuple")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        totals = []
        for _ in range(2):
            total = 0.0
            for _ in range(PARTS):
                tokens = torch.randint(11, (3, 6))
                loss = model(tokens[:, :-1], tokens[:, 1:])[1] + 0.1 * model.wte.weight.square().sum()
                (loss / PARTS).backward()
                total += loss.item() / PARTS
            totals.append(total)
            optimizer.step()
            optimizer.zero_grad()
    _, metadata = read(tmp_path / "run", 1)
    assert metadata["micro_weights"] == [None, None]
    assert metadata["loss"] == pytest.approx(totals[1], rel=1e-6)
    assert "the weight by which 4 of 4 losses count in their step is not known" in capsys.readouterr().err
    (tmp_path / "objective.py").write_text(OBJECTIVE)
    report = trajcheck.analyze(
        tmp_path / "run", objective=f"{tmp_path / 'objective.py'}:language", out=tmp_path / "report"
    )
    assert not report.steps.get("replay_loss_error", report.steps["loss"] * math.nan).notna().any()
    reasons = (tmp_path / "report" / "undefined.csv").read_text()
    assert "its sample cannot be replayed: it was recorded without the weight by which its loss counted" in reasons


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("divided", [False, True])
def test_a_loss_that_a_function_makes(
    parts: int, divided: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """F.cross_entropy: its value is what backward() was called on, or that times a weight, and autograd keeps its
    targets."""
    torch.manual_seed(3)
    with trajcheck.record(tmp_path / "run", every=1, strict=True):
        model = nn.Linear(4, 3)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        totals = []
        for _ in range(2):
            totals.append(0.0)
            for _ in range(parts):
                loss = F.cross_entropy(model(torch.randn(5, 4)), torch.randint(3, (5,)))
                loss = loss / 2 if divided else loss
                loss.backward()
                totals[-1] += loss.item()
            optimizer.step()
            optimizer.zero_grad()
    _, metadata = read(tmp_path / "run", 1)
    assert metadata["loss"] == pytest.approx(totals[1], rel=1e-6)
    weights = [0.5 if divided else 1.0] * parts
    assert metadata.get("micro_weights", [1.0]) == weights
    assert "omitted" not in metadata
    said = capsys.readouterr().err
    assert "made of its output by NllLoss, whose targets are recorded with the inputs" in said
