"""trajcheck.objective.dispatch.draws: a replay in float64 draws what the training drew in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import trajcheck
from trajcheck.objective.another_dtype import in_another_dtype
from trajcheck.objective.objective import Objective
from trajcheck.objective.sample import Sample


class Noisy(nn.Module):
    """Dropout as modules and functions have it, and noise of every kind; `quiet` draws nothing."""

    def __init__(self, quiet: bool = False) -> None:
        super().__init__()
        self.first, self.last, self.quiet = nn.Linear(4, 8), nn.Linear(8, 1), quiet
        self.memory = nn.LSTM(8, 8, 2, dropout=0.3, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.first(x))
        if self.quiet:
            return self.last(hidden)
        hidden = nn.functional.dropout(hidden, 0.4, self.training)
        hidden = hidden + torch.randn_like(hidden) + torch.rand(hidden.shape) + torch.zeros_like(hidden).exponential_()
        hidden = hidden + self.attention(hidden, hidden, hidden)[0] + torch.bernoulli(torch.full_like(hidden, 0.3))
        hidden = hidden + torch.normal(0.0, 1.0, hidden.shape)
        hidden = torch.normal(hidden.detach(), 0.1) + hidden
        return self.last(self.memory(hidden)[0])


def squared(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch).pow(2).mean()


@pytest.mark.parametrize("quiet", [False, True])
def test_float64_draws_what_float32_drew(quiet: bool) -> None:
    torch.manual_seed(1)
    objective, x = Objective(Noisy(quiet), squared), torch.randn(3, 5, 4)
    point = {name: objective.value_of(name).clone() for name in objective.names}
    narrow, gradient = objective.loss_and_gradient(point, Sample({"": x}, seed=7))
    with in_another_dtype(objective, "float64", dict.fromkeys(point, torch.float32)):
        for _ in range(2):
            wide, exact = objective.loss_and_gradient(point, Sample({"": x.double()}, seed=7))
            assert float(wide) == pytest.approx(float(narrow), rel=1e-5)
            for name in point:
                assert exact[name].dtype == torch.float64
                np.testing.assert_allclose(gradient[name], exact[name], rtol=1e-2, atol=1e-4)
        assert float(objective.loss(point, Sample({"": x.double()}, seed=8))) != pytest.approx(float(wide)) or quiet
    again, _ = objective.loss_and_gradient(point, Sample({"": x}, seed=7))
    assert float(again) == float(narrow)  # and it is what it was


OBJECTIVE = """
import sys; sys.path.insert(0, {here!r})
from test_draws import Noisy, squared
def objective():
    return Noisy(), squared
"""


def test_a_noisy_training_is_replayed_as_it_was_by_default(tmp_path: Path) -> None:
    """In float64, with the recorded states: the replay is the training."""
    torch.manual_seed(2)
    model = Noisy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with trajcheck.Recorder(tmp_path / "run", model, optimizer, every=1, quiet=True) as recorder:
        for _ in range(4):
            x = torch.randn(3, 5, 4)
            loss = squared(model, x)
            loss.backward()
            recorder.observe(x, loss)
            optimizer.step()
            optimizer.zero_grad()
    (tmp_path / "objective.py").write_text(OBJECTIVE.format(here=str(Path(__file__).parent)))
    report = trajcheck.analyze(
        tmp_path / "run", objective=f"{tmp_path}/objective.py:objective", metrics=["progress"], out=tmp_path / "report"
    )
    assert report.summary["replay"]["dtype"] == "float64"
    assert report.steps["replay_loss_error"].max() < 1e-5 and report.steps["replay_grad_error"].max() < 1e-4
    assert set(report.summary["replay"]["randomness"]) == {"recorded"}
