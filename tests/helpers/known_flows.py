"""Runs of gradient descent whose flow is known in closed form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from frames import steps_of
from handwritten import write_objective, write_run
from plain_run_files import Outcome
from quadratics import Layout, Problem, Quadratic, descend, keep
from scipy.linalg import expm

import trajcheck

Cli = Callable[..., Outcome]
LAYOUT: Layout = {"a.weight": (2, 2), "b": (2,)}
BOWL = [0.05, 0.3, 0.7, 1.0, 2.0, 4.0]
SADDLE = [-0.5, -0.1, 0.2, 1.0, 2.0, 3.0]


def made(
    folder: Path,
    problem: Problem,
    start: np.ndarray,
    z: Any,
    eta: float,
    count: int,
    layout: Layout,
    every: int = 1,
    **options: Any,
) -> tuple[Path, str]:
    """A run of gradient descent on one batch, that is stored once, and its objective."""
    records = descend(problem, start, [z] * count, [eta] * count)
    steps = sorted({*range(0, count, every), count})
    folder.mkdir(parents=True, exist_ok=True)
    run = write_run(folder / "run", keep(records, steps), layout, batch_once=True, **options)
    return run, write_objective(folder / "objective.py", problem, layout)


def quadratic(folder: Path, spectrum: Sequence[float] = BOWL, eta: float = 0.1, count: int = 40, **options: Any) -> Any:
    """The run, the objective, H and x_0 of f = 1/2 x^T H x."""
    problem = Quadratic.with_spectrum(spectrum, seed=7)
    start = np.random.default_rng(8).normal(size=problem.size)
    layout: Layout = LAYOUT if problem.size == 6 else {"x": (problem.size,)}
    run, objective = made(folder, problem, start, np.zeros((1, problem.size)), eta, count, layout, **options)
    return run, objective, problem.hessian, start


def descent(hessian: np.ndarray, start: np.ndarray, eta: float, count: int) -> np.ndarray:
    return np.array([np.linalg.matrix_power(np.eye(len(start)) - eta * hessian, k) @ start for k in range(count + 1)])


def exact(hessian: np.ndarray, start: np.ndarray, taus: Any) -> np.ndarray:
    return np.array([expm(-hessian * tau) @ start for tau in taus])


def reasons(report: trajcheck.FlowReport, name: str) -> dict[int, str]:
    """By step, why undefined.csv says that a cell is empty."""
    entries = report.undefined[report.undefined["column"] == name]
    return {
        s: str(why) for steps, why in zip(entries["steps"], entries["reason"], strict=True) for s in steps_of(steps)
    }


def metadata_of(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return dict(file.metadata())
