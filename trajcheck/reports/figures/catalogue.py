"""All figures of a report, in the order in which they are shown."""

from __future__ import annotations

from trajcheck.reports.figures import (
    between_runs,
    convexity_gap,
    convexity_ratio,
    cosine,
    cosine_of_runs,
    distances,
    distances_of_runs,
    flow,
    layers,
    learning_rate,
    line_barrier,
    loss_of_runs,
    progress,
    ratio_of_runs,
    secant,
    sharpness,
    sharpness_of_runs,
    smoothness,
    trajectory,
)
from trajcheck.reports.figures.picture import Picture

#: By the kind of report.
PICTURES: dict[str, tuple[Picture, ...]] = {
    "analysis": (
        cosine.PICTURE,
        convexity_ratio.PICTURE,
        convexity_gap.PICTURE,
        smoothness.PICTURE,
        sharpness.PICTURE,
        progress.PICTURE,
        secant.PICTURE,
        learning_rate.PICTURE,
        distances.PICTURE,
        trajectory.PICTURE,
        layers.PICTURE,
    ),
    "comparison": (between_runs.PICTURE, line_barrier.PICTURE, layers.PICTURE),
    "flow": (flow.PICTURE,),
    "together": (
        cosine_of_runs.PICTURE,
        ratio_of_runs.PICTURE,
        sharpness_of_runs.PICTURE,
        distances_of_runs.PICTURE,
        loss_of_runs.PICTURE,
    ),
}
