"""`python -m benchmarks pure_noise`: gradients that know nothing of x, and how often what is free of them is 0.

Trainings along independent g_t ~ N(0, I), each the gradient of its own batch under f(x; z) = <x, z>, by several
optimizers; analyzed in the default options towards their end, their beginning, an average of their last iterates, an
exponential average of all, and another such training. Counted: values within two of their own errors of 0, those
beyond, and those that are withheld; and whether a reason stands for every value that is.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from safetensors.numpy import save_file

import trajcheck
from trajcheck.metrics.columns import column
from trajcheck.metrics.uncertainty import weighted_mean

HELPERS = Path(__file__).parents[1] / "tests" / "helpers"
SIZE, RATE, STEPS, BATCHES = 200, 0.01, 300, 30
OBJECTIVE = f"""
import torch

def objective():
    model = torch.nn.Module()
    model.x = torch.nn.Parameter(torch.zeros({SIZE}, dtype=torch.float64))
    return model, lambda model, noise: (model.x * noise).sum()
"""

State = dict[str, Any]
#: An optimizer: x, g, its state and the rate -> the next x.
Update = Callable[[np.ndarray, np.ndarray, State, float], np.ndarray]


def sgd(momentum: float) -> Update:
    def update(x: np.ndarray, g: np.ndarray, state: State, rate: float) -> np.ndarray:
        state["v"] = momentum * state.get("v", 0.0) + g
        return np.asarray(x - rate * state["v"])

    return update


def adam(decay: float) -> Update:
    def update(x: np.ndarray, g: np.ndarray, state: State, rate: float) -> np.ndarray:
        t = state["t"] = state.get("t", 0) + 1
        state["m"] = 0.9 * state.get("m", 0.0) + 0.1 * g
        state["v"] = 0.999 * state.get("v", 0.0) + 0.001 * g * g
        step = state["m"] / (1 - 0.9**t) / (np.sqrt(state["v"] / (1 - 0.999**t)) + 1e-8)
        return np.asarray((1 - rate * decay) * x - rate * step)

    return update


def schedule_free(x: np.ndarray, g: np.ndarray, state: State, rate: float) -> np.ndarray:
    """y = 0.1 z + 0.9 (the mean of all z so far), at which gradients are taken (arXiv 2405.15682)."""
    t = state["t"] = state.get("t", 0) + 1
    z, mean = state.get("z", x) - rate * g, state.get("mean", x)
    state["z"], state["mean"] = z, mean + (z - mean) / t
    return np.asarray(0.1 * z + 0.9 * state["mean"])


def constant(t: int, steps: int) -> float:
    return RATE


def cosine(t: int, steps: int) -> float:
    return RATE * 0.5 * (1 + float(np.cos(np.pi * t / steps)))


PLAIN = {"momentum": 0.0, "dampening": 0, "weight_decay": 0, "nesterov": False}
ADAM = {"betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0}
TRAININGS: dict[str, tuple[Update, Callable[[int, int], float], int, str, dict[str, Any]]] = {
    "SGD": (sgd(0), constant, STEPS, "SGD", PLAIN),
    "SGD, cosine rate": (sgd(0), cosine, STEPS, "SGD", PLAIN),
    "momentum 0.9": (sgd(0.9), constant, STEPS, "SGD", {**PLAIN, "momentum": 0.9}),
    "momentum 0.99": (sgd(0.99), constant, 700, "SGD", {**PLAIN, "momentum": 0.99}),
    "Adam": (adam(0), constant, STEPS, "Adam", ADAM),
    "AdamW": (adam(0.01), cosine, STEPS, "AdamW", {**ADAM, "weight_decay": 0.01, "decoupled": True}),
    "schedule-free": (schedule_free, constant, STEPS, "SGDScheduleFree", {"weight_decay": 0}),
}
REFS = ("final", "init", "mean:20", "average", "other")
#: Samples, and the steps that are analyzed on each; None for all.
ROWS_OF = {"own": None, "probe": "::30"}


def walk(name: str, seed: int) -> tuple[list[tuple[np.ndarray, np.ndarray, float]], np.ndarray]:
    """x_t, g_t and the rate of every step, and the last iterate."""
    update, schedule, steps, *_ = TRAININGS[name]
    rng = np.random.default_rng([seed, list(TRAININGS).index(name)])
    state: State = {}
    x, made = rng.normal(size=SIZE), []
    for t in range(steps):
        g, rate = rng.normal(size=SIZE), schedule(t, steps)
        made.append((x, g, rate))
        x = update(x, g, state, rate)
    return made, x


def written(folder: Path, name: str, seed: int) -> Path:
    """The training as a run with a probe."""
    from dense import Record
    from handwritten import write_run
    from run_files import describe_optimizer, write_probe

    made, end = walk(name, seed)
    records = [Record(t, x, g, rate, z=g) for t, (x, g, rate) in enumerate(made)]
    run = write_run(folder, [*records, Record(len(made), end)], optimizer=None)
    *_, optimizer, group = TRAININGS[name]
    describe_optimizer(run, optimizer, lr=RATE, **group)
    rng = np.random.default_rng([seed, 99])
    write_probe(run, [rng.normal(size=SIZE) for _ in range(BATCHES)])
    average = made[0][0]
    for x in [*(x for x, *_ in made), end]:
        average = 0.99 * average + 0.01 * x
    save_file({"x": average}, folder.parent / "average.safetensors")
    return run


Found = tuple[str, str, str, float | None, float | None]


def offered(run: Path, name: str, seed: int, samples: tuple[str, ...] = tuple(ROWS_OF)) -> Iterator[Found]:
    """Reference, sample, quantity, its value and its error, both None where it is withheld."""
    folder = run.parent
    other = written(folder / "second" / "other", name, seed + 1000)
    specs = dict(zip(REFS, ("final", "init", "mean:20", str(folder / "average.safetensors"), str(other)), strict=True))
    options: dict[str, Any] = {"metrics": ["secant", "convexity", "progress"], "quiet": True}
    objective = f"{folder / 'noise.py'}:objective"
    (folder / "noise.py").write_text(OBJECTIVE)
    for sample in samples:
        steps = ROWS_OF[sample]
        out = folder / f"report-{sample}"
        report = trajcheck.analyze(
            run, list(specs.values()), objective, out=out, sample=(sample,), steps=steps, **options
        )
        heads = report.summary["headline"]["references"]
        for ref, spec in specs.items():
            yield from _of_headline(report, heads[spec], ref, spec, sample)
            if sample == "own":
                yield from _of_rows(report, ref, spec)
        if sample == "own":
            previous = report.summary["headline"]["previous"]
            yield "x_(t-1)", "own", "num", previous["convexity_num"], previous["convexity_num_error"]


def _of_headline(report: Any, head: dict[str, Any], ref: str, spec: str, sample: str) -> Iterator[Found]:
    kind = "se" if sample == "probe" else "error"
    yield ref, sample, "cosine", head["cosine"], head[f"cosine_{kind}"]
    if head["cosine"] is None and not head["cosine_missing"]:
        yield ref, sample, "cosine without a reason", 1.0, 0.0
    yield ref, sample, "num", head["convexity_num"], head[f"convexity_num_{kind}"]
    if head["convexity_num"] is None and not head["convexity_missing"]:
        yield ref, sample, "num without a reason", 1.0, 0.0
    if head["convexity_of"] == "convexity_ratio_skip":  # else it is that of <x, z>, which is 1
        yield ref, sample, "ratio", head["convexity_ratio"], head[f"convexity_ratio_{kind}"]


def _of_rows(report: Any, ref: str, spec: str) -> Iterator[Found]:
    """Means over rows, by the errors that `trajcheck table` gives them; empty columns are to have a reason."""
    table = report.references[report.references["ref"] == spec]
    for name in ("cos_skip", "rsi_skip", "lo_lr_skip", "convexity_num_skip", "convexity_ratio_skip"):
        values = pd.to_numeric(table[name]).to_numpy() if name in table else np.array([np.nan])
        if not np.isfinite(values).any():
            yield ref, "own", name, None, None
            empty = report.undefined[(report.undefined["column"] == name) & (report.undefined["ref"] == spec)]
            if not len(empty):
                yield ref, "own", f"{name} without a reason", 1.0, 0.0
        elif name in ("cos_skip", "rsi_skip", "lo_lr_skip"):
            mean, error = weighted_mean(column(values), np.ones(len(values))) or (None, None)
            yield ref, "own", f"mean of {name}", mean, error


def main(
    seeds: Annotated[int, typer.Option(help="Trainings of each kind, of the seeds 1, 2, ...")] = 12,
    only: Annotated[str, typer.Option(help="Only trainings whose name holds this.")] = "",
    sample: Annotated[str, typer.Option(help="Only this sample, own or probe: each takes half the time.")] = "",
) -> None:
    """How often what is offered as free of noise is 0 within two of its errors, where gradients are noise."""
    sys.path.insert(0, str(HELPERS))
    samples = (sample,) if sample else tuple(ROWS_OF)
    total: dict[tuple[str, ...], Counter[str]] = {}
    for name in TRAININGS:
        for seed in range(1, seeds + 1) if only in name else ():
            with TemporaryDirectory(prefix="trajcheck-noise-") as folder:
                run = written(Path(folder) / "run", name, seed)
                for ref, on, what, value, error in offered(run, name, seed, samples):
                    counts = total.setdefault((name, ref, on, what), Counter())
                    if value is None:
                        counts["withheld"] += 1
                    elif error is None:
                        counts["no error"] += 1
                    else:
                        counts["within" if abs(value) <= 2 * error else "beyond"] += 1
                        if abs(value) > 2 * error:
                            typer.echo(
                                f"{name}, seed {seed}: {what} towards {ref} on {on}: {value:.4g} +- {error:.2g}",
                                err=True,
                            )
            if seed == seeds:
                _print({key: counts for key, counts in total.items() if key[0] == name}, lambda key: key)
                sys.stdout.flush()
    _print(total, lambda key: key[2:])
    _print(total, lambda key: ())


def _print(total: dict[tuple[str, ...], Counter[str]], by: Callable[[tuple[str, ...]], tuple[str, ...]]) -> None:
    together: dict[tuple[str, ...], Counter[str]] = {}
    for key, counts in total.items():
        together.setdefault(by(key), Counter()).update(counts)
    for key, counts in together.items():
        given = counts["within"] + counts["beyond"]
        share = f"{100 * counts['within'] / given:4.0f}% of {given:4} within two errors" if given else ""
        more = ", ".join(f"{counts[what]} {what}" for what in ("withheld", "no error") if counts[what])
        print(" ".join(f"{word:20}" for word in key), "; ".join(filter(None, (share, more))))
