"""The alpha-beta condition: which pairs a whole run meets, towards every reference (Islamov et al.)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trajcheck.reports.figures.drawing.fitted import Row, fit_of, why_no_fit
from trajcheck.reports.figures.drawing.labels import labels_at_right
from trajcheck.reports.figures.drawing.style import BLACK, COLOURS, GREY, WIDTH, short, told_apart
from trajcheck.reports.figures.picture import NothingToDraw, Picture
from trajcheck.reports.quantities.ledger import SAMPLES
from trajcheck.reports.reading.report import SavedReport
from trajcheck.reports.terminal.layout import number

#: Panels, at most, and the height in inches of one.
_MOST, _HEIGHT = 4, 2.9


def _draw(report: SavedReport) -> Figure:
    frontiers = report.summary.get("alpha_beta") or {}
    found = [
        (ref, sample, frontiers[ref][sample])
        for ref in told_apart(report.references)
        for sample in report.samples
        if sample in frontiers.get(ref, {}) and report.series("references", "grad_dot_ref", ref=ref, sample=sample)
    ]
    if not found:
        raise NothingToDraw(why_no_fit(report, "alpha_beta"))
    shown = found[:_MOST]
    figure = Figure(figsize=(WIDTH, _HEIGHT * len(shown) + 0.3), layout="constrained")
    axes = list(figure.subplots(len(shown), 1, squeeze=False)[:, 0])
    for ax, (ref, sample, one) in zip(axes, shown, strict=True):
        color = COLOURS[report.references.index(ref)]
        _panel(ax, one, fit_of(report, "alpha_beta", sample, ref), color)
        more = f"; {len(shown)} of {len(found)} are drawn" if len(found) > len(shown) else ""
        ax.set_title(f"towards {short(ref)}, {SAMPLES.get(sample, sample)}{more}", loc="left")
        ax.set_ylabel(r"$\alpha$")
    axes[-1].set_xlabel(r"$\beta$")
    return figure


def _panel(ax: Axes, one: Mapping[str, Any], fit: Mapping[str, Row], color: str) -> None:
    corners, levels, slope = np.array(one["beta"]), np.array(one["alpha"]), float(one["slope"])
    right = _right(corners, fit)
    beta = np.unique(np.concatenate([corners[corners < right], np.linspace(0, right, 201)]))
    alpha = np.where(beta <= corners[-1], np.interp(beta, corners, levels), levels[-1] + slope * (beta - corners[-1]))
    inside = corners <= right
    ax.fill_between(beta, beta, alpha, where=alpha >= beta, color=color, alpha=0.15, linewidth=0, zorder=1)
    ax.plot(beta, alpha, color=color, linewidth=1.4, zorder=3)
    ax.plot(corners[inside], levels[inside], "o", color=color, markersize=3, zorder=3)
    ax.plot(beta, beta, color=GREY, linestyle="--", linewidth=1.0, zorder=2)
    labels = [(float(alpha[-1]), "frontier\n$\\alpha_{\\max}(\\beta)$", color), (right, r"$\alpha=\beta$", GREY)]
    if {"alpha", "beta"} <= fit.keys():
        best = fit["beta"]["constant"], fit["alpha"]["constant"]
        ax.plot(*best, "*", color=BLACK, markersize=10, zorder=4, clip_on=False)
        words = rf"$\alpha=${number(best[1], 3)}, $\beta=${number(best[0], 3)}"
        ax.annotate(words, best, (9, -4), textcoords="offset points", va="top", fontsize=7.5, zorder=5)
    if "beta_min" in fit and fit["beta_min"]["constant"] > 0:
        least = fit["beta_min"]["constant"]
        ax.axvline(least, color=GREY, linestyle=":", linewidth=1.0)
        ax.annotate(rf"$\beta_{{\min}}=${number(least, 3)}", (least, 1.0), (3, -3), xycoords=("data", "axes fraction"),
                    textcoords="offset points", va="top", fontsize=7.5, color=GREY)  # fmt: skip
    ax.set_xlim(0, right)
    ax.set_ylim(bottom=min(0.0, float(alpha.min())))
    labels_at_right(ax, labels)


def _right(corners: np.ndarray, fit: Mapping[str, Row]) -> float:
    """How far beta goes: past what is marked, and past the first corners, the last of which may lie far off."""
    marked: Sequence[float] = [fit[name]["constant"] for name in ("beta", "beta_min") if name in fit]
    first = float(corners[min(2, len(corners) - 1)])
    return max(1.5 * max(marked, default=0.0), min(1.5 * first, 2.0), 1.0)


PICTURE = Picture(
    "alpha_beta",
    "The alpha-beta condition",
    "Pairs alpha > beta with ⟨g_t, e_t⟩ ≥ alpha (f(x_t; z) − f(x*; z)) − beta (f(x_t; z) − f_inf) on every row on "
    "which f(x_t; z) is above f(x*; z): the shaded region between the frontier and alpha = beta. Dots are where the "
    "frontier passes from one row to another; the star is the pair of least beta / (alpha − beta).",
    _draw,
    place=72,
    on_demand=True,
)
