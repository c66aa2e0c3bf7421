"""What whole reports offer as free of noise: analyses in the default options, of runs written by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from dense import Record
from handwritten import write_run
from run_files import describe_optimizer, write_probe
from safetensors.numpy import save_file

import trajcheck
from benchmarks.pure_noise.by_numpy import OTHER
from benchmarks.pure_noise.walks import LAST, RATE, SIZE, TRAININGS, walks
from trajcheck.metrics.columns import column
from trajcheck.metrics.uncertainty import weighted_mean

OBJECTIVE = f"""
import torch

def objective():
    model = torch.nn.Module()
    model.x = torch.nn.Parameter(torch.zeros({SIZE}, dtype=torch.float64))
    return model, lambda model, noise: (model.x * noise).sum()
"""
LATER, FREE = ("final", f"mean:{LAST}"), ("init", "other")
#: Held-aside batches, and the steps that are analyzed on them.
BATCHES, ON_PROBE = 30, "::30"

#: Reference, sample, quantity, its value and its error, both None where it is withheld.
Found = tuple[str, str, str, float | None, float | None]


def written(folder: Path, name: str, seed: int) -> tuple[Path, dict[str, str]]:
    """The training as a run with a probe, and references by what they are called here."""
    made, training = walks(name, [seed]), TRAININGS[name]
    x, g = made.x[:, 0], made.g[:, 0]
    records = [Record(t, x[t], g[t], rate, z=g[t]) for t, rate in enumerate(made.rates)]
    run = write_run(folder / "run", [*records, Record(len(g), x[-1])], optimizer=None)
    describe_optimizer(run, training.optimizer, lr=RATE, **training.group)
    write_probe(run, np.random.default_rng([seed, 99]).normal(size=(BATCHES, SIZE)))
    average = x[0]
    for each in x:
        average = 0.99 * average + 0.01 * each
    save_file({"x": average}, folder / "average.safetensors")
    far = walks(name, [seed + OTHER])
    ends = [Record(0, far.x[0, 0], far.g[0, 0], RATE), Record(len(g), far.x[-1, 0])]
    other = write_run(folder / "second" / "other", ends, optimizer=None)
    describe_optimizer(other, training.optimizer, lr=RATE, **training.group)
    (folder / "noise.py").write_text(OBJECTIVE)
    refs = {each: each for each in (*LATER, "init")}
    return run, {**refs, "average": str(folder / "average.safetensors"), "other": str(other)}


def on_own_samples(run: Path, refs: dict[str, str], name: str) -> Iterator[Found]:
    """A report without losses towards all references, and one with them, which ratios take, towards later iterates."""
    options: dict[str, Any] = {"metrics": ["secant", "convexity"], "quiet": True}
    report = trajcheck.analyze(run, list(refs.values()), objective="none", out=run.parent / "own", **options)
    heads = report.summary["headline"]["references"]
    for ref, spec in refs.items():
        yield from _of_rows(report, ref, spec)
        yield from _of_headline(heads[spec], ref, "own", "error")
    previous = report.summary["headline"]["previous"]
    yield "x_(t-1)", "own", "convexity_num", previous["convexity_num"], previous["convexity_num_error"]
    if TRAININGS[name].skip is not None:
        spec = f"{run.parent / 'noise.py'}:objective"
        report = trajcheck.analyze(run, list(LATER), spec, out=run.parent / "losses", metrics=["convexity"], quiet=True)
        for ref in LATER:
            head = report.summary["headline"]["references"][ref]
            assert head["convexity_of"] == "convexity_ratio_skip"
            yield ref, "own", "convexity_ratio_skip", head["convexity_ratio"], head["convexity_ratio_error"]


def on_probe_batches(run: Path, refs: dict[str, str]) -> Iterator[Found]:
    """A report on the batches of the probe, of every 30th step."""
    report = trajcheck.analyze(
        run,
        list(refs.values()),
        f"{run.parent / 'noise.py'}:objective",
        out=run.parent / "probe",
        sample=("probe",),
        steps=ON_PROBE,
        metrics=["secant", "convexity"],
        quiet=True,
    )
    heads = report.summary["headline"]["references"]
    for ref, spec in refs.items():
        yield from _of_headline(heads[spec], ref, "probe", "se")


def _of_headline(head: dict[str, Any], ref: str, sample: str, kind: str) -> Iterator[Found]:
    """Its cosine and its num, by whichever column it takes them from; what is withheld is to have a reason."""
    ending = "_skip" if ref in LATER and sample == "own" else ""
    for what, value, missing in (
        ("cosine", "cosine", "cosine"),
        (f"convexity_num{ending}", "convexity_num", "convexity"),
    ):
        yield ref, sample, what, head[value], head[f"{value}_{kind}"]
        if head[value] is None and not head[f"{missing}_missing"]:
            yield ref, sample, f"{what} without a reason", 1.0, 0.0


def _of_rows(report: Any, ref: str, spec: str) -> Iterator[Found]:
    """Means over rows, by the errors that `trajcheck table` gives them; empty columns are to have a reason. Towards an
    average that a file holds every column may have own terms, and the headline says so."""
    table = report.references[report.references["ref"] == spec]
    names = ("cos", "rsi", "lo_lr") if ref in FREE else ("cos_skip", "rsi_skip", "lo_lr_skip")
    for name in names:
        values = pd.to_numeric(table[name]).to_numpy() if name in table else np.array([np.nan])
        if not np.isfinite(values).any():
            yield ref, "own", name, None, None
            empty = report.undefined[(report.undefined["column"] == name) & (report.undefined["ref"] == spec)]
            if not len(empty):
                yield ref, "own", f"{name} without a reason", 1.0, 0.0
            continue
        mean, error = weighted_mean(column(values), np.ones(len(values))) or (None, None)
        yield ref, "own", name, mean, error
