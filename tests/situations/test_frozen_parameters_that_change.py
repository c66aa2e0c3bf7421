"""A teacher inside the model that follows the student: written through .data, or in place under no_grad."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from loops import read, recorded_steps
from torch import Tensor, nn
from torch.nn import functional as F

import trajcheck
from trajcheck.recording.schedule.schedules import Budget
from trajcheck.runs.trajectory import open_trajectory

SOURCE = """
import torch
from torch import nn
from torch.nn import functional as F

class Distilled(nn.Module):
    def __init__(self):
        super().__init__()
        self.student, self.teacher, self.base = nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(4, 4)
        for p in [*self.teacher.parameters(), *self.base.parameters()]:
            p.requires_grad_(False)

    def forward(self, x):
        x = self.base(x)
        return F.mse_loss(self.student(x), self.teacher(x))

def loss(model, batch):
    return model(batch)

def data():
    stream = torch.Generator().manual_seed(7)
    return [torch.randn(8, 4, generator=stream) for _ in range(2)]

def objective():
    return Distilled(), loss, data()
"""
MADE: dict[str, Any] = {}
exec(SOURCE, MADE)
Update = Callable[[nn.Module], None]


def student(model: nn.Module) -> list[nn.Parameter]:
    return list(model.get_submodule("student").parameters())


def pairs(model: nn.Module) -> list[tuple[nn.Parameter, nn.Parameter]]:
    return list(zip(model.get_submodule("teacher").parameters(), student(model), strict=True))


def through_data(model: nn.Module) -> None:
    for teacher, student in pairs(model):
        teacher.data = 0.8 * teacher.data + 0.2 * student.data


def through_data_in_place(model: nn.Module) -> None:
    for teacher, student in pairs(model):
        teacher.data.mul_(0.8).add_(student.data, alpha=0.2)


def under_no_grad(model: nn.Module) -> None:
    with torch.no_grad():
        for teacher, student in pairs(model):
            teacher.copy_(0.8 * teacher + 0.2 * student)


def made() -> nn.Module:
    torch.manual_seed(1)
    model: nn.Module = MADE["Distilled"]()
    return model


def train(model: nn.Module, folder: Path, update: Update, steps: range, **options: Any) -> list[nn.Module]:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.3)
    batches: list[Tensor] = MADE["data"]()
    models = []
    options = {"every": 1} | options
    with trajcheck.Recorder(
        folder, model, optimizer, start_step=steps.start, strict=True, quiet=True, **options
    ) as recorder:
        for step in steps:
            models.append(copy.deepcopy(model))
            loss = model(batches[step % 2])
            loss.backward()
            recorder.observe(batches[step % 2], loss)
            optimizer.step()
            optimizer.zero_grad()
            update(model)
    return [*models, copy.deepcopy(model)]


@pytest.mark.parametrize("update", [through_data, through_data_in_place, under_no_grad])
def test_the_convexity_of_a_student_towards_its_end(update: Update, tmp_path: Path) -> None:
    """Gaps on the step's own sample, with the step's own teacher at both points; on the data, each its own."""
    (tmp_path / "objective.py").write_text(SOURCE)
    models = [model.double() for model in train(made(), tmp_path / "run", update, range(5))]
    report = trajcheck.analyze(
        tmp_path / "run",
        ("final",),
        f"{tmp_path / 'objective.py'}:objective",
        sample=("own", "full"),
        replay_dtype="float64",
        out=tmp_path / "out",
    )
    batches = [batch.double() for batch in MADE["data"]()]
    numerators, denominators = [], []
    for step, model in enumerate(models[:-1]):
        end = copy.deepcopy(model)
        with torch.no_grad():
            for mine, theirs in zip(student(end), student(models[-1]), strict=True):
                mine.copy_(theirs)
        loss = model(batches[step % 2])
        gradients = torch.autograd.grad(loss, student(model))
        moves = zip(gradients, student(model), student(end), strict=True)
        numerators.append(sum(float((g * (x - y).detach()).sum()) for g, x, y in moves))
        denominators.append(loss.item() - end(batches[step % 2]).item())
    rows = report.references[report.references["sample"] == "own"]
    assert rows["convexity_ratio"].iloc[0] == pytest.approx(numerators[0] / denominators[0], rel=1e-5)
    assert rows["inst_gap"].tolist()[:5] == pytest.approx(
        [d - n for n, d in zip(numerators, denominators, strict=True)], rel=1e-4
    )
    full = [sum(model(batch).item() for batch in batches) / 2 for model in models]
    assert report.steps[report.steps["sample"] == "full"]["loss"].tolist() == pytest.approx(full, rel=1e-6)
    ends = report.references[report.references["sample"] == "full"]["loss_ref"].tolist()
    assert ends == pytest.approx([full[-1]] * 6, rel=1e-6)


def test_what_does_not_change_is_stored_once(tmp_path: Path) -> None:
    train(made(), tmp_path, through_data, range(3))
    held = [{name for name in read(tmp_path, step)[0] if name.startswith("param/base")} for step in range(4)]
    assert held == [{"param/base.weight", "param/base.bias"}, set(), set(), set()]
    assert all("param/teacher.weight" in read(tmp_path, step)[0] for step in range(4))


def teachers(folder: Path) -> dict[int, Tensor]:
    """What each step finds as its teacher's weight."""
    from trajcheck.files.extent_reader import ExtentReader
    from trajcheck.files.torch_tensors import read_tensor

    with ExtentReader() as reader:
        return {s.step: read_tensor(reader, s.frozen["teacher.weight"]) for s in open_trajectory(folder).snapshots}


