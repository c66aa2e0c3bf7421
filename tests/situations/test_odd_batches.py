"""What data loaders give that is no dict of tensors: packed sequences, dataclasses, numpy, odd keys and numbers; and
batches that no file can hold, which cost the batch and not the record."""

from __future__ import annotations

import collections
import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence, pad_sequence

import trajcheck
from trajcheck import Recorder


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.r, self.o = nn.GRU(3, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x: Any) -> Tensor:
        return self.o(self.r(x)[1][-1])


def loss_of(model: nn.Module, batch: Any) -> Tensor:
    if hasattr(batch, "keys"):
        x, y = batch["x"], batch["y"]
    elif hasattr(batch, "x"):
        x, y = batch.x, batch.y
    else:
        x, y = batch
    if torch.is_tensor(x) and x.is_nested:
        x = x.to_padded_tensor(0.0)
    return nn.functional.cross_entropy(model(x), y)


def net() -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    return Net(), loss_of


@dataclasses.dataclass
class Data:
    x: Tensor
    y: Tensor


Pair = collections.namedtuple("Pair", "x y")

KINDS = [
    *(
        "packed",
        "nested",
        "dataclass",
        "named",
        "UserDict",
        "encoding",
        "array",
        "numpy float",
        "NaN",
        "key",
        "complex",
    ),
]


def made(kind: str, generator: torch.Generator) -> Any:
    sequences = [torch.randn(n, 3, generator=generator) for n in (4, 3, 2, 2)]
    x, y = pad_sequence(sequences, batch_first=True), torch.randint(2, (4,), generator=generator)
    plain = {"x": x, "y": y}
    match kind:
        case "packed":
            return pack_sequence(sequences), y
        case "nested":
            return torch.nested.nested_tensor(sequences), y
        case "dataclass":
            return Data(x, y)
        case "named":
            return Pair(x, y)
        case "UserDict":
            return collections.UserDict(plain)
        case "encoding":
            return pytest.importorskip("transformers").BatchEncoding(plain)
        case "array":
            return {**plain, "index": np.arange(4)}
        case "numpy float":
            return {**plain, "weight": np.float32(1.0)}
        case "NaN":
            return {**plain, "score": float("nan")}
        case "key":
            return {**plain, 3: x}
        case "complex":
            return {**plain, "c": torch.ones(2, dtype=torch.complex128)}
    return {**plain, "where": object()}


def train(run: Path, kind: str, **options: Any) -> list[float]:
    model, _ = net()
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=0.1), []
    generator = torch.Generator().manual_seed(1)
    with Recorder(run, model, optimizer, every=1, quiet=True, **options) as recorder:
        for _ in range(4):
            batch = made(kind, generator)
            loss = loss_of(model, batch)
            loss.backward()
            recorder.observe(batch, loss)
            losses.append(float(loss.detach()))
            optimizer.step()
            optimizer.zero_grad()
    return losses


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("kind", KINDS)
def test_the_batch_comes_back_as_what_it_was(kind: str, tmp_path: Path) -> None:
    losses = train(tmp_path / "run", kind)
    assert len(list((tmp_path / "run").glob("step-*"))) == 5
    report = trajcheck.analyze(tmp_path / "run", objective=f"{__file__}:net", out=tmp_path / "report")
    np.testing.assert_allclose(report.steps["loss"][:4], losses, rtol=1e-6)
    assert report.steps["replay_grad_error"].max() < 1e-5


def test_a_batch_that_no_file_can_hold_costs_the_batch_alone(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.warns(RuntimeWarning, match=r"cannot be stored: batch\['where'\] is a object") as heard:
        losses = train(run, "object")
    assert len([each for each in heard if each.category is RuntimeWarning]) == 1
    files = sorted(run.glob("step-*"))
    assert len(files) == 5
    with safe_open(files[2], framework="pt") as file:
        assert {name.partition("/")[0] for name in file.keys()}  # noqa: SIM118 == {"param", "grad"}
        metadata = json.loads(file.metadata()["trajcheck"])
    assert metadata["loss"] == pytest.approx(losses[2])
    assert metadata["omitted"]["batch"].startswith("batch['where'] is a object (<object object")
    report = trajcheck.analyze(run, objective=f"{__file__}:net", out=tmp_path / "report")
    assert report.references["cos"].notna().sum() == 4  # x_t and g_t are there
    undefined = (tmp_path / "report" / "undefined.csv").read_text()
    assert "no batch was recorded at this step: batch['where'] is a object" in undefined


def test_one_odd_micro_batch_among_good_ones_costs_the_step_its_batch(tmp_path: Path) -> None:
    model, _ = net()
    optimizer, generator = torch.optim.SGD(model.parameters(), lr=0.1), torch.Generator().manual_seed(1)
    recorder = Recorder(tmp_path / "run", model, optimizer, every=1, quiet=True)
    with warnings.catch_warnings(record=True), recorder:
        warnings.simplefilter("always")
        for step in range(3):
            for micro in range(2):
                batch = made("object" if step == micro == 1 else "dataclass", generator)
                loss = loss_of(model, batch)
                (loss / 2).backward()
                recorder.observe(batch, loss, weight=0.5)
            optimizer.step()
            optimizer.zero_grad()
    report = trajcheck.analyze(tmp_path / "run", objective=f"{__file__}:net", out=tmp_path / "report")
    assert report.steps["replay_grad_error"].notna().tolist() == [True, False, True, False]
    assert report.steps["replay_grad_error"].max() < 1e-5


def test_an_exported_program_refuses_other_numbers_in_an_array_that_it_holds(tmp_path: Path) -> None:
    losses = train(tmp_path / "run", "array", objective=loss_of)  # the same array in every batch
    report = trajcheck.analyze(tmp_path / "run", objective="run", out=tmp_path / "report")
    np.testing.assert_allclose(report.steps["loss"][:4], losses, rtol=1e-6)

    def scaled(model: nn.Module, batch: Any) -> Tensor:
        return loss_of(model, batch) * float(batch["scale"].sum())

    model, _ = net()
    optimizer, generator = torch.optim.SGD(model.parameters(), lr=0.1), torch.Generator().manual_seed(1)
    with Recorder(tmp_path / "other", model, optimizer, every=1, quiet=True, objective=scaled) as recorder:
        for step in range(2):
            batch = {**made("plain", generator), "scale": np.full(2, 1.0 + step)}
            batch.pop("where")
            loss = scaled(model, batch)
            loss.backward()
            recorder.observe(batch, loss)
            optimizer.step()
            optimizer.zero_grad()
    with pytest.raises(trajcheck.TrajcheckError, match="its array 'scale' has other numbers than in the export"):
        trajcheck.analyze(tmp_path / "other", objective="run", out=tmp_path / "no")
