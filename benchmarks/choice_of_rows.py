"""`python -m benchmarks choice_of_rows`: how often three stated errors for the choice of rows cover every step's value.

Small models are trained in float64, and the terms of all sums are taken at every step. Then 30, 10 and 2% of the rows
are chosen as the Recorder's default schedule, `pairs`, records at random and `--steps ::k` choose them, and the
package's own weights, sums and errors are held against the sums over all steps. Seeded; about four minutes on one
processor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import nn
from torch.nn import functional as F

from trajcheck.metrics.columns import Column, column, constant, running_sum, sum_error, weights_of
from trajcheck.metrics.formulas.choice_of_rows import convexity_ratio_rows_se
from trajcheck.metrics.formulas.control_variate import controlled, controlled_error
from trajcheck.metrics.formulas.convexity import convexity_ratio
from trajcheck.metrics.quotients import rows_bound
from trajcheck.metrics.weights import Weights
from trajcheck.recording.schedule.plan import spread_pairs

Terms = dict[str, np.ndarray]
#: Learning rates, by model and optimizer.
RATES = {
    "logistic regression": {"SGD": 0.1, "momentum": 0.02, "AdamW": 0.02},
    "MLP": {"SGD": 0.1, "momentum": 0.02, "AdamW": 0.005},
    "CNN": {"SGD": 0.1, "momentum": 0.02, "AdamW": 0.005},
}


def model_of(name: str) -> nn.Module:
    if name == "logistic regression":
        return nn.Linear(64, 5)
    if name == "MLP":
        return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 5))
    layers = (nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 5))


def terms_of(name: str, optimizer: str, seed: int, steps: int) -> Terms:
    """Of every step t: loss_change, update_corr and descent on own samples, of which t = 0 has none; num and den to
    the last iterate; and, on batches that stand still, fixed_change, fixed_corr and fixed_loss, up to the last iterate.

    Classes are Gaussian clouds; every tenth label is noise for odd seeds.
    """
    torch.manual_seed(seed)
    model, rate = model_of(name).double(), RATES[name][optimizer]
    parameters = list(model.parameters())
    centres = 0.5 * torch.randn(5, 64, dtype=torch.float64)

    def batch(size: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.randint(5, (size,))
        inputs = centres[labels] + torch.randn(size, 64, dtype=torch.float64)
        noise = torch.rand(size) < 0.1 * (seed % 2)
        return inputs, torch.where(noise, torch.randint(5, (size,)), labels)

    def loss(sample: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return F.cross_entropy(model(sample[0]), sample[1])

    def gradient(sample: tuple[torch.Tensor, torch.Tensor]) -> tuple[float, torch.Tensor]:
        model.zero_grad()
        value = loss(sample)
        value.backward()
        return float(value.detach()), torch.cat([each.grad.flatten() for each in parameters if each.grad is not None])

    update: torch.optim.Optimizer = (
        torch.optim.AdamW(parameters, lr=rate)
        if optimizer == "AdamW"
        else torch.optim.SGD(parameters, lr=rate, momentum=0.9 if optimizer == "momentum" else 0.0)
    )
    x, g, samples, losses = [], [], [], []
    for _ in range(steps):
        samples.append(batch())
        value, grad = gradient(samples[-1])
        losses.append(value)
        g.append(grad.clone())
        x.append(nn.utils.parameters_to_vector(parameters).detach().clone())
        update.step()
    x.append(nn.utils.parameters_to_vector(parameters).detach().clone())
    fixed, found = batch(64), {name: np.full(steps + 1, np.nan) for name in NAMES}
    for t in range(steps + 1):
        nn.utils.vector_to_parameters(x[t], parameters)
        found["fixed_loss"][t], grad = gradient(fixed)
        if t:
            found["fixed_change"][t] = found["fixed_loss"][t] - found["fixed_loss"][t - 1]
            found["fixed_corr"][t] = float(grad @ (x[t] - x[t - 1]))
    with torch.no_grad():
        for t in range(steps):
            found["loss"][t], found["num"][t] = losses[t], float(g[t] @ (x[t] - x[-1]))
            if t:
                nn.utils.vector_to_parameters(x[t - 1], parameters)
                found["loss_change"][t] = losses[t] - float(loss(samples[t]))
                found["update_corr"][t] = float(g[t] @ (x[t] - x[t - 1]))
                found["descent"][t] = float(g[t - 1] @ (x[t] - x[t - 1]))
        nn.utils.vector_to_parameters(x[-1], parameters)
        for t in range(steps):
            found["den"][t] = losses[t] - float(loss(samples[t]))
    return found


HOWS = ("default", "pairs", "random", "steps ::k")
NAMES = ("loss", "loss_change", "update_corr", "descent", "num", "den", "fixed_loss", "fixed_change", "fixed_corr")


def chosen(how: str, share: float, steps: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Steps that are rows, and those of them whose step before is known too."""
    if how == "steps ::k":
        rows = np.arange(0, steps, round(1 / share))
        return rows, rows[1:]
    if how == "default":
        ends = np.array([step for step in spread_pairs(steps, round(share * steps / 2), str(seed)) if step % 2])
    elif how == "pairs":
        ends = np.arange(1, steps, round(2 / share))
    else:
        ends = np.sort(np.random.default_rng(seed).choice(np.arange(1, steps), round(share * steps / 2), replace=False))
    return np.unique(np.concatenate([ends - 1, ends])), ends


