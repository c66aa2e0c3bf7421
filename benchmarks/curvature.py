"""Products with the Hessian that its eigenvalues take along a run, beside those of scipy's eigsh at the same error.

For each Hessian, eigsh gets the loosest of some tolerances with which its error is at most that wanted: what it would
take somebody who knew the answer. Its basis is scipy's default, 20 vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import patch

import numpy as np
import torch
import typer
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from benchmarks.runs import workspace
from benchmarks.table import Row, show
from benchmarks.timing import Spread
from trajcheck.measuring.measured_run import MeasuredRun
from trajcheck.measuring.options import Options
from trajcheck.objective.curvature.lanczos import Extremes, extreme_eigenvalues
from trajcheck.replay import row_evaluation
from trajcheck.runs.references import resolve_references

SAMPLES = Path(__file__).parents[1] / "sample_checkpoints"

#: eigsh's tolerances, the loosest first; and its word for the ends.
TOLERANCES = (0.1, 0.03, 0.01, 1e-3, 1e-4, 0.0)
WHICH = {"max": "LA", "both": "BE"}

Product = Callable[[Tensor], Tensor]


def main(
    every: Annotated[int, typer.Option(help="Rows of the digits run from one Hessian to the next.")] = 15,
    error: Annotated[float, typer.Option(help="Of an eigenvalue, relative to the largest |eigenvalue|.")] = 1e-4,
    folder: Annotated[Path | None, typer.Option(help="Where references may be made.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the table to this file as JSON.")] = None,
) -> None:
    """Products with the Hessian for an eigenvalue, beside scipy's eigsh at the same error."""
    with workspace(folder) as place:
        found = along(SAMPLES / "digits-sgd-seed0", every, error, place)
    rows = []
    for ends, counts in found.items():
        ours, theirs, before, errors = (np.array(each) for each in zip(*counts, strict=True))
        rows += [
            Row(f"{ends}: products a row", Spread.of(ours.tolist())),
            Row(f"{ends}: to a residual of 1e-6, as before", Spread.of(before.tolist())),
            Row(f"{ends}: eigsh(which={WHICH[ends]})", Spread.of(theirs.tolist())),
            Row(f"{ends}: products / eigsh", Spread.of((ours / theirs).tolist()), target=1 / 3),
            Row(f"{ends}: largest error / that wanted", float(errors.max()) / error, target=1.0),
        ]
    show("curvature", {"run": "digits, 1,210 numbers", "every": every, "error": error}, rows, out)


def along(run: Path, every: int, error: float, place: Path) -> dict[str, list[tuple[int, int, int, float]]]:
    """By the ends that are asked for, of each Hessian: products, those of eigsh, those to a residual of 1e-6, the error
    relative to the largest |eigenvalue|."""
    found: dict[str, list[tuple[int, int, int, float]]] = {ends: [] for ends in WHICH}

    def look(product: Product, dimension: int, how: dict[str, Any]) -> None:
        known = {name: value for name, value in how.items() if name not in ("ends", "error")}
        sure = extreme_eigenvalues(product, dimension, **known, ends="both", tolerance=1e-9)
        for ends in WHICH:
            ours = extreme_eigenvalues(product, dimension, **known, ends=ends, error=error)
            before = extreme_eigenvalues(product, dimension, **known, ends=ends)
            theirs = _eigsh(product, dimension, ends, sure, error)
            found[ends].append((ours.products, theirs, before.products, _error(ours, sure, ends)))

    with _watched(look):
        analysis = MeasuredRun(run, Options(("final",), "run", curvature=every, replay_dtype="float64"), quiet=True)
        references = resolve_references(("final",), analysis.trajectory, place)
        for _ in analysis.prepare_replay(references).rows():
            pass
    return found


@contextmanager
def _watched(look: Callable[[Product, int, dict[str, Any]], None]) -> Iterator[None]:
    """What the replay asks eigenvalues of is looked at as well."""

    def watched(product: Product, dimension: int, **how: Any) -> Extremes:
        look(product, dimension, how)
        return extreme_eigenvalues(product, dimension, **how)

    with patch.object(row_evaluation, "extreme_eigenvalues", watched):
        yield


def _ends(found: Extremes, ends: str) -> Sequence[float]:
    return (found.lambda_max,) if ends == "max" else (found.lambda_min, found.lambda_max)


def _error(found: Extremes, sure: Extremes, ends: str) -> float:
    largest = max(abs(sure.lambda_max), abs(sure.lambda_min))
    return max(abs(a - b) for a, b in zip(_ends(found, ends), _ends(sure, ends), strict=True)) / largest


def _eigsh(product: Product, dimension: int, ends: str, sure: Extremes, error: float) -> int:
    """Its products with the loosest tolerance that is good enough."""
    right = np.array(_ends(sure, ends))
    start = np.random.default_rng(0).normal(size=dimension)
    for tolerance in TOLERANCES:
        count = 0

        def counted(v: np.ndarray) -> np.ndarray:
            nonlocal count
            count += 1
            return product(torch.from_numpy(np.array(v).reshape(-1))).numpy()

        operator = LinearOperator((dimension, dimension), matvec=counted, dtype=np.float64)
        asked = {"k": len(right), "which": WHICH[ends], "tol": tolerance, "v0": start, "return_eigenvectors": False}
        values = np.sort(eigsh(operator, **asked))
        if np.abs(values - right).max() <= error * max(abs(sure.lambda_max), abs(sure.lambda_min)):
            break
    return count
