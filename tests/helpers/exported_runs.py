"""Runs that hold an exported objective, and the same objective with the user's code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import exported_models as models
import torch
from exported_models import images, tokens
from torch import nn

from trajcheck.objective.exported import load_exported
from trajcheck.objective.exporting import export_objective
from trajcheck.objective.objective import Objective
from trajcheck.objective.program.stored import checksum
from trajcheck.objective.sample import make_sample
from trajcheck.recording.recorder import Recorder
from trajcheck.runs.batch_flattening import flatten

CPU = torch.device("cpu")
MODULE = "users_own_models"


def record(folder: Path, model: nn.Module, loss_fn: Any, batches: list[Any], **options: Any) -> nn.Module:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    options = {"every": 1, "strict": True, "quiet": True, "objective": loss_fn, **options}
    with Recorder(folder, model, optimizer, **options) as recorder:
        for batch in batches:
            loss = loss_fn(model, batch)
            loss.backward()
            recorder.observe(batch, loss)
            optimizer.step()
            optimizer.zero_grad()
    return model


def seeded(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return make()


SENTENCES = [tokens(6, 7, 0), tokens(6, 7, 1), tokens(4, 5, 2), tokens(1, 7, 3)]  # a smaller, shorter last batch
PICTURES = [images(6, 0), images(6, 1), images(3, 2)]
RUNS: dict[str, tuple[Callable[[Any], nn.Module], str, list[Any]]] = {
    "tied": (lambda users: users.Language(), "next_token", SENTENCES),
    "dropout": (lambda users: users.Language(0.25), "next_token", SENTENCES),
    "batchnorm": (lambda users: users.Convolutional(), "classify", PICTURES),
}


def eager(name: str) -> Objective:
    make, loss, _ = RUNS[name]
    return Objective(make(models), getattr(models, loss))


def exported(tmp_path: Path, model: nn.Module, loss_fn: Any, batch: Any) -> Objective:
    path = tmp_path / "objective.json"
    export_objective(path, model, loss_fn, batch)
    program, _ = load_exported(path)
    return Objective(program.model, program.loss, title=str(path))


def with_facts(run: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """The program of a run with other contents, and a right checksum."""
    path = run / "objective.json"
    facts = json.loads(path.read_text())
    change(facts)
    facts["checksum"] = checksum(facts)
    path.write_text(json.dumps(facts))


def sample(batch: Any, **options: Any) -> Any:
    tensors, tree = flatten(batch)
    return make_sample(tensors, tree=tree, device=CPU, **options)


def assert_same(one: Objective, other: Objective, model: nn.Module, batch: Any, **options: Any) -> None:
    """Loss and gradient at another point than the model's, with the same random numbers; to the last bit."""
    stream = torch.Generator().manual_seed(5)
    x = {
        name: p.detach() + 0.1 * torch.randn(p.shape, generator=stream).to(p.dtype)
        for name, p in model.named_parameters()
    }
    z = sample(batch, seed=3, **options)
    for _ in range(2):
        loss, gradient = one.loss_and_gradient(x, z)
        expected, expected_gradient = other.loss_and_gradient(x, z)
        assert torch.equal(loss, expected)
        assert list(gradient) == list(expected_gradient)
        for name, part in expected_gradient.items():
            torch.testing.assert_close(gradient[name], part, rtol=1e-6, atol=0)


def compare(here: Objective, own: Objective, model: nn.Module, batch: Any) -> None:
    """Loss, gradient and Hessian product, at another point than the model's; twice, so that what one evaluation leaves
    behind would show."""
    stream = torch.Generator().manual_seed(5)
    x = {
        name: (p.detach() + 0.1 * torch.randn(p.shape, generator=stream)).to(here.dtype)
        for name, p in model.named_parameters()
    }
    z = sample(batch, seed=3, dtype=here.dtype)
    for _ in range(2):
        (loss, gradient), (expected, wanted) = (each.loss_and_gradient(x, z) for each in (here, own))
        torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
        for name, part in wanted.items():
            torch.testing.assert_close(gradient[name], part, rtol=1e-5, atol=1e-7)
    hessian, dense = here.hessian(x, z), own.hessian(x, z)
    v = torch.cos(torch.arange(dense.dimension, dtype=torch.float64)).to(dense.dtype)
    found = dense.product(v)
    assert float(found.abs().max()) > 1e-3
    torch.testing.assert_close(hessian.product(v), found, rtol=1e-4, atol=1e-6 * float(found.abs().max()))
