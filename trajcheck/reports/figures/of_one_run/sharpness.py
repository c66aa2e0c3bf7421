"""The Hessian's largest eigenvalue against the smoothness of the path and the threshold of stability."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from trajcheck.reports.figures.drawing.axes import finish, line, panels, scale, zero
from trajcheck.reports.figures.drawing.legends import entry, legend
from trajcheck.reports.figures.drawing.ratio_panel import sample_entries
from trajcheck.reports.figures.drawing.style import BLACK, BLUE, DASHES, GREEN, SKY, VERMILLION
from trajcheck.reports.figures.picture import NothingToDraw, Picture
from trajcheck.reports.reading.report import SavedReport

_COLUMNS = {
    "inst_smooth": ("smoothness to the previous iterate", SKY, 0.7),
    "stability_threshold": ("stability threshold, 2/lr or 2(1+β)/lr", BLACK, 1.1),
    "lambda_max": (r"$\lambda_{max}$", VERMILLION, 1.3),
    "lambda_min": (r"$\lambda_{min}$", BLUE, 1.1),
    "grad_curvature": (r"along the gradient, $\langle g,Hg\rangle/|g|^2$", GREEN, 1.0),
}


def _draw(report: SavedReport) -> Figure:
    found = report.of_samples(_COLUMNS)
    for key in [key for key in found if key[0] == "stability_threshold"][1:]:
        del found[key]  # no sample enters it
    if not any(column == "lambda_max" for column, _ in found):
        raise NothingToDraw(report.why_empty("lambda_max") if report.summary["options"].get("curvature") else _ASK)
    figure, axes = panels(1, height=3.6)
    ax = axes[0, 0]
    scale(ax, found.values())
    zero(ax) if ax.get_yscale() != "log" else None
    for (column, sample), series in found.items():
        _, color, width = _COLUMNS[column]
        line(ax, series, color, DASHES[sample], linewidth=width)
    finish(ax, "curvature [loss/length²]")
    entries: list[Line2D | Patch] = [
        entry(label, color) for column, (label, color, _) in _COLUMNS.items() if any(c == column for c, _ in found)
    ]
    legend(figure, [*entries, *sample_entries(list(dict.fromkeys(sample for _, sample in found)))])
    return figure


_ASK = "the Hessian was not asked for: give --curvature EVERY"

PICTURE = Picture(
    "sharpness",
    "Sharpness, smoothness and the threshold of stability",
    "Extreme eigenvalues of the Hessian at x_t on the sample of the row (a minibatch's are not the full batch's), "
    "against the smoothness from iterate to iterate and the largest curvature at which gradient descent with this "
    "rate is stable; Adam's threshold is that of another matrix and is not drawn.",
    _draw,
    place=50,
)
