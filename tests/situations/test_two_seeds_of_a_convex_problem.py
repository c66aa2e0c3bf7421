"""Two runs from beginnings and batches of their own that end at one minimum: each is independent of the other, though
they end nearer to one another than to where they began. One that took weights over on its way is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from loops import run_json
from torch import nn

import trajcheck

DIM, STEPS = 20, 30
Runs = dict[str, Path]


def regression(folder: Path, seed: int, jump: torch.Tensor | None = None) -> torch.Tensor:
    """Linear regression with noise; at step 15 the weights may be put near others. The final ones."""
    stream = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = nn.Linear(DIM, 1, bias=False)
    truth = torch.linspace(0, 2, DIM)[:, None]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with trajcheck.Recorder(folder, model, optimizer, every=1, quiet=True, strict=True) as recorder:
        for step in range(STEPS):
            if jump is not None and step == STEPS // 2:
                with torch.no_grad():
                    model.weight.copy_(jump + 0.01 * torch.randn(1, DIM, generator=stream))
            x = torch.randn(16, DIM, generator=stream)
            y = x @ truth + 0.3 * torch.randn(16, 1, generator=stream)
            loss = (model(x) - y).square().mean()
            loss.backward()
            recorder.observe((x, y), loss)
            optimizer.step()
            optimizer.zero_grad()
    return model.weight.detach().clone()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("convex")
    end = regression(folder / "one", 1)
    regression(folder / "other", 2)
    with pytest.warns(
        RuntimeWarning, match="before 1 of the steps, the first of them step 15, something else than SGD"
    ):
        regression(folder / "jumped", 3, end)
    return {name: folder / name for name in ("one", "other", "jumped")}


def towards(runs: Runs, other: str, out: Path) -> Any:
    report = trajcheck.analyze(runs["one"], [str(runs[other])], out=out, quiet=True)
    return report.summary["headline"]["references"][str(runs[other])]


def test_another_seed_is_independent(runs: Runs, tmp_path: Path) -> None:
    values = towards(runs, "other", tmp_path)
    assert values["dependence"] == {"whole": 0, "free": 0, "found": ""}
    assert values["cosine_of"] == "cos" and values["cosine"] > 0.3


def test_one_that_took_weights_over_may_not_be(runs: Runs, tmp_path: Path) -> None:
    values = towards(runs, "jumped", tmp_path)
    assert values["cosine"] is None and values["dependence"]["free"] is None
    assert "nearer to this run's iterate of step" in values["dependence"]["found"]
    assert values["dependence"]["found"].endswith(
        "something else than its optimizer changed its run's parameters, last before step 15"
    )


def test_of_a_run_that_no_recorder_wrote_it_is_not_known(runs: Runs, tmp_path: Path) -> None:
    import json

    described = run_json(runs["other"])
    (runs["other"] / "run.json").write_text(json.dumps({**described, "versions": {}}))
    try:
        found = towards(runs, "other", tmp_path)["dependence"]["found"]
    finally:
        (runs["other"] / "run.json").write_text(json.dumps(described))
    assert "as the end of a run to the same minimum is, and that of one that took weights over" in found
    assert found.endswith("by which steps its run came there is not recorded")
