"""The convexity ratio in one panel: bands, stretches where it is unresolved, and where its inequality turns round."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from trajcheck.reports.figures.drawing.axes import line, scale, shade
from trajcheck.reports.figures.drawing.legends import entry, patch
from trajcheck.reports.figures.drawing.run_panels import SAMPLE_TITLES, towards
from trajcheck.reports.figures.drawing.style import BLACK, DASHES, GREY, MARKS, ORANGE
from trajcheck.reports.reading.report import SavedReport, Series
from trajcheck.reports.reading.several_reports import SAMPLES, Together

LABEL = "ratio num/den"
_SKIP = "_skip"
_UNRESOLVED: dict[str, Any] = {"facecolor": "#F2F2F2", "edgecolor": "#888888", "hatch": "////"}
_TURNED: dict[str, Any] = {"facecolor": "#F6DFC0", "alpha": 0.7}
_BANDS = ((1.0, "#009E73", "> 1"), (0.0, ORANGE, "0 to 1"), (None, "#D55E00", "< 0"))


def ratios(report: SavedReport, table: str, **keys: str) -> tuple[Series, Series, Series]:
    """The ratio with its numerator and denominator: those without the steps' own terms where the headline's are."""
    end = _SKIP if is_free(report, keys.get("sample", ""), keys.get("ref", "")) else ""
    ratio, num, den = (report.series(table, f"convexity_{name}{end}", **keys) for name in ("ratio", "num", "den"))
    return ratio, num, den


def ratios_of_several(together: Together) -> Iterator[tuple[str, dict[int, Series], dict[int, Series]]]:
    """The ratios of several runs towards their references, and their denominators, by the runs' places, for a panel
    each, of which the first is its title: one a sample, and one for those without the steps' own terms."""
    for sample in SAMPLES:
        for free in (True, False):
            found = {
                place: ratios(report, "references", sample=sample, **together.towards_ref)
                for place, report in enumerate(together.reports[: together.shown])
                if is_free(report, sample, together.ref) == free
            }
            found = {place: each for place, each in found.items() if each[0]}
            if found:
                words = f"{towards(together)}, {SAMPLE_TITLES[sample]}" + (", without the steps' own terms" * free)
                yield words, {n: ratio for n, (ratio, *_) in found.items()}, {n: den for n, (*_, den) in found.items()}


def is_free(report: SavedReport, sample: str, ref: str) -> bool:
    """Whether the headline's ratio is the one without the steps' own terms."""
    head = report.summary["headline"]
    samples = head.get("samples") or {head["sample"]: head}
    said = samples.get(sample, {}).get("references", {}).get(ref, {})
    return bool(said.get("convexity_of") == f"convexity_ratio{_SKIP}")


def unresolved(ratio: Series, den: Series) -> np.ndarray:
    """The rows on which there is a denominator but no ratio: |den| is below its resolution, or within its error."""
    return den.defined & ~ratio.defined


def draw_ratio(ax: Axes, drawn: dict[str, tuple[Series, Series]], color: str = BLACK) -> None:
    """`drawn`: ratio and den by sample. The shades are the first sample's."""
    scale(ax, [ratio for ratio, _ in drawn.values()], linear_up_to=2.0)
    for sample, (ratio, _) in drawn.items():
        line(ax, ratio, color, DASHES[sample])
    ratio, den = next(iter(drawn.values()))
    shade(ax, den.steps, unresolved(ratio, den), zorder=0, **_UNRESOLVED)
    shade(ax, den.steps, ratio.defined & (den.values < 0), zorder=0, **_TURNED)
    bottom, top = limits(ax, [ratio for ratio, _ in drawn.values()])
    for level in (0.0, 1.0):
        ax.axhline(level, color=GREY, linewidth=0.8, zorder=1)
    edges = (top, 1.0, 0.0, bottom)
    for high, low, (_, hue, _) in zip(edges, edges[1:], _BANDS, strict=False):
        ax.axhspan(low, high, xmin=0, xmax=0.025, color=hue, linewidth=0, zorder=3)
    ax.set_ylim(bottom, top)


def limits(ax: Axes, drawn: Iterable[Series]) -> tuple[float, float]:
    """Those of the values and of most of their errors: one that is ten times the ratio would hide all ratios."""
    bottom, top = ax.get_ylim()
    drawn = list(drawn)
    values = np.concatenate([each.values[each.defined] for each in drawn])
    if len(values):
        ends = [
            np.percentile(each.values[rows] + sign * each.errors[rows], 50 + 40 * sign)
            for each in drawn
            if each.errors is not None and (rows := each.defined & np.isfinite(each.errors)).any()
            for sign in (-1, 1)
        ]
        low, high = min([values.min(), *ends]), max([values.max(), *ends])
        bottom, top = max(bottom, low - 0.1 * (high - low)), min(top, high + 0.1 * (high - low))
    return min(bottom, -0.2), max(top, 1.4)


def ratio_entries(drawn: list[tuple[Series, Series]]) -> list[Line2D | Patch]:
    """Entries of a legend for the bands at the left edge, and for the shades that occur."""
    found: list[Line2D | Patch] = [patch(f"ratio {words}", facecolor=hue) for _, hue, words in _BANDS]
    if any(unresolved(ratio, den).any() for ratio, den in drawn):
        found.append(patch("den below its resolution: no ratio", **_UNRESOLVED))
    if any((ratio.defined & (den.values < 0)).any() for ratio, den in drawn):
        found.append(patch("den < 0: convex means ratio ≤ 1", **_TURNED))
    return found


def sample_entries(samples: list[str], color: str = BLACK) -> list[Line2D | Patch]:
    """Entries for the line styles of samples, where there are several."""
    if len(samples) < 2:
        return []
    return [
        entry(f"sample {sample}", color, DASHES[sample], marker=MARKS[DASHES[sample]], markersize=3, **_hollow(sample))
        for sample in samples
    ]


def _hollow(sample: str) -> dict[str, str]:
    return {} if DASHES[sample] == "-" else {"markerfacecolor": "white"}
