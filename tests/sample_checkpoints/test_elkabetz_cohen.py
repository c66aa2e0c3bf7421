"""sample_checkpoints/elkabetz_cohen.py: its runs are at equal times, of one init, and its networks are what it says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from loops import read, recorded_steps
from places import SAMPLES

from trajcheck.permutations.declared import check_permutations
from trajcheck.runs.trajectory import open_trajectory

EXAMPLE = SAMPLES / "elkabetz_cohen.py"
STEPS = 3


@pytest.fixture(scope="module")
def example() -> ModuleType:
    found = importlib.util.spec_from_file_location("elkabetz_cohen", EXAMPLE)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    stream = torch.Generator().manual_seed(0)
    return torch.rand(20, 64, generator=stream).double(), torch.randint(10, (20,), generator=stream)


@pytest.mark.parametrize("network", ["linear", "relu", "convolutional"])
def test_the_runs_are_recorded_at_equal_times(
    network: str, example: ModuleType, batch: tuple[torch.Tensor, torch.Tensor], tmp_path: Path
) -> None:
    paths = example.record_all(tmp_path, network, batch, STEPS)
    runs = [open_trajectory(path) for path in paths]
    assert [run.steps for run in runs] == [[k * n for n in range(STEPS + 1)] for k in (1, 2, 5, 10, 20)]
    times = np.array([[snapshot.tau for snapshot in run.snapshots] for run in runs], dtype=float).squeeze(-1)
    expected = example.RATE * np.arange(STEPS + 1)
    np.testing.assert_allclose(times, np.tile(expected, (5, 1)), rtol=1e-12)
    first, _ = read(paths[0], 0)
    ends = []
    for run, path in zip(runs, paths, strict=True):
        tensors, metadata = read(path, 0)
        assert metadata["lr"] == [pytest.approx(example.RATE / (run.steps[1] or 1))]
        assert all(torch.equal(first[name], tensor) for name, tensor in tensors.items() if name.startswith("param/"))
        stored = [step for step in recorded_steps(path) if any(n.startswith("batch") for n in read(path, step)[0])]
        assert stored == [0]  # the one full batch
        last, _ = read(path, run.steps[-1])
        ends.append(np.concatenate([last[f"param/{name}"].numpy().ravel() for name in run.shapes]))
    apart = [float(np.linalg.norm(end - ends[-1])) for end in ends]  # from eta/20's, the nearest to the flow
    assert apart == sorted(apart, reverse=True) and apart[3] > 0
    again = example.record_all(tmp_path, network, batch, STEPS)
    assert again == paths


@pytest.mark.parametrize("network", ["linear", "relu", "convolutional"])
def test_the_networks_say_which_units_permute(network: str, example: ModuleType) -> None:
    model, _ = example.NETWORKS[network]()
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    groups = check_permutations(example.PERMUTATIONS, f"{EXAMPLE}:{network}", shapes).groups
    assert sum(group.size for group in groups) == {"linear": 64, "relu": 64, "convolutional": 24}[network]


def test_the_figure(example: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    import pandas as pd

    frame = pd.DataFrame(
        {
            "run_b": other,
            "tau_a": tau,
            "loss_a": 1 / (1 + tau),
            "loss_b": 1 / (2 + tau),
            "dist": tau,
            "init_dist_a": tau,
        }
        for other in ("b", "c", "d", "e")
        for tau in (0.0, 1.0, 2.0)
    )
    example.draw(dict.fromkeys(example.NETWORKS, frame), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
