"""FILE.py:NAME: loading an objective, and files that cannot be used."""

from __future__ import annotations

import pickle
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small_objectives import CPU, Recurrent, parameters_of, regression_batch, squared_error
from torch import Tensor, nn

from trajcheck.errors import ObjectiveError, UsageError
from trajcheck.objective.devices import resolve_device
from trajcheck.objective.loading import load_objective
from trajcheck.objective.objective import Objective
from trajcheck.objective.sample import make_sample

GOOD = """
from helper_beside import size
import torch
from torch import nn

class Net(nn.Linear):
    pass

def make():
    from late_helper import rate
    return Net(size, 2), loss

def loss(model, batch):
    import even_later
    return ((model(batch[0]) - batch[1]) ** 2).mean()

def swapped():
    return loss, Net(3, 2)

def nothing():
    pass

def raises():
    raise ValueError("no data here")

def failing():
    def fail(model, batch):
        return model(batch[0]) + undefined_name
    return Net(3, 2), fail

number = 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text(GOOD)
    (tmp_path / "helper_beside.py").write_text("size = 3\n")
    (tmp_path / "late_helper.py").write_text("rate = 1\n")
    (tmp_path / "even_later.py").write_text("")
    return tmp_path


def test_load_from_a_file(folder: Path) -> None:
    path, bytecode = list(sys.path), sys.dont_write_bytecode
    objective = load_objective(f"{folder}/train.py:make", device="cpu", dtype="float64")
    assert objective.names == ("weight", "bias") and objective.device == CPU and objective.dtype == torch.float64
    sample = make_sample(regression_batch(), device=CPU, dtype=torch.float64, recorded_dtype=torch.float32)
    x = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}
    assert objective.loss(x, sample) > 0
    assert sys.path == path and sys.dont_write_bytecode == bytecode
    assert not list(folder.rglob("__pycache__"))
    assert load_objective(f"{folder}/train.py:make", device="cpu").dtype is None


def test_loading_leaves_the_random_streams(folder: Path) -> None:
    before = torch.get_rng_state(), random.getstate(), pickle.dumps(np.random.get_state())
    load_objective(f"{folder}/train.py:make", device="cpu")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1] and pickle.dumps(np.random.get_state()) == before[2]


def test_a_second_load_is_a_fresh_one(folder: Path) -> None:
    first = load_objective(f"{folder}/train.py:make", device="cpu")
    (folder / "train.py").write_text("from torch import nn\n\ndef make():\n    return nn.Linear(4, 1), print\n")
    second = load_objective(f"{folder}/train.py:make", device="cpu")
    first.check({"weight": (2, 3), "bias": (2,)})
    second.check({"weight": (1, 4), "bias": (1,)})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("train.py", r"objective 'train.py' cannot be read; expected FILE.py:NAME"),
        ("train.py:not a name", r"cannot be read; expected FILE.py:NAME"),
        (":make", "cannot be read"),
        ("missing.py:make", r"there is no file .*missing.py; expected FILE.py:NAME"),
        ("train.py:other", r"train.py has no other \(it defines Net, make, loss, swapped, nothing, raises\)"),
        ("train.py:number", r"train.py has a number that is a int"),
        ("train.py:swapped", r"swapped\(\) returned \(function, Net\); expected \(model, loss\)"),
        ("train.py:nothing", r"nothing\(\) returned NoneType; expected \(model, loss\)"),
        ("train.py:raises", r"raises\(\) raised ValueError: no data here \(train.py, line 24\)"),
        ("train.py:loss", r"loss\(\) raised TypeError: loss\(\) missing 2 required"),
        ("raising.py:make", r"importing .*raising.py raised KeyError: 'HOME_OF_DATA' \(raising.py, line 2\)"),
        ("syntax.py:make", r"importing .*syntax.py raised SyntaxError: .*\(syntax.py, line 1\)"),
        ("script.py:make", r"raised SystemExit: 2 \(script.py, line 2\); .*if __name__ == \"__main__\""),
        ("empty.py:make", r"empty.py has no make \(it defines no functions\)"),
    ],
)
def test_objective_files_that_cannot_be_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch, spec: str, message: str
) -> None:
    (folder / "raising.py").write_text("import os\n{}['HOME_OF_DATA']\n")
    (folder / "syntax.py").write_text("def make(:\n")
    (folder / "script.py").write_text("import sys\nsys.exit(2)\n")
    (folder / "empty.py").write_text("")
    monkeypatch.chdir(folder)
    with pytest.raises(ObjectiveError, match=message):
        load_objective(spec, device="cpu")


def test_an_error_in_the_loss_names_the_line_of_the_file(folder: Path) -> None:
    objective = load_objective(f"{folder}/train.py:failing", device="cpu")
    sample = make_sample(regression_batch(), device=CPU)
    with pytest.raises(ObjectiveError, match=r"step 7: the loss raised NameError: .* \(train.py, line 28\)"):
        objective.loss({"weight": torch.ones(2, 3), "bias": torch.zeros(2)}, sample, where="step 7")


def test_devices_and_dtypes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == CPU
    for name, message in [("cuda", "is not available: torch"), ("mps", "not supported"), ("gpu", "not supported")]:
        with pytest.raises(UsageError, match=message):
            resolve_device(name)
    with pytest.raises(
        UsageError, match=r"replay dtype 'float8' is unknown; expected one of float64, float32, bfloat16"
    ):
        load_objective(f"{folder}/train.py:make", dtype="float8")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu() -> None:
    class Deep(Recurrent):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(3, 4, num_layers=2, dropout=0.5, batch_first=True)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.head(self.rnn(inputs)[0][:, -1])

    device = resolve_device("cuda")
    model = Deep()
    objective, x = Objective(model, squared_error, device=device), parameters_of(model)
    state = torch.cuda.get_rng_state(device)
    sample = make_sample(
        {"0": torch.randn(8, 5, 3), "1": torch.randn(8, 2)}, device=device, generators={"cuda:0": state[None]}
    )
    loss, gradient = objective.loss_and_gradient(x, sample)
    assert loss == objective.loss(x, sample) and gradient["rnn.weight_hh_l1"].device == device
    assert torch.equal(torch.cuda.get_rng_state(device), state)
    assert objective.randomness(sample).startswith("seeded")
