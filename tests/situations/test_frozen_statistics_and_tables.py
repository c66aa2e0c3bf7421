"""Trainings whose loss depends on buffers: frozen pretrained BatchNorm, spectral_norm, a table of positions."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

import trajcheck

#: What the objective files import: the module whose make(KIND) makes a model as a user's code would, from scratch.
SOURCE = """
import torch
from torch import nn
from torch.nn import functional as F

class Net(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.bn = nn.BatchNorm1d(6) if kind == "batchnorm" else nn.Identity()
        self.second = nn.Linear(6, 3)
        if kind == "spectral":
            self.second = nn.utils.parametrizations.spectral_norm(self.second)
        if kind == "table":
            self.register_buffer("table", torch.zeros(6), persistent=False)
        self.kind = kind
    def forward(self, x):
        h = torch.tanh(self.bn(self.first(x)))
        return self.second(h + self.table if self.kind == "table" else h)

def loss(model, batch):
    return F.mse_loss(model(batch[0]), batch[1])

def data():
    stream = torch.Generator().manual_seed(7)
    return [(torch.randn(8, 4, generator=stream), torch.randn(8, 3, generator=stream)) for _ in range(2)]

def make(kind):
    torch.manual_seed(3)
    return Net(kind), loss, data()

def batchnorm(): return make("batchnorm")
def spectral(): return make("spectral")
def table(): return make("table")
"""


@pytest.fixture
def source(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "objective.py").write_text(SOURCE)
    made: dict[str, Any] = {}
    exec(SOURCE, made)
    return made


def pretrained(source: dict[str, Any], kind: str, seed: int) -> nn.Module:
    """A model as it comes from a checkpoint: with other buffers than a freshly made one."""
    model: nn.Module = source["make"](kind)[0]
    stream = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith(("running_mean", "table")):
                buffer.copy_(torch.randn(buffer.shape, generator=stream))
            elif name.endswith("running_var"):
                buffer.copy_(0.2 + torch.rand(buffer.shape, generator=stream))
    if kind == "batchnorm":
        model.get_submodule("bn").eval()
    return model


def train(source: dict[str, Any], folder: Path, model: nn.Module, steps: int = 4, lr: float = 0.1) -> list[nn.Module]:
    """Recorded; copies of the model before each step and at the end."""
    optimizer, batches = torch.optim.SGD(model.parameters(), lr=lr), source["data"]()
    copies = []
    with trajcheck.Recorder(folder, model, optimizer, every=1, strict=True, quiet=True) as recorder:
        for step in range(steps):
            copies.append(copy.deepcopy(model))
            batch = batches[step % 2]
            loss = F.mse_loss(model(batch[0]), batch[1])
            loss.backward()
            recorder.observe(batch, loss)
            optimizer.step()
            optimizer.zero_grad()
    return [*copies, copy.deepcopy(model)]


def dense(source: dict[str, Any], model: nn.Module) -> float:
    """The mean loss over the data, in the modes that the model is in, without touching it."""
    model = copy.deepcopy(model).double()
    batches: list[tuple[Tensor, Tensor]] = source["data"]()
    values = []
    for x, y in batches:
        one = copy.deepcopy(model)
        values.append(F.mse_loss(one(x.double()), y.double()).item())
    return sum(values) / len(values)


def analyzed(tmp_path: Path, kind: str, refs: tuple[str, ...], sample: str) -> trajcheck.Report:
    return trajcheck.analyze(
        tmp_path / "run",
        refs,
        f"{tmp_path / 'objective.py'}:{kind}",
        sample=(sample,),
        replay_dtype="float64",
        out=tmp_path / "report",
    )


@pytest.mark.parametrize("kind", ["batchnorm", "table"])
def test_the_last_iterate_is_evaluated_with_its_own_buffers(kind: str, source: dict[str, Any], tmp_path: Path) -> None:
    models = train(source, tmp_path / "run", pretrained(source, kind, 1))
    report = analyzed(tmp_path, kind, ("final", "init"), "full")
    assert report.steps["loss"].tolist() == pytest.approx([dense(source, model) for model in models], rel=1e-6)
    loss_ref = report.references.set_index("ref")["loss_ref"]
    assert loss_ref["final"].tolist() == pytest.approx([dense(source, models[-1])] * 5, rel=1e-6)
    assert loss_ref["init"].tolist() == pytest.approx([dense(source, models[0])] * 5, rel=1e-6)


def test_two_runs_with_other_tables_each_have_their_own(source: dict[str, Any], tmp_path: Path) -> None:
    one, other = pretrained(source, "table", 1), pretrained(source, "table", 2)
    train(source, tmp_path / "run", one)
    models = train(source, tmp_path / "other", other)
    final = train(source, tmp_path / "again", pretrained(source, "table", 1))[-1]
    objective = f"{tmp_path / 'objective.py'}:table"
    compared = trajcheck.compare(
        tmp_path / "run",
        tmp_path / "other",
        objective=objective,
        sample="full",
        line=1,
        replay_dtype="float64",
        out=tmp_path / "compared",
    )
    last = compared.pairs.iloc[-1]
    assert last["line_0"] == pytest.approx(dense(source, final), rel=1e-6)
    assert last["line_1"] == pytest.approx(dense(source, models[-1]), rel=1e-6)
    middle = copy.deepcopy(final)
    with torch.no_grad():
        pairs = zip(
            [*middle.parameters(), *middle.buffers()], [*models[-1].parameters(), *models[-1].buffers()], strict=True
        )
        for mine, theirs in pairs:
            mine.lerp_(theirs, 0.5)
    assert last["line_0.5"] == pytest.approx(dense(source, middle), rel=1e-6)
    for sample in ("full", "own"):
        report = analyzed(tmp_path, "table", (str(tmp_path / "other"),), sample)
        found = report.references["loss_ref"].dropna().tolist()
        if sample == "full":
            assert found == pytest.approx([dense(source, models[-1])] * 5, rel=1e-6)
        else:  # a table is part of the model, not of the sample
            model = models[-1].double()
            batches = [tuple(each.double() for each in batch) for batch in source["data"]()]
            dense_own = [F.mse_loss(model(x), y).item() for x, y in (batches[step % 2] for step in range(4))]
            assert found == pytest.approx(dense_own, rel=1e-6)


def test_a_reference_file_with_buffers_is_evaluated_with_them(source: dict[str, Any], tmp_path: Path) -> None:
    train(source, tmp_path / "run", pretrained(source, "table", 1))
    other = pretrained(source, "table", 2)
    tensors = {**dict(other.named_parameters()), **dict(other.named_buffers())}
    save_file({name: t.detach().contiguous() for name, t in tensors.items()}, tmp_path / "other.safetensors")
    report = analyzed(tmp_path, "table", (str(tmp_path / "other.safetensors"),), "full")
    assert report.references["loss_ref"].tolist() == pytest.approx([dense(source, other)] * 5, rel=1e-6)


def test_spectral_norm_at_every_iterate(source: dict[str, Any], tmp_path: Path) -> None:
    """In evaluation sigma is u^T W v with the vectors of that very iterate."""
    model = pretrained(source, "spectral", 1)
    for _ in range(3):  # the vectors are not a fresh model's any more
        model(torch.randn(2, 4, generator=torch.Generator().manual_seed(0)))
    model.eval()
    models = train(source, tmp_path / "run", model)
    report = analyzed(tmp_path, "spectral", ("final",), "full")
    assert report.steps["loss"].tolist() == pytest.approx([dense(source, each) for each in models], rel=1e-6)
    assert report.references["loss_ref"].tolist() == pytest.approx([dense(source, models[-1])] * 5, rel=1e-6)


def test_a_line_in_evaluation_with_statistics_computed_anew(source: dict[str, Any], tmp_path: Path) -> None:
    ends = []
    for seed, name in ((1, "run"), (2, "other")):
        model = pretrained(source, "batchnorm", seed).train()
        ends.append(train(source, tmp_path / name, model, lr=0.02 * seed)[-1])
    compared = trajcheck.compare(
        tmp_path / "run",
        tmp_path / "other",
        objective=f"{tmp_path / 'objective.py'}:batchnorm",
        sample="full",
        line=1,
        mode="eval",
        replay_dtype="float64",
        out=tmp_path / "compared",
    )
    batches: list[tuple[Tensor, Tensor]] = source["data"]()
    for s in (0.0, 0.5, 1.0):
        model = copy.deepcopy(ends[0]).double()
        with torch.no_grad():
            for mine, theirs in zip(model.parameters(), ends[1].parameters(), strict=True):
                mine.lerp_(theirs.double(), s)
        torch.optim.swa_utils.update_bn([x.double() for x, _ in batches], model)
        expected = dense(source, model.eval())
        assert compared.pairs.iloc[-1][f"line_{s:g}"] == pytest.approx(expected, rel=1e-6)
    assert compared.summary["line"]["mode"] == "evaluation"


def test_a_line_says_which_statistics_it_interpolated(source: dict[str, Any], tmp_path: Path) -> None:
    for seed, name in ((1, "run"), (2, "other")):
        train(source, tmp_path / name, pretrained(source, "batchnorm", seed))
    compared = trajcheck.compare(
        tmp_path / "run",
        tmp_path / "other",
        objective=f"{tmp_path / 'objective.py'}:batchnorm",
        line=1,
        out=tmp_path / "compared",
    )
    assert compared.summary["line"]["mode"] == "training, with bn in evaluation"
    assert any("bn.running_mean" in warning and "--mode eval" in warning for warning in compared.summary["warnings"])


def test_buffers_that_records_lack_are_named(source: dict[str, Any], tmp_path: Path) -> None:
    """As a run has them that was written by hand, or whose last record holds parameters alone."""
    model = pretrained(source, "table", 1)
    models = train(source, tmp_path / "run", model)
    without(tmp_path / "run" / "step-000000004.safetensors", "buffers_from")
    report = analyzed(tmp_path, "table", ("final",), "full")
    assert any("1 steps, the first of them step 4, hold no buffer table: that of step 3" in w for w in warnings(report))
    assert report.steps["loss"].tolist() == pytest.approx([dense(source, each) for each in models], rel=1e-6)
    for step in range(1, 4):
        without(tmp_path / "run" / f"step-00000000{step}.safetensors", "buffers_from")
    without(tmp_path / "run" / "step-000000000.safetensors", "buffer/table")
    report = analyzed(tmp_path, "table", ("final",), "full")
    assert any("the run holds no buffer table" in warning for warning in warnings(report))


def warnings(report: trajcheck.Report) -> list[str]:
    found: list[str] = report.summary["warnings"]
    return found


def without(file: Path, what: str) -> None:
    """Write a step file again without one of its tensors, or entries of its metadata."""
    with safe_open(file, framework="pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys() if name != what}  # noqa: SIM118
        metadata = json.loads(opened.metadata()["trajcheck"])
    metadata = {key: value for key, value in metadata.items() if key not in (what, "checksum")}
    save_file(tensors, file, {"trajcheck": json.dumps(metadata)})


def test_the_mode_and_another_table_are_said(source: dict[str, Any], tmp_path: Path) -> None:
    train(source, tmp_path / "run", pretrained(source, "table", 1))
    train(source, tmp_path / "other", pretrained(source, "table", 2))
    report = analyzed(tmp_path, "table", (str(tmp_path / "other"),), "own")
    assert report.summary["replay"]["modes"] == {"training": 5}
    assert any("holds another table than the run" in warning for warning in warnings(report))
