"""schedule.csv: on convex runs of every schedule the bound holds, and is that of a plain double loop; what is not the
theorem's, or not measured, is named."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from plain_run_files import Outcome
from safetensors.numpy import save_file
from torch import nn
from torch.nn import functional as F

import trajcheck
from trajcheck.errors import BadInputError
from trajcheck.reports.quantities.schedule import sentences

Cli = Callable[..., Outcome]
STEPS = 40
SCHEDULES: dict[str, Callable[[int], float]] = {
    "constant": lambda t: 1.0,
    "linear": lambda t: 1 - t / STEPS,
    "cosine": lambda t: (1 + math.cos(math.pi * t / STEPS)) / 2,
    "wsd": lambda t: min(1.0, (STEPS - t) / 10),
    "to zero": lambda t: max(0.0, 1 - t / (STEPS - 3)),
}


def objective() -> tuple[nn.Module, Callable[..., torch.Tensor]]:
    return nn.Linear(4, 1).double(), loss_of


def loss_of(model: nn.Module, batch: Any) -> torch.Tensor:
    return F.softplus(-batch[1] * model(batch[0])).mean()


def data(rows: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    stream = torch.Generator().manual_seed(3)
    inputs = torch.randn(rows, 4, generator=stream, dtype=torch.float64)
    return inputs, torch.sign(inputs[:, :1] + 0.5 * torch.randn(rows, 1, generator=stream, dtype=torch.float64))


def record(
    run: Path,
    rate: Callable[[int], float],
    make: Callable[..., torch.optim.Optimizer] = torch.optim.SGD,
    minibatch: int = 0,
    clip: float | None = None,
    loss: Callable[..., torch.Tensor] = loss_of,
    probes: Sequence[Any] = (),
    apart: bool = False,
    **options: Any,
) -> dict[str, np.ndarray]:
    """A logistic regression, recorded every ninth step; what the loop saw of every one."""
    torch.manual_seed(0)
    model, whole = nn.Linear(4, 1).double(), data()
    optimizer = make(model.parameters(), lr=1.0)
    seen: dict[str, list[Any]] = {"x": [], "rate": [], "square": [], "loss": []}
    recording: dict[str, Any] = {"every": 9, "quiet": True, "strict": True, **options}
    with trajcheck.Recorder(run, model, optimizer, **recording) as recorder:
        if probes:
            recorder.probe(probes)
        for step in range(STEPS):
            batch = whole
            if minibatch:
                rows = torch.randint(24, (minibatch,), generator=torch.Generator().manual_seed(step))
                batch = whole[0][rows], whole[1][rows]
            for group in optimizer.param_groups[: 1 if apart else None]:
                group["lr"] = 2.0 * rate(step)
            value = loss(model, batch)
            value.backward()
            recorder.observe(batch, value)
            if clip is not None:
                recorder.clip_grad_norm_(clip)
            parameters = list(model.parameters())
            seen["x"].append(torch.cat([p.detach().ravel() for p in parameters]).numpy().copy())
            seen["square"].append(sum(float(p.grad.square().sum()) for p in parameters if p.grad is not None))
            seen["rate"].append(2.0 * rate(step))
            seen["loss"].append(value.item())
            optimizer.step()
            optimizer.zero_grad()
    seen["x"].append(torch.cat([p.detach().ravel() for p in model.parameters()]).numpy().copy())
    return {name: np.array(values) for name, values in seen.items()}


def plainly(seen: dict[str, np.ndarray], last: int) -> tuple[float, float, float]:
    """The second and third term, and the sum of the rates, of steps up to `last`."""
    eta, squares = seen["rate"][: last + 1], seen["square"][: last + 1]
    third = 0.0
    for k in range(last):
        after = sum(eta[t] for t in range(k + 1, last + 1))
        weighed = sum(eta[t] ** 2 * squares[t] for t in range(k, last + 1))
        third += eta[k] / after * weighed / sum(eta[k:]) / 2
    return float((eta**2 * squares).sum() / (2 * eta.sum())), third, float(eta.sum())


def analyzed(run: Path, out: Path, **options: Any) -> trajcheck.Report:
    return trajcheck.analyze(run, objective=f"{__file__}:objective", out=out, **options)


def part(report: trajcheck.Report, ref: str, sample: str = "own") -> pd.DataFrame:
    table = report.schedule
    assert table is not None
    return table[(table["ref"] == ref) & (table["sample"] == sample)].set_index("step")


@pytest.mark.parametrize("name", SCHEDULES)
def test_on_a_convex_run(name: str, tmp_path: Path) -> None:
    """Gradients of all of f at every step: x* may be any point, the last iterate among them."""
    seen = record(tmp_path / "run", SCHEDULES[name])
    report = analyzed(tmp_path / "run", tmp_path / "report", refs=["final", "init"])
    last = {"to zero": STEPS - 4}.get(name, STEPS - 1)
    rows = [t for t in range(0, STEPS, 9) if t <= last]
    for ref, star in (("final", seen["x"][-1]), ("init", seen["x"][0])):
        found = part(report, ref)
        assert list(found.index)[:-1] == rows[: len(found) - 1] and found.index[-1] <= last
        for step, row in found.iterrows():
            second, third, total = plainly(seen, int(str(step)))
            first = float(np.sum((seen["x"][0] - star) ** 2)) / (2 * total)
            terms = [row["gradient_term"], row["last_term"], row["rate_sum"], row["distance_term"]]
            np.testing.assert_allclose(terms, [second, third, total, first], rtol=1e-12, atol=1e-300)
            assert row["bound"] == pytest.approx(first + second + third)
            assert row["loss_gap"] == pytest.approx(seen["loss"][int(str(step))] - _loss(star), rel=1e-9)
            assert row["loss_gap"] <= row["bound"]
    assert report.schedule is not None
    assert (report.schedule["held"] == 1).all() and (report.schedule["theorem"] == 1).all()
    facts = report.summary["schedule"]
    assert facts["one_function"] and facts["first_step"] == 0
    said = list(sentences(report.schedule, report.summary))
    assert all("the bound holds, as of convex f it does, and of others it may" in each for each in said)


def _loss(x: np.ndarray, batch: tuple[torch.Tensor, torch.Tensor] | None = None) -> float:
    inputs, labels = data() if batch is None else batch
    return float(F.softplus(-labels[:, 0] * (inputs @ torch.tensor(x[:4]) + x[4])).mean())


def test_of_minibatches(tmp_path: Path) -> None:
    """One batch tells no gap of f; of means over trainings the inequality holds for an x* that no batch has made."""
    inputs, labels = data()
    probes = [(inputs[k : k + 6], labels[k : k + 6]) for k in range(0, 24, 6)]
    seen = record(tmp_path / "run", SCHEDULES["linear"], minibatch=6, probes=probes)
    report = analyzed(tmp_path / "run", tmp_path / "report", refs=["final", "init"], sample=["own", "probe"])
    own, probe = part(report, "init"), part(report, "init", "probe")
    last = int(own.index[-1])
    second, third, _ = plainly(seen, last)
    assert own["last_term"].iloc[-1] == pytest.approx(third, rel=1e-12)
    assert own["gradient_term"].iloc[-1] == pytest.approx(second, rel=1e-12)
    gaps = [_loss(seen["x"][last], each) - _loss(seen["x"][0], each) for each in probes]
    assert probe["loss_gap"].iloc[-1] == pytest.approx(np.mean(gaps))
    assert probe["loss_gap_se"].iloc[-1] == pytest.approx(np.std(gaps, ddof=1) / 2)
    assert own["held"].isna().all() and (probe["held"] != 0).all() and probe["held"].iloc[-1] == 1
    undefined = report.undefined[(report.undefined["table"] == "schedule") & (report.undefined["column"] == "held")]
    assert undefined["reason"].str.startswith("one batch tells f(x_T) - f(x*) without an error").any()
    assert (own["theorem"] == 1).all() and (part(report, "final")["theorem"] == 0).all()
    facts = report.summary["schedule"]
    assert not facts["one_function"] and "depends on the batches" in facts["not_theorem"]["final"]["probe"][0]
    assert report.schedule is not None
    said = list(sentences(report.schedule, report.summary))
    assert "of one batch and has no error: whether the bound holds is undetermined" in said[0]
    assert "not the theorem's" in said[0] and "not the theorem's" not in said[-1]
    assert "(standard error over batches): the bound holds" in said[-1]


def concave() -> tuple[nn.Module, Callable[..., torch.Tensor]]:
    return nn.Linear(4, 1).double(), concave_loss


def concave_loss(model: nn.Module, batch: Any) -> torch.Tensor:
    return -(model(batch[0]) ** 2).mean()


def test_a_function_that_is_not_convex_breaks_it(tmp_path: Path) -> None:
    record(tmp_path / "run", lambda t: 0.01, loss=concave_loss)
    save_file({"weight": np.full((1, 4), 9.0), "bias": np.zeros(1)}, tmp_path / "far.safetensors")
    options: dict[str, Any] = {"objective": f"{__file__}:concave", "out": tmp_path / "report"}
    report = trajcheck.analyze(tmp_path / "run", refs=[str(tmp_path / "far.safetensors")], **options)
    assert report.schedule is not None and report.schedule["held"].iloc[-1] == 0
    assert report.schedule["bound_share"].iloc[-1] > 1
    assert "the bound is broken: no convex f has such steps" in next(sentences(report.schedule, report.summary))


def test_what_is_not_known_is_named(tmp_path: Path) -> None:
    """Nothing is guessed: with the records of every step the bound is theirs, of some of them it ends with a reason."""
    seen = record(tmp_path / "all", SCHEDULES["cosine"], every=1, every_step=False)
    whole = trajcheck.analyze(tmp_path / "all", objective="none", out=tmp_path / "a")
    np.testing.assert_allclose(part(whole, "final")["last_term"].iloc[-1], plainly(seen, STEPS - 1)[1], rtol=1e-12)
    later = trajcheck.analyze(tmp_path / "all", objective="none", out=tmp_path / "l", steps="10:20")
    shifted = {name: values[10:] for name, values in seen.items()}
    found = part(later, "final").iloc[-1]
    assert (found.name, found["first_step"]) == (19, 10)
    assert found["last_term"] == pytest.approx(plainly(shifted, 9)[1], rel=1e-12)
    assert found["distance"] == pytest.approx(np.linalg.norm(seen["x"][10] - seen["x"][-1]))
    thin = trajcheck.analyze(tmp_path / "all", objective="none", out=tmp_path / "t", steps="::5")
    assert thin.summary["schedule"]["why"].startswith("the gradient's norm of step 1 is not known")
    assert list(part(thin, "final").index) == [0, 35]
    no_distance = trajcheck.analyze(tmp_path / "all", objective="none", out=tmp_path / "m", metrics=["progress"])
    reasons = no_distance.undefined.set_index(["table", "column"])["reason"]
    assert "--metrics leaves out the distances" in str(reasons["schedule", "bound"])


def test_groups_that_differ_and_steps_that_were_skipped(tmp_path: Path) -> None:
    def two_groups(parameters: Any, lr: float) -> torch.optim.Optimizer:
        weight, bias = parameters
        groups: list[dict[str, Any]] = [{"params": [weight]}, {"params": [bias], "lr": 0.5}]
        return torch.optim.SGD(groups, lr=lr)

    record(tmp_path / "run", SCHEDULES["constant"], make=two_groups, apart=True)
    report = trajcheck.analyze(tmp_path / "run", objective="none", out=tmp_path / "r")
    assert report.summary["schedule"]["why"].startswith("parameter groups differ in their rates at step 0")
    with pytest.raises(BadInputError, match="no rate of a step is known: parameter groups"):
        trajcheck.schedule(tmp_path / "run")
    seen = record(tmp_path / "skips", SCHEDULES["linear"])
    file = tmp_path / "skips" / "every-step.f64"
    numbers = np.fromfile(file, "<f8").reshape(-1, 4)
    numbers[5] = numbers[5, 0], 0.0, math.nan, 0.0  # as where a loss scaler skips the update
    file.write_bytes(numbers.tobytes())
    skipping = trajcheck.analyze(tmp_path / "skips", objective="none", out=tmp_path / "s")
    seen["rate"][5] = 0.0
    assert part(skipping, "final")["last_term"].iloc[-1] == pytest.approx(plainly(seen, 36)[1], rel=1e-12)
    assert skipping.summary["schedule"]["skipped"] == 1


def test_what_is_printed(tmp_path: Path, cli: Cli) -> None:
    record(tmp_path / "run", SCHEDULES["wsd"])
    shown = cli("analyze", tmp_path / "run", "--objective", "none", "--out", tmp_path / "r", "--show", "schedule")
    assert "Towards final, on the one batch of all steps: the bound at step 36 is" in shown.out
    assert max(map(len, shown.out.splitlines())) <= 80
    assert cli("report", tmp_path / "r", "--show", "schedule").out.strip() in shown.out
    printed = json.loads(
        cli(
            *("analyze", tmp_path / "run", "--objective", "none", "--out", tmp_path / "r"),
            *("--show", "schedule", "--format", "json"),
        ).out
    )
    assert [row["step"] for row in printed["schedule"]] == [0, 9, 18, 27, 36]


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "momentum": ({"make": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9)}, "the optimizer is SGD with momentum"),
    "adam": ({"make": torch.optim.Adam}, "the optimizer is Adam"),
    "decay": ({"make": lambda p, lr: torch.optim.SGD(p, lr=lr, weight_decay=0.1)}, "weight decay makes the steps"),
    "clipped": ({"clip": 0.01}, "gradients were clipped"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_the_theorems_is_named(name: str, tmp_path: Path) -> None:
    options, said = OTHERS[name]
    record(tmp_path / "run", SCHEDULES["constant"], **options)
    report = trajcheck.analyze(tmp_path / "run", objective="none", out=tmp_path / "report")
    assert report.schedule is not None and (report.schedule["theorem"] == 0).all()
    why = report.summary["schedule"]["not_theorem"]["final"]["own"]
    assert any(each.startswith(said) for each in why), why
    assert report.schedule["bound"].notna().all() and "held" not in report.schedule
    if name != "clipped":
        assert any("the updates' lengths are not eta_t |g_t|" in each for each in why)
    found = trajcheck.schedule(tmp_path / "run", distance=1.0, loss_ref=0.0)
    assert found.theorem is False and any(each.startswith(said) for each in found.not_theorem)
