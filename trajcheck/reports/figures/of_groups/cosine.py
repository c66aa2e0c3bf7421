"""Groups of runs: does the gradient point away from each one's x*?"""

from __future__ import annotations

from matplotlib.figure import Figure

from trajcheck.reports.figures.drawing.group_panels import SPREAD, GroupPanel, figure_of_groups
from trajcheck.reports.figures.drawing.run_panels import SAMPLE_TITLES, towards
from trajcheck.reports.figures.picture import Picture
from trajcheck.reports.reading.groups import Grouped


def _draw(grouped: Grouped) -> Figure:
    keys = grouped.towards_ref
    skip = grouped.curves("references", "cos_skip", "own", **keys)
    parts = []
    for sample, curves in grouped.curves_on_samples("references", "cos", **keys).items():
        if sample == "own" and skip:  # a mean of both would be of neither
            words = f"{towards(grouped)}, own sample, without the step's own term: cos_skip"
            parts.append(GroupPanel(words, r"$\cos(g_t,\ x_s-x^*),\ s>t$", skip, (0.0,)))
            curves = {number: curve for number, curve in curves.items() if number not in skip}
        if curves:
            words = f"{towards(grouped)}, {SAMPLE_TITLES[sample]}"
            parts.append(GroupPanel(words, r"$\cos(g_t,\ x_t-x^*)$", curves, (0.0,)))
    return figure_of_groups(grouped, parts, "cos")


PICTURE = Picture(
    "cosine",
    "Cosine of the gradient",
    "The cosine between the gradient and x_t − x*, one sample to a panel; of own samples towards a later iterate of "
    f"the run it is cos_skip, which leaves out the step's own term. {SPREAD}",
    _draw,
    place=10,
    kinds=("grouped",),
)
