"""Momentum, weight decay and betas that change during training: each column uses what the update of its step used.

The dense values here are from what the loop itself noted at every step, and from the recorded tensors.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file
from torch import nn

import trajcheck
import trajcheck.inner_products.loop

STEPS = 12
NET = """
import torch

def net():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 2))
    return model, lambda model, batch: torch.nn.functional.cross_entropy(model(batch[0]), batch[1])
"""


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))


def train(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    before: Callable[[int], object] = lambda step: None,
    after: Callable[[], object] = lambda: None,
    between: Callable[[], object] = lambda: None,
    **options: Any,
) -> list[list[dict[str, Any]]]:
    """Train under a Recorder; the settings of every group at every step. `between` runs once the Recorder is made."""
    stream, used = torch.Generator().manual_seed(1), []
    with trajcheck.Recorder(folder, model, optimizer, quiet=True, strict=True, **{"every": 1, **options}) as recorder:
        between()
        recorder.probe([(torch.ones(16, 4), torch.zeros(16, dtype=torch.int64))])
        for step in range(STEPS):
            before(step)
            batch = torch.randn(16, 4, generator=stream), torch.randint(2, (16,), generator=stream)
            loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
            loss.backward()
            recorder.observe(batch, loss)
            used.append([{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups])
            optimizer.step()
            optimizer.zero_grad()
            after()
    return used


def analyzed(tmp_path: Path, **options: Any) -> Any:
    return trajcheck.analyze(tmp_path / "run", out=tmp_path / "report", quiet=True, **options)


def with_thresholds(tmp_path: Path) -> Any:
    (tmp_path / "net.py").write_text(NET)
    return analyzed(tmp_path, objective=f"{tmp_path / 'net.py'}:net", curvature=1)


def metadata(run: Path, step: int) -> dict[str, Any]:
    with safe_open(run / f"step-{step:09d}.safetensors", "np") as file:
        found: dict[str, Any] = json.loads(file.metadata()["trajcheck"])
    return found


def thresholds(report: Any) -> pd.Series:
    return report.steps.set_index("step")["stability_threshold"]


def test_a_one_cycle_schedule_cycles_momentum(tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.5, total_steps=STEPS + 1)
    used = train(tmp_path / "run", model, optimizer, after=schedule.step)
    found = thresholds(with_thresholds(tmp_path))
    assert len({each[0]["momentum"] for each in used}) > 5
    for step, ((group,)) in enumerate(used):
        assert found[step] == pytest.approx(2 * (1 + group["momentum"]) / group["lr"], rel=1e-12)


def test_momentum_is_warmed_up_from_none(tmp_path: Path) -> None:
    """76 with momentum 0.9 at a rate of 0.05, and 40 while there was none; what holds of plain SGD holds of the steps
    that were plain."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def warm(step: int) -> None:
        optimizer.param_groups[0]["momentum"] = 0.0 if step < 4 else 0.9

    train(tmp_path / "run", model, optimizer, before=warm)
    report = with_thresholds(tmp_path)
    assert thresholds(report)[:12].tolist() == pytest.approx([40] * 4 + [76] * 8, rel=1e-12)
    rows = report.references.set_index("step")
    assert rows["lo_lr"][:4].notna().all()
    assert rows["lo_lr"][4:12].isna().all()
    assert rows["lr"][:4].tolist() == [0.05] * 4
    reasons = report.undefined[report.undefined["column"] == "lo_lr"]["reason"]
    assert reasons.str.contains("SGD with momentum").any()
    # a later iterate holds the steps with momentum too, so noise's cosine towards it is known at none of the steps
    assert "cos_floor" not in rows or rows["cos_floor"].isna().all()
    assert report.summary["run"]["plain_sgd"] is False


def test_momentum_is_dropped_before_the_end(tmp_path: Path) -> None:
    """From there on the steps are those of plain SGD, and noise's cosine towards the last iterate is known."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def drop(step: int) -> None:
        optimizer.param_groups[0]["momentum"] = 0.9 if step < 7 else 0.0

    train(tmp_path / "run", model, optimizer, before=drop)
    rows = analyzed(tmp_path).references.set_index("step")
    assert rows["cos_floor"][:7].isna().all()
    assert rows["cos_floor"][7:12].tolist() == pytest.approx([1 / (12 - t) ** 0.5 for t in range(7, 12)], rel=1e-9)
    assert rows["lo_lr"][7:12].notna().all()
    assert "implied_rate" not in rows or rows["implied_rate"].isna().all()  # the path holds steps with momentum


def test_a_checkpoint_is_loaded_once_the_recorder_is_made(tmp_path: Path) -> None:
    """51.4 = 2 (1 + 0.8) / 0.07, and 28.6 without the momentum that the checkpoint brings."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.07)
    other = torch.optim.SGD(copy.deepcopy(model).parameters(), lr=0.07, momentum=0.8, weight_decay=0.5)
    state = other.state_dict()
    train(tmp_path / "run", model, optimizer, between=lambda: optimizer.load_state_dict(state))
    report = with_thresholds(tmp_path)
    assert thresholds(report)[:12].tolist() == pytest.approx([2 * 1.8 / 0.07] * 12, rel=1e-12)
    rows = report.references.set_index("step")
    check_decayed(tmp_path / "run", rows, lambda step: [0.5], 1e-4)
    groups = [metadata(tmp_path / "run", step)["groups"] for step in range(STEPS + 1)]
    assert groups == [[{"momentum": 0.8, "weight_decay": 0.5}]] * 13  # each record stands by itself


