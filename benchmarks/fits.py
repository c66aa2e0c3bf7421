"""How often the intervals of envelopes hold the constants from which rows were made, and how often chance is taken for
a regressor that explains: rows made up, c_0 + c_1 u_t less some slack, neighbours correlated by rho or not.

What the slack is like near 0 decides: `exact`, a fifth of the rows reach their bound; `even`, they lie near it as often
as elsewhere below; `thinning`, they thin out towards it in proportion to the distance; `scaled`, even, of half of the
bound, so that large rows leave most. `falling` is even, with a regressor that falls along the run by e^3.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from scipy.special import ndtr

from benchmarks.table import Row, show
from trajcheck.metrics.fits.envelope import Envelope, upper_envelope

CONSTANTS = np.array([1.0, 2.0])
KINDS = ("exact", "even", "thinning", "scaled", "falling")


def main(
    draws: Annotated[int, typer.Option(help="Sets of rows a line.")] = 300,
    rows: Annotated[str, typer.Option(help="How many rows a set has, with commas between.")] = "32,100,400",
    out: Annotated[Path | None, typer.Option(help="Write the table to this file as JSON.")] = None,
) -> None:
    """Coverage of the intervals of envelopes, and false alarms of their nulls."""
    found = []
    for count in (int(each) for each in rows.split(",")):
        for rho in (0.0, 0.9):
            for kind in KINDS:
                held = coverage(kind, count, rho, draws)
                found.append(Row(f"{kind}, {count} rows, rho {rho}: the worse of c_0, c_1 in its interval", held))
            rate = false_alarms(count, rho, draws)
            found.append(Row(f"independent, {count} rows, rho {rho}: explained above its null", rate, target=0.1))
    show("fits", {"draws": draws}, found, out)


def coverage(kind: str, rows: int, rho: float, draws: int) -> float:
    """Share of the draws whose intervals hold the constants, of the one that is held less often."""
    random = np.random.default_rng(rows)
    held = np.zeros(2)
    for _ in range(draws):
        u = np.exp(0.7 * neighbours(random, rows, rho))
        if kind == "falling":
            u = np.exp(-3 * np.arange(rows) / rows + 0.3 * np.log(u))
        slack = ndtr(neighbours(random, rows, rho))
        slack = {"exact": np.where(slack < 0.2, 0.0, slack), "thinning": slack**0.5}.get(kind, slack)
        bound = CONSTANTS[0] + CONSTANTS[1] * u
        y = bound * (1 - slack / 2) if kind == "scaled" else bound - slack
        envelope = fitted(y, u)
        assert envelope.interval is not None
        held += (envelope.interval.low[:2] <= CONSTANTS + 1e-9) & (envelope.interval.high[:2] >= CONSTANTS - 1e-9)
    return float(held.min()) / draws


def false_alarms(rows: int, rho: float, draws: int) -> float:
    """Share of the draws in which a regressor that knows nothing of y explains more than its null's 95% quantile."""
    random = np.random.default_rng(rows)
    found = 0
    for _ in range(draws):
        u, y = (np.exp(scale * neighbours(random, rows, rho)) for scale in (0.7, 0.3))
        envelope = fitted(y, u)
        found += envelope.explained > envelope.null_explained
    return found / draws


def fitted(y: np.ndarray, u: np.ndarray) -> Envelope:
    return upper_envelope(y, np.stack([np.ones(len(u)), u], axis=1), np.ones(len(u)))


def neighbours(random: np.random.Generator, rows: int, rho: float) -> np.ndarray:
    """Standard normal numbers [rows] of which neighbours are correlated by rho."""
    fresh = random.normal(size=rows)
    found = fresh.copy()
    for i in range(1, rows):
        found[i] = rho * found[i - 1] + (1 - rho**2) ** 0.5 * fresh[i]
    return found