def held(terms: Terms, rows: np.ndarray, ends: np.ndarray, steps: int) -> Iterator[tuple[str, float, float]]:
    """For each sum and ratio: what it is, how far it is from that over every step, and its stated error."""
    first = rows[0]
    pairs, points = Weights(ends - 0.5, first + 0.5, steps - 1 - first), Weights(rows * 1.0, first, steps - first)
    before = pairs.before(0)
    start = terms["loss"][ends[0]] - terms["loss_change"][ends[0]] - terms["loss"][first]
    missed = constant(start - before * terms["loss_change"][ends[0]] if before else 0.0, len(ends))
    for name in ("loss_change", "update_corr", "descent"):
        yield name, *_sum(terms[name], ends, pairs, missed, slice(first + 1, steps))
    nothing = constant(0.0, len(rows))
    for name in ("num", "den"):
        yield name, *_sum(terms[name], rows, points, nothing, slice(first, steps))
    yield from _ratio(
        "ratio to x_(t-1)", terms["update_corr"], terms["loss_change"], ends, pairs, missed, first + 1, steps
    )
    yield from _ratio("ratio to x_T", terms["num"], terms["den"], rows, points, nothing, first, steps)
    known = terms["fixed_loss"][ends] - terms["fixed_loss"][first]
    known[-1] = terms["fixed_loss"][-1] - terms["fixed_loss"][first]
    u, a, k = column(terms["fixed_corr"][ends]), column(terms["fixed_change"][ends]), column(known)
    whole, fixed = terms["fixed_corr"][first + 1 :].sum(), Weights(ends - 0.5, first + 0.5, steps - first)
    plain = running_sum(u, fixed)
    yield "fixed, plain", abs(plain.values[-1] - whole), sum_error(u, fixed, k - running_sum(a, fixed)).values[-1]
    yield (
        "fixed, controlled",
        abs(controlled(u, a, k, fixed).values[-1] - whole),
        controlled_error(u, a, k, fixed).values[-1],
    )


def _sum(values: np.ndarray, rows: np.ndarray, weights: Weights, missed: Column, every: slice) -> tuple[float, float]:
    some = column(values[rows])
    return abs(running_sum(some, weights).values[-1] - values[every].sum()), sum_error(some, weights, missed).values[-1]


def _ratio(
    name: str,
    num: np.ndarray,
    den: np.ndarray,
    rows: np.ndarray,
    weights: Weights,
    missed: Column,
    start: int,
    end: int,
) -> Iterator[tuple[str, float, float]]:
    """Where it is given."""
    n, d = column(num[rows]), column(den[rows])
    bottom, weighed = running_sum(d, weights), weights_of(d, weights)
    bound = rows_bound(sum_error(d, weights, missed), weighed)
    ratio = convexity_ratio(running_sum(n, weights), bottom, constant(0.0, len(rows)), bound)
    if ratio.defined[-1]:
        stated = convexity_ratio_rows_se(ratio, bottom, n, d, weighed, bound, missed)
        yield name, abs(ratio.values[-1] - num[start:end].sum() / den[start:end].sum()), stated.values[-1]


def main(
    seeds: Annotated[int, typer.Option(help="Trainings of each model and optimizer.")] = 4,
    steps: Annotated[int, typer.Option(help="Steps of each.")] = 1000,
    draws: Annotated[int, typer.Option(help="Choices of rows of each kind that draws.")] = 6,
    out: Annotated[Path | None, typer.Option(help="Write every case there, as CSV.")] = None,
) -> None:
    """How often three errors for the choice of rows cover the value over every step."""
    cases: list[tuple[str, float, str, str, float, float]] = []
    for name, rates in RATES.items():
        for optimizer in rates:
            for seed in range(seeds):
                terms = terms_of(name, optimizer, seed, steps)
                for share in (0.3, 0.1, 0.02):
                    for how in HOWS:
                        for draw in range(draws if how in ("default", "random") else 1):
                            rows, ends = chosen(how, share, steps, 100 * seed + draw)
                            cases += [(optimizer, share, how, *each) for each in held(terms, rows, ends, steps)]
    if out is not None:
        lines = [",".join(map(str, case)) for case in cases]
        out.write_text("\n".join(["optimizer,share,rows,what,off,error", *lines]) + "\n")
    _print(cases, lambda case: (case[0], f"{100 * case[1]:.0f}%"))
    print()
    _print(cases, lambda case: (case[2], f"{100 * case[1]:.0f}%"))


def _print(cases: list[tuple[str, float, str, str, float, float]], key: Callable[[tuple], tuple[str, str]]) -> None:
    """Of each kind of cases and quantity: covered, of how many, and the median of what it is off by over its error."""
    kinds, names = list(dict.fromkeys(map(key, cases))), list(dict.fromkeys(case[3] for case in cases))
    for kind in kinds:
        for name in names:
            found = np.array([case[4:] for case in cases if key(case) == kind and case[3] == name])
            if len(found):
                off, error = found.T
                share, ratio = 100 * np.mean(off <= 3 * error), np.median(off) / np.median(error)
                print(f"{kind[0]:10} {kind[1]:>4} {name:18} {share:4.0f}% of {len(off):4}   off/error {ratio:.2f}")
