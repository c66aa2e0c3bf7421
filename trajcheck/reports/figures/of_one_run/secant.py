"""The constants of the restricted secant inequality and of the error bound towards every reference (NWT)."""

from __future__ import annotations

from matplotlib.figure import Figure

from trajcheck.reports.figures.drawing.axes import finish, panels, scale, zero
from trajcheck.reports.figures.drawing.legends import legend
from trajcheck.reports.figures.drawing.towards import towards_references
from trajcheck.reports.figures.picture import NothingToDraw, Picture
from trajcheck.reports.reading.report import SavedReport

_LABELS = {
    "rsi": r"rsi $\langle g_t,e_t\rangle/|e_t|^2$" "\n[loss/length²]",
    "eb": r"eb $|g_t|/|e_t|$" "\n[loss/length²]",
}


def _draw(report: SavedReport) -> Figure:
    towards = towards_references(report, _LABELS)
    if not towards.lines:
        raise NothingToDraw(report.why_empty("rsi", "eb"))
    figure, axes = panels(2)
    for ax, (column, label) in zip(axes[:, 0], _LABELS.items(), strict=True):
        scale(ax, towards.of_column(column).values())
        if ax.get_yscale() != "log":
            zero(ax)
        towards.draw(ax, column, linewidth=0.9)
        finish(ax, label, steps=column == "eb")
    legend(figure, [*towards.entries(), *towards.sample_entries, *towards.not_drawn])
    return figure


PICTURE = Picture(
    "secant",
    "Restricted secant inequality and error bound",
    "rsi = ⟨g_t, e_t⟩/|e_t|² and eb = |g_t|/|e_t| with e_t = x_t − x*; their quotient is the cosine. Towards a later "
    "iterate of the same run, rsi on own samples contains the step's own noise, as the cosine does.",
    _draw,
    place=70,
)