@pytest.mark.parametrize("every", [1, 2])
def test_a_resumed_run_whose_frozen_values_were_changed_in_between(every: int, tmp_path: Path) -> None:
    """By the record that closes the job before, or, where that is gone, by what its records agree on."""
    model, folder = made(), tmp_path / "run"
    first = train(model, folder, lambda model: None, range(3), every=every)
    if every == 2:
        (folder / "step-000000003.safetensors").unlink()
    under_no_grad(model)
    words = "something changed frozen parameters between the job before and this one, which begins at step 3: "
    with pytest.warns(RuntimeWarning, match=words + r"teacher\.bias, teacher\.weight$"):
        second = train(model, folder, lambda model: None, range(3, 6), every=every)
    said = trajcheck.analyze(folder, out=tmp_path / "out", quiet=True).summary["warnings"]
    begins = 3 if every == 1 else 4
    frozen = f"frozen parameters changed during the run, at step {begins}: teacher.bias, teacher.weight. Each iterate"
    assert [line for line in said if line.startswith(frozen)]
    if every == 2:
        return
    found = teachers(folder)
    expected = {**dict(enumerate(first[:3])), **dict(enumerate(second, start=3))}
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[step], each.get_parameter("teacher.weight")) for step, each in expected.items())
    assert "param/base.weight" not in read(folder, 4)[0]


def test_records_that_others_refer_to_are_not_thinned(tmp_path: Path) -> None:
    """The teacher moves every 7 steps; whatever is deleted, each record that stays finds the teacher of its step."""
    model, count = made(), iter(range(1000))

    def seldom(model: nn.Module) -> None:
        if next(count) % 7 == 6:
            through_data(model)

    models = train(model, tmp_path, seldom, range(200), every=None, schedule=Budget(bytes=60_000))
    steps = recorded_steps(tmp_path)
    assert len(steps) < 100
    found = teachers(tmp_path)
    assert list(found) == steps
    for step in steps:
        assert torch.equal(found[step], models[step].get_parameter("teacher.weight")), step
    assert sum(file.stat().st_size for file in tmp_path.glob("step-*")) < 80_000


def test_a_buffer_that_is_put_in_anothers_place(tmp_path: Path) -> None:
    """As DINO's center: self.center = self.center * m + ..., which leaves the old tensor behind."""

    class Centred(nn.Module):
        center: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)
            self.register_buffer("center", torch.zeros(2))

        def forward(self, x: Tensor) -> Tensor:
            y = self.layer(x) - self.center
            self.center = 0.9 * self.center + 0.1 * y.detach().mean(0)
            return F.softplus(y).mean()

    torch.manual_seed(0)
    model = Centred()
    optimizer, centers = torch.optim.SGD(model.parameters(), lr=0.1), []
    with trajcheck.Recorder(tmp_path, model, optimizer, every=1, strict=True, quiet=True) as recorder:
        for _ in range(3):
            x = torch.randn(4, 3)
            centers.append(model.center.clone())
            loss = model(x)
            loss.backward()
            recorder.observe(x, loss)
            optimizer.step()
            optimizer.zero_grad()
    for step, center in enumerate([*centers, model.center]):
        assert torch.equal(read(tmp_path, step)[0]["buffer/center"], center)


def test_trained_values_that_were_changed_between_two_jobs_are_no_update(tmp_path: Path) -> None:
    """A job that goes on from other weights than its predecessor left: a rounded checkpoint, another file."""
    model, folder = made(), tmp_path / "run"
    train(model, folder, lambda model: None, range(3))
    with torch.no_grad():
        student(model)[0].copy_(student(model)[0].bfloat16())
    with pytest.warns(RuntimeWarning) as warned:
        train(model, folder, lambda model: None, range(3, 5))
    said = [str(each.message) for each in warned]
    assert [line for line in said if line.endswith("this one, which begins at step 3: student.weight")]
    assert read(folder, 3)[1]["unseen"] == {
        "times": 1,
        "first": 3,
        "last": 3,
        "tensors": ["student.weight"],
        "changed": 1,
    }
    report = trajcheck.analyze(folder, out=tmp_path / "out", quiet=True)
    assert [line for line in report.summary["warnings"] if line.startswith("before step 3 something else than SGD")]
    assert report.references.set_index("step")["update_dot_ref"].isna().tolist() == [
        False,
        False,
        True,
        False,
        False,
        True,
    ]
