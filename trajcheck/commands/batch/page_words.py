"""How to read the columns of index.html: a sentence or two each, as HTML, that claim no more than was measured."""

from __future__ import annotations

EMPTY_CELLS = (
    "A row is of one run, towards one reference, on one sample. A dash is a value that could not be computed: its "
    "title says why, and so does <code>undefined.csv</code> of the run's report. An empty cell is of a quantity "
    "that makes no sense in its row."
)

READING = {
    "run": "Where the run lies. The link leads to its report, or to <code>steps.csv</code> where no page was drawn "
    "from the tables that lie there.",
    "status": "<b>done</b>: analyzed as far as it is recorded; <b>incomplete</b>: analyzed, but something that was "
    "asked for could not be computed; <b>failed</b>: not analyzed, and tried again by the next call; <b>gone</b>: its "
    "folder is not there any more, and a report is of what it held.",
    "warnings": "Number of the report's warnings, to be read before its numbers.",
    "message": "Why a run failed, or what of it could not be computed.",
    "ref": "The reference x*, as it was given or by its role; <b>x_(t-1)</b> is the previous iterate, for which there "
    "are the convexity ratio and shares, smoothness, sums, curvature and path.",
    "sample": "The batches that gradients and losses of the row are of: each step's <b>own</b>, the <b>previous</b> "
    "step's, <b>probe</b> batches set aside from training, or the <b>full</b> data set.",
    "cosine": "Mean over the run's records of the cosine between the gradient g<sub>t</sub> and x<sub>s</sub> − x*, s "
    "being a record after t, so that the step's own term is left out; with a * of that between g<sub>t</sub> and "
    "x<sub>t</sub> − x*. ± is one standard error, of the kind that stands behind it: along the <b>path</b>, over probe "
    "batches (<b>batch</b>), or for the choice of the recorded <b>steps</b>. Above 0 by several "
    "errors, small steps against the gradient led towards x* on average, on that sample; within two errors of 0, no "
    "direction is found. Momentum and Adam carry a step's own term on for a while: see the report's warnings.",
    "convexity_ratio": "Sum of ⟨g<sub>t</sub>, x<sub>t</sub> − x*⟩ over the sum of f(x<sub>t</sub>) − f(x*), the num "
    "and den of the cell's title, on one sample. Without a mark x<sub>s</sub> stands for x<sub>t</sub> in num, s being "
    "a record after t, so that the steps' own terms are left out; with a * x<sub>t</sub> itself; with a ^ den is the "
    "known sum of loss changes, and a control variate of num. Towards x_(t-1) x* is x<sub>t-1</sub>. If the "
    "inequality of convexity held at every record, one with a mark would be at least 1 with den above 0, and at most 1 "
    "with den below; a ratio in that range does not show that it held. One without a mark may be below 1 all the same, "
    "as what each step gained is left out too. Empty without replayed losses, or where den is below its resolution.",
    "convex": "Share of the records, each by its weight, at which f(x<sub>t</sub>) − f(x*) ≤ ⟨g<sub>t</sub>, "
    "x<sub>t</sub> − x*⟩ holds beyond rounding. That is the inequality of convexity between these two points on that "
    "sample, and says nothing of other points.",
    "not_convex": "Share of the records at which that inequality fails beyond rounding.",
    "undetermined": "Share of the records at which rounding, or the standard error over probe batches, leaves it open.",
    "steps": "Number of recorded steps; first and last in the cell's title.",
    "parameters": "Number of the model's parameters.",
    "analyzed": "When the row was made, in UTC.",
    "duration": "How long the last call took to analyze the run and to write its report, without what had been saved "
    "before by earlier calls, or by workers among whom the run was shared out.",
    "left out": "Number of steps that the analysis left out; the report says why.",
}
