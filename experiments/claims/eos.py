"""Cohen et al., arXiv 2103.00065: the edge of stability."""

from __future__ import annotations

import numpy as np

from experiments.claims.claim import Claim, Numbers, Value, Values
from experiments.measured import Measured, last, mean


def _edge(run: Measured) -> Numbers:
    top, threshold = run.steps("lambda_max"), run.steps("stability_threshold")
    both = top.index.intersection(threshold.index)
    share = top[both] / threshold[both]
    return {
        "lambda_max / threshold, first": float(share.iloc[0]) if len(share) else np.nan,
        "largest": float(share.max()),
        "mean of the last quarter": mean(share, 0.75, 1.0),
        "last loss": last(run.steps("loss")),
    }


def _hovers(values: Values) -> bool | None:
    end: Value | None = values.get("mean of the last quarter")
    return None if end is None or not end.runs else bool(0.9 <= end.mean <= 1.2)


CLAIMS = (
    Claim(
        "EoS-1",
        "The sharpness of full-batch training rises to the threshold of stability, 2/eta for gradient descent and "
        "2(1 + beta)/eta for heavy ball, and stays there",
        ("edge-of-stability",),
        "full batch, squared error on 5,000 images of CIFAR-10",
        _edge,
        _hovers,
        "the mean of lambda_max / threshold over the last quarter of the rows lies between 0.9 and 1.2",
        why="Gradient descent gets there at all rates. Heavy ball at small rates has fitted the 300 images before its "
        "sharpness has risen so far.",
        figure=("edge-of-stability-sharpness", "The largest eigenvalue and 2/eta along gradient descent at rate 0.2"),
    ),
)
