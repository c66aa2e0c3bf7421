"""The constants of the restricted secant inequality and of the error bound towards every reference (NWT)."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from trajcheck.reports.figures.axes import entry, finish, legend, line, not_drawn, panels, scale, zero
from trajcheck.reports.figures.picture import NothingToDraw, Picture
from trajcheck.reports.figures.ratio_panel import sample_entries
from trajcheck.reports.figures.style import COLOURS, DASHES, short, told_apart
from trajcheck.reports.reading.report import SavedReport

_LABELS = {
    "rsi": r"rsi $\langle g_t,e_t\rangle/|e_t|^2$" "\n[loss/length²]",
    "eb": r"eb $|g_t|/|e_t|$" "\n[loss/length²]",
}


def _draw(report: SavedReport) -> Figure:
    refs = told_apart(report.references)
    found = {
        (column, number, sample): series
        for column in _LABELS
        for number, ref in enumerate(refs)
        for sample in report.samples
        if (series := report.series("references", column, ref=ref, sample=sample))
    }
    if not found:
        raise NothingToDraw(report.why_empty("rsi", "eb"))
    figure, axes = panels(2)
    for ax, (column, label) in zip(axes[:, 0], _LABELS.items(), strict=True):
        drawn = {key[1:]: series for key, series in found.items() if key[0] == column}
        scale(ax, drawn.values())
        if ax.get_yscale() != "log":
            zero(ax)
        for (number, sample), series in drawn.items():
            line(ax, series, COLOURS[number], DASHES[sample], linewidth=0.9)
        finish(ax, label, steps=column == "eb")
    entries: list[Line2D | Patch] = [
        entry(f"towards {short(refs[n])}", COLOURS[n]) for n in dict.fromkeys(n for _, n, _ in found)
    ]
    entries += sample_entries(list(dict.fromkeys(sample for *_, sample in found)))
    legend(figure, [*entries, *not_drawn(len(refs), len(report.references))])
    return figure


PICTURE = Picture(
    "secant",
    "Restricted secant inequality and error bound",
    "rsi = ⟨g_t, e_t⟩/|e_t|² and eb = |g_t|/|e_t| with e_t = x_t − x*; their quotient is the cosine. Towards a later "
    "iterate of the same run, rsi on own samples contains the step's own noise, as the cosine does.",
    _draw,
)
