"""Resolutions against the truth: small trainings to their end, in float32 and in float64.

    python -m benchmarks resolution [--seeds N] [--steps N]

An MLP, a convolutional network with batch statistics and a transformer, N seeds each. For every one: which share of
rows has a true error above its resolution, how many resolved signs are wrong, the shares of steps by default, in
float32 and in float64, and whether the report says where the shares of float32 are more than a point off.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import torch
import typer

import trajcheck

HELPERS = Path(__file__).parents[1] / "tests" / "helpers"
DTYPES = (None, "float32", "float64")
COMPARED = (("inst_gap", "gap_resolution"), ("loss_change", "loss_change_resolution"))


def main(
    seeds: Annotated[int, typer.Option(help="Seeds of each model.")] = 3,
    steps: Annotated[int, typer.Option(help="Steps of each training, every one recorded.")] = 400,
) -> None:
    """Signs and shares of float32 against float64, near the end of training."""
    sys.path.insert(0, str(HELPERS))
    import near_the_end

    torch.set_num_threads(1)
    total: Counter[str] = Counter()
    with TemporaryDirectory(prefix="trajcheck-resolution-") as folder:
        for name in near_the_end.MODELS:
            spec = near_the_end.objective(name, Path(folder) / f"{name}.py")
            for seed in range(seeds):
                run = near_the_end.record(name, Path(folder) / f"{name}-{seed}", seed=seed, steps=steps)
                reports = {
                    dtype: trajcheck.analyze(
                        run,
                        objective=spec,
                        replay_dtype=dtype,
                        metrics=["convexity", "progress"],
                        out=Path(folder) / f"report-{name}-{seed}-{dtype}",
                    )
                    for dtype in DTYPES
                }
                _one(f"{name}, seed {seed}", reports, total)
    for what in ("inst_gap", "loss_change"):
        rows, above, resolved, wrong = (total[f"{what} {each}"] for each in ("rows", "above", "resolved", "wrong"))
        print(
            f"{what}: {rows} rows, {100 * above / rows:.2f}% of true errors above the resolution; {resolved} resolved "
            f"signs, {100 * wrong / max(resolved, 1):.2f}% of them wrong"
        )
    print(f"default more than a point from float64, and not said: {total['unsaid']} of {total['heads']}")
    print(f"float32 more than a point from float64, and not said: {total['unsaid in float32']} of {total['heads']}")


def _one(title: str, reports: dict[str | None, Any], total: Counter[str]) -> None:
    narrow, wide = reports["float32"], reports["float64"]
    for table in ("steps", "references"):
        a, b = getattr(narrow, table), getattr(wide, table)
        for name, bound in COMPARED:
            if name not in a:
                continue
            here = a[name].notna() & b[name].notna() & (a[name] != 0)
            certain = here & (a[name].abs() > a[bound])
            total[f"{name} rows"] += int(here.sum())
            total[f"{name} above"] += int(((a[name] - b[name]).abs() > a[bound])[here].sum())
            total[f"{name} resolved"] += int(certain.sum())
            total[f"{name} wrong"] += int(((a[name] < 0) != (b[name] < 0))[certain].sum())
    print(f"{title}, last loss {wide.steps['loss'].iloc[-6:].mean():.1e}")
    for where in ("x_(t-1)", "final"):
        heads = {dtype: _head(report, where) for dtype, report in reports.items()}
        truth = heads["float64"]["shares"]
        for dtype, head in heads.items():
            shares = head["shares"]
            text = " / ".join(f"{100 * shares[each]:.1f}" for each in ("convex", "not_convex", "undetermined"))
            said = any(f"towards {where}" in each for each in reports[dtype].summary["warnings"])
            print(f"    {where:8} {dtype or 'default':8} {text}{'  said' if said else ''}")
            apart = max(abs(shares[each] - truth[each]) for each in truth) > 0.01 and not said
            total["heads"] += dtype is None
            total["unsaid"] += dtype is None and apart
            total["unsaid in float32"] += dtype == "float32" and apart


def _head(report: Any, where: str) -> dict[str, Any]:
    head = report.summary["headline"]
    found: dict[str, Any] = head["previous"] if where == "x_(t-1)" else head["references"][where]
    assert all(np.isfinite(share) for share in found["shares"].values())
    return found
