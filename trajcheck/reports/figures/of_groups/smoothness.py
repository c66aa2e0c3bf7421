"""Groups of runs: how far the gradient changes along the path, and the Hessian's largest eigenvalue."""

from __future__ import annotations

from matplotlib.figure import Figure

from trajcheck.reports.figures.drawing.group_panels import SPREAD, figure_of_groups, sample_panels
from trajcheck.reports.figures.picture import Picture
from trajcheck.reports.reading.groups import Grouped


def _draw(grouped: Grouped) -> Figure:
    parts = []
    for column, words, label in (
        ("avg_smooth", "average smoothness along the path", r"$L_{avg}$ [loss/length²]"),
        ("lambda_max", "largest eigenvalue of the Hessian", r"$\lambda_{max}$ [loss/length²]"),
    ):
        parts += sample_panels(grouped, "steps", column, label, f"{words}, {{}}".format)
    return figure_of_groups(grouped, parts, "avg_smooth", "lambda_max")


PICTURE = Picture(
    "smoothness",
    "Smoothness and sharpness",
    "The mean up to t of |∇f(x_t) − ∇f(x_{t-1})| / |x_t − x_{t-1}| and, where it was asked for, the largest eigenvalue "
    f"of the Hessian, one sample to a panel. {SPREAD}",
    _draw,
    place=30,
    kinds=("grouped",),
)
