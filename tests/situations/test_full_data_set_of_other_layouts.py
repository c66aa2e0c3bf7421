"""--sample full where the first axis of a batch is not what its loss is a mean over: time before batch, padded tokens,
graphs; and where it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import trajcheck
from trajcheck import Recorder

IGNORED = -100


class Net(nn.Module):
    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        self.hidden = nn.Linear(3, 5)
        self.norm: nn.Module = nn.BatchNorm1d(5) if norm else nn.Identity()
        self.out = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.norm(self.hidden(x))))


def random_batch(*shape: int, seed: int = 0, padded: int = 0) -> tuple[Tensor, Tensor]:
    """Inputs [*shape, 3] and classes [*shape], in the last `padded` of the second axis none."""
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(*shape, 3, generator=generator), torch.randint(2, shape, generator=generator)
    if padded:
        y[:, -padded:] = IGNORED
    return x, y


def mean_loss(model: nn.Module, batch: Any) -> Tensor:
    x, y = batch
    return F.cross_entropy(model(x).flatten(0, -2), y.flatten(), ignore_index=IGNORED)


#: (T, B, F): one length in time, fewer sequences in the last batch.
TIME_FIRST = [random_batch(4, 5, seed=1), random_batch(4, 5, seed=2), random_batch(4, 2, seed=3)]
#: (B, T, F), padded; the first batch without any padding.
PADDED = [random_batch(4, 6, seed=4), random_batch(4, 6, seed=5, padded=4), random_batch(3, 6, seed=6, padded=1)]
ROWS = [random_batch(4, seed=7), random_batch(4, seed=8), random_batch(3, seed=9)]


def terms(batch: Any) -> int:
    return int((batch[1] != IGNORED).sum())


def seeded(norm: bool = False) -> Net:
    torch.manual_seed(0)
    return Net(norm)


def with_count(model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
    return mean_loss(model, batch), (batch[1] != IGNORED).sum()


def zero_head() -> Net:
    """All losses are log 2 at the initial values, so that nothing is told by them."""
    model = seeded()
    nn.init.zeros_(model.out.weight)
    nn.init.zeros_(model.out.bias)
    return model


def time_first() -> Any:
    return seeded(), mean_loss, TIME_FIRST


def time_first_weight() -> Any:
    return seeded(), mean_loss, TIME_FIRST, terms


def padded() -> Any:
    return zero_head(), mean_loss, PADDED


def padded_count() -> Any:
    return seeded(), with_count, PADDED


def rows() -> Any:
    return zero_head(), mean_loss, ROWS


def rows_normalised() -> Any:
    return seeded(norm=True), mean_loss, ROWS


def no_number() -> Any:
    return seeded(), mean_loss, ROWS, lambda batch: float("nan")


CASES = {
    "time_first": ("equally, although", TIME_FIRST, [1, 1, 1]),
    "time_first_weight": ("as weight(batch) says", TIME_FIRST, [20, 20, 8]),
    "padded": ("equally, although", PADDED, [1, 1, 1]),
    "padded_count": ("by the counts", PADDED, [24, 8, 15]),
    "rows": ("by their lengths", ROWS, [4, 4, 3]),
    "rows_normalised": ("by their lengths", ROWS, [4, 4, 3]),
}


def trained(folder: Path, norm: bool) -> Path:
    model = seeded(norm)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    with Recorder(folder, model, optimizer, every=1, quiet=True) as recorder:
        for step in range(3):
            batch = random_batch(8, seed=20 + step)
            loss = mean_loss(model, batch)
            loss.backward()
            recorder.observe(batch, loss)
            optimizer.step()
            optimizer.zero_grad()
    return folder


def dense_losses(folder: Path, batches: list[Any], norm: bool) -> list[np.ndarray]:
    """The loss of each batch at each recorded iterate, in float64 numpy."""
    from safetensors.numpy import load_file

    found = []
    for path in sorted(folder.glob("step-*")):
        p = {name[6:]: t.astype(np.float64) for name, t in load_file(path).items() if name.startswith("param/")}
        losses = []
        for x, y in batches:
            h = x.double().numpy().reshape(-1, 3) @ p["hidden.weight"].T + p["hidden.bias"]
            if norm:
                h = (h - h.mean(0)) / np.sqrt(h.var(0) + 1e-5) * p["norm.weight"] + p["norm.bias"]
            logits = np.tanh(h) @ p["out.weight"].T + p["out.bias"]
            logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
            classes = y.numpy().reshape(-1)
            there = classes != IGNORED
            losses.append(-logs[there, classes[there]].mean())
        found.append(np.array(losses))
    return found


@pytest.mark.parametrize("name", list(CASES))
def test_the_mean_over_a_data_set_is_that_of_the_weights_that_are_said(name: str, tmp_path: Path) -> None:
    words, batches, weights = CASES[name]
    norm = name == "rows_normalised"
    run = trained(tmp_path / "run", norm)
    report = trajcheck.analyze(run, objective=f"{__file__}:{name}", sample=("full",), out=tmp_path / "report")
    right = [float(np.average(losses, weights=weights)) for losses in dense_losses(run, batches, norm)]
    np.testing.assert_allclose(report.steps["loss"], right, rtol=1e-5)
    assert report.summary["replay"]["data_set"].startswith(words)
    warned = [each for each in report.summary["warnings"] if "--sample full" in each]
    assert bool(warned) == words.startswith("equally, although")
    again = trajcheck.analyze(run, objective=f"{__file__}:{name}", sample=("full",), out=tmp_path / "report")
    assert again.summary["replay"]["data_set"] == report.summary["replay"]["data_set"]


def test_a_weight_that_is_no_number_is_refused(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", False)
    with pytest.raises(trajcheck.TrajcheckError, match=r"weight\(\) of batch 0 of the data set is nan; expected"):
        trajcheck.analyze(run, objective=f"{__file__}:no_number", sample=("full",), out=tmp_path / "report")