def check_decayed(run: Path, rows: pd.DataFrame, decay: Callable[[int], list[float]], tolerance: float) -> None:
    """rsi_wd, eb_wd, cos_wd towards the last iterate, from the recorded tensors; the decay of each group, of which the
    second has the biases."""
    end = load_file(run / f"step-{STEPS:09d}.safetensors")
    for step in range(STEPS):
        here, groups = load_file(run / f"step-{step:09d}.safetensors"), decay(step)
        errors, regularised = [], []
        for key in [key for key in here if key.startswith("param/")]:
            of = groups[-1] if key.endswith("bias") else groups[0]
            x, g = here[key].astype(np.float64), here[key.replace("param/", "grad/")].astype(np.float64)
            errors.append((x - end[key].astype(np.float64)).ravel())
            regularised.append((g + of * x).ravel())
        e, g = np.concatenate(errors), np.concatenate(regularised)
        assert rows.loc[step, "rsi_wd"] == pytest.approx(g @ e / (e @ e), rel=tolerance)
        assert rows.loc[step, "eb_wd"] == pytest.approx(np.sqrt(g @ g / (e @ e)), rel=tolerance)
        assert rows.loc[step, "cos_wd"] == pytest.approx(g @ e / np.sqrt(g @ g * (e @ e)), rel=tolerance)


@pytest.mark.parametrize("way", ["compiled", "numpy", "replayed"])
def test_weight_decay_of_every_step(tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As DINO and Megatron schedule it: from 0 on, in one group of two; the other has none until step 6."""
    if way == "numpy":
        monkeypatch.setattr(trajcheck.inner_products.loop, "_library", lambda: None)
    model = network()
    biases = [p for name, p in model.named_parameters() if name.endswith("bias")]
    weights = [p for name, p in model.named_parameters() if not name.endswith("bias")]
    optimizer = torch.optim.SGD([{"params": weights}, {"params": biases}], lr=0.1, weight_decay=0.0)

    def decay(step: int) -> list[float]:
        return [0.1 * step, 2.0 if step >= 6 else 0.0]

    def schedule(step: int) -> None:
        for group, value in zip(optimizer.param_groups, decay(step), strict=True):
            group["weight_decay"] = value

    train(tmp_path / "run", model, optimizer, before=schedule)
    (tmp_path / "net.py").write_text(NET)
    options = {"objective": f"{tmp_path / 'net.py'}:net"} if way == "replayed" else {}
    report = analyzed(tmp_path, **options)
    rows = report.references.set_index("step")
    check_decayed(tmp_path / "run", rows, decay, 1e-4 if way == "replayed" else 1e-9)
    assert rows.loc[0, "cos_wd"] == pytest.approx(rows.loc[0, "cos"], rel=1e-12)  # none yet: g_t itself
    assert report.summary["run"]["plain_sgd"] is True
    assert np.isfinite(rows.loc[0, "lo_lr"])
    assert rows["lo_lr"][1:12].isna().all()


def test_what_was_saved_under_another_decay_is_not_used_again(tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.5)
    train(tmp_path / "run", model, optimizer)
    check_decayed(tmp_path / "run", analyzed(tmp_path).references.set_index("step"), lambda step: [0.5], 1e-9)
    path = tmp_path / "run" / "run.json"
    text = json.loads(path.read_text())
    text["optimizer"]["groups"][0]["weight_decay"] = 0.25
    path.write_text(json.dumps(text))
    check_decayed(tmp_path / "run", analyzed(tmp_path).references.set_index("step"), lambda step: [0.25], 1e-9)


def test_betas_and_decay_of_adamw_are_recorded_where_they_change(tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.0)

    def schedule(step: int) -> None:
        if step == 5:
            optimizer.param_groups[0]["betas"] = (0.8, 0.99)
            optimizer.param_groups[0]["weight_decay"] = 0.1

    train(tmp_path / "run", model, optimizer, before=schedule, every=2)
    found = [metadata(tmp_path / "run", step).get("groups") for step in (0, 2, 4, 6, 8, 10, 12)]
    assert found == [None] * 3 + [[{"betas": [0.8, 0.99], "weight_decay": 0.1}]] * 4
    report = analyzed(tmp_path)
    assert any("decoupled" in warning for warning in report.summary["warnings"])
    assert report.references["cos_wd"].notna().any()


def test_a_flow_is_told_of_momentum_that_came_later(tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def warm(step: int) -> None:
        optimizer.param_groups[0].update(momentum=0.9 if step else 0.0, weight_decay=0.1 if step > 3 else 0.0)

    train(tmp_path / "run", model, optimizer, before=warm)
    (tmp_path / "net.py").write_text(NET)
    report = trajcheck.flow(
        tmp_path / "run", f"{tmp_path / 'net.py'}:net", sample="probe", out=tmp_path / "flow", rtol=1e-2, quiet=True
    )
    (warning,) = [each for each in report.summary["warnings"] if "is not gradient descent" in each]
    assert "with momentum" in warning
    assert "weight decay" in warning


@pytest.mark.parametrize(
    "groups", [{}, [1], [{"momentum": "much"}], [{"weight_decay": [0.1]}], [{"x": {"y": 1}}], [{"x": "y" * 1000}]]
)
def test_settings_of_another_kind_are_refused(tmp_path: Path, groups: Any) -> None:
    model = network()
    train(tmp_path / "run", model, torch.optim.SGD(model.parameters(), lr=0.05))
    from safetensors.numpy import save_file

    path = tmp_path / "run" / "step-000000003.safetensors"
    save_file(load_file(path), path, {"trajcheck": json.dumps({"format": 1, "step": 3, "groups": groups})})
    with pytest.raises(trajcheck.TrajcheckError, match="groups"):
        analyzed(tmp_path)
