"""The quantities of such a row: how each is called, in which group it stands, and what it is.

What the headline of summary.json holds besides is taken up under its own name, and so is the last value of a sum of
steps.csv: only what is to have a heading or words of its own is declared here.
"""

from __future__ import annotations

from typing import NamedTuple

#: The previous iterate, in the place of a reference.
PREVIOUS = "x_(t-1)"

REFERENCES, STEPS, BOTH = "references", "steps", "both"
NUMBER, SHARE, WORD = "number", "share", "word"

#: What follows the name of a quantity in that of its error, and of what kind the error is: along the path, over probe
#: batches, for the choice of the rows that were recorded.
ERRORS = {"_error": "path", "_se": "batch", "_rows_se": "steps"}

GROUPS = {
    "headline": "headline",
    "quarters": "cosine by quarter",
    "smoothness": "smoothness",
    "sums": "sums",
    "curvature": "curvature",
    "path": "loss and path",
}


class RowQuantity(NamedTuple):
    """`towards`: the rows that have it, those of references, that of x_(t-1), or both. `columns` are those whose
    reasons say why it is empty. `heading` is text, `latex` may have mathematics. A share is shown in percent."""

    name: str
    group: str
    heading: str
    latex: str
    words: str
    towards: str = BOTH
    columns: tuple[str, ...] = ()
    kind: str = NUMBER

    @property
    def shown(self) -> str:
        return f"{self.heading} [%]" if self.kind == SHARE else self.heading


_RATIO = ("convexity_ratio_skip", "convexity_den_skip", "convexity_ratio", "convexity_den", "convexity_num")
_GAP = ("inst_gap", "gap_resolution")
_COS = ("cos_skip", "cos")
_RATE = ("lambda_max", "stability_threshold")

_DECLARED = (
    RowQuantity("cosine", "headline", "cosine", r"$\cos$", "Mean over the run's records of cos(g_t, x_s - x*), s a "
                "record after t, or of cos(g_t, x_t - x*) where that needs no correction.", REFERENCES, _COS),
    RowQuantity("cosine_of", "headline", "cosine of", "cosine of", "Which of the two.", REFERENCES, _COS, WORD),
    RowQuantity("convexity_ratio", "headline", "ratio", "ratio", "num / den: at least 1 where the inequality of "
                "convexity held at every record and den > 0, at most 1 where it held and den < 0; "
                "without the steps' own terms it may be below 1 all the same.", BOTH, _RATIO),
    RowQuantity("convexity_of", "headline", "ratio of", "ratio of", "Which: convexity_ratio_skip, where <g_t, x_s - "
                "x*> stands in num, s a record after t; convexity_ratio, where that needs no correction; "
                "convexity_ratio_controlled, with the known sum of loss changes as den and control variate.", BOTH,
                _RATIO, WORD),
    RowQuantity("convex", "headline", "convex", "convex", "Share of the records at which the inequality of convexity "
                "holds beyond rounding.", BOTH, _GAP, SHARE),
    RowQuantity("not_convex", "headline", "not", "not convex", "Share at which it fails beyond rounding.", BOTH, _GAP,
                SHARE),
    RowQuantity("undetermined", "headline", "?", "undet.", "Share at which rounding, or the error over probe batches, "
                "leaves it open.", BOTH, _GAP, SHARE),
    *(
        RowQuantity(f"cosine_q{n}", "quarters", f"cosine q{n}", rf"$\cos$, q{n}", f"The cosine over the {which} "
                    "quarter of the run's steps.", REFERENCES, _COS)
        for n, which in enumerate(("first", "second", "third", "last"), 1)
    ),
    RowQuantity("avg_smooth", "smoothness", "L avg", r"$L_{\mathrm{avg}}$", "Mean of |grad f(x_t) - grad f(y)| / "
                "|x_t - y|.", BOTH, ("avg_smooth",)),
    RowQuantity("max_smooth", "smoothness", "L max", r"$L_{\max}$", "Largest of it.", BOTH, ("max_smooth",)),
    RowQuantity("smoothness_ratio", "smoothness", "smoothness ratio", "smoothness ratio", "(sum <g_t, d_t> - sum "
                "f(x_t) - f(x_{t-1})) / (sum |d_t|^2 / 2).", STEPS, ("smoothness_ratio",)),
    RowQuantity("convexity_num", "sums", "num", "num", "Sum of <g_t, x_t - y>.", BOTH, ("convexity_num",)),
    RowQuantity("convexity_den", "sums", "den", "den", "Sum of f(x_t) - f(y).", BOTH, ("convexity_den",)),
    RowQuantity("window_num", "sums", "num, all steps", r"num, all steps", "The same sum over every step, from "
                "window sums.", REFERENCES, ("window_num",)),
    RowQuantity("loss_change_sum", "sums", "Σ loss change", r"$\sum f(x_t)-f(x_{t-1})$", "Sum of f(x_t) - "
                "f(x_{t-1}), each on one sample.", STEPS, ("loss_change_sum",)),
    RowQuantity("loss_change_known", "sums", "f(x_T) - f(x_0)", r"$f(x_T)-f(x_0)$", "On probe batches and the whole "
                "data set, what the sum is over every step.", STEPS, ("loss_change_known",)),
    RowQuantity("update_corr_sum", "sums", "Σ ⟨g_t, d_t⟩", r"$\sum\langle g_t,d_t\rangle$", "Sum of <grad f(x_t), "
                "d_t>, d_t = x_t - x_{t-1}.", STEPS, ("update_corr_sum",)),
    RowQuantity("descent_sum", "sums", "Σ ⟨g_(t-1), d_t⟩", r"$\sum\langle g_{t-1},d_t\rangle$", "Sum of <grad "
                "f(x_{t-1}), d_t>: what the descent lemma promises at first order.", STEPS, ("descent_sum",)),
    RowQuantity("update_corr_controlled_sum", "sums", "Σ ⟨g_t, d_t⟩, controlled", r"$\sum\langle g_t,d_t\rangle$, "
                "controlled", "The same with the known sum of loss changes as a control variate.", STEPS,
                ("update_corr_controlled_sum",)),
    RowQuantity("descent_controlled_sum", "sums", "Σ ⟨g_(t-1), d_t⟩, controlled",
                r"$\sum\langle g_{t-1},d_t\rangle$, controlled", "Likewise.", STEPS, ("descent_controlled_sum",)),
    RowQuantity("predicted_change_max_sum", "sums", "Σ predicted, max L", r"$\sum$ predicted, $L_{\max}$", "Sum of "
                "<grad f(x_{t-1}), d_t> + (L/2) |d_t|^2, L the largest so far.", STEPS, ("predicted_change_max_sum",)),
    RowQuantity("predicted_change_exp_sum", "sums", "Σ predicted, exp. L", r"$\sum$ predicted, $L_{\exp}$", "The same "
                "with L an exponential average.", STEPS, ("predicted_change_exp_sum",)),
    RowQuantity("lambda_max", "curvature", "λ max", r"$\lambda_{\max}$", "Largest eigenvalue of the Hessian, mean over "
                "the last quarter of the run.", STEPS, ("lambda_max",)),
    RowQuantity("stability_threshold", "curvature", "threshold", "threshold", "2/lr, or 2(1+beta)/lr with momentum, "
                "over the same rows.", STEPS, ("stability_threshold",)),
    RowQuantity("sharpness_ratio", "curvature", "λ max / threshold", r"$\lambda_{\max}$ / threshold", "Mean of their "
                "quotient over the same rows.", STEPS, _RATE),
    RowQuantity("sharpness_above", "curvature", "λ max above", r"$\lambda_{\max}$ above", "Share of the rows of the "
                "whole run on which lambda_max is above the threshold.", STEPS, _RATE, SHARE),
    RowQuantity("loss_end", "path", "loss, end", "loss, end", "Mean of f(x_t) over the last tenth of the run, on the "
                "row's sample.", STEPS, ("loss",)),
    RowQuantity("path_length", "path", "path length", "path length", "Sum of |d_t|, over chords where not every step "
                "was recorded.", STEPS, ("path_length",)),
    RowQuantity("init_dist", "path", "|x_T - x_0|", r"$|x_T-x_0|$", "Distance of the last iterate from the first.",
                STEPS, ("init_dist",)),
    RowQuantity("path_ratio", "path", "path / distance", "path / distance", "path length / |x_T - x_0|.", STEPS,
                ("path_length", "init_dist")),
    RowQuantity("ref_dist", "path", "|x_0 - x*|", r"$|x_0-x^*|$", "Distance of the first iterate from the reference.",
                REFERENCES, ("ref_dist",)),
)  # fmt: skip

QUANTITIES = {each.name: each for each in _DECLARED}


def quantity_of(name: str) -> RowQuantity:
    """The quantity of that name; of one that nobody declared, what its name tells."""
    if name in QUANTITIES:
        return QUANTITIES[name]
    group, towards = ("sums", STEPS) if name.endswith("_sum") else ("headline", BOTH)
    return RowQuantity(name, group, name.replace("_", " "), name.replace("_", " "), "", towards, (name,))


def value_of_error(name: str) -> str | None:
    """The quantity whose error a name is; None where it is a quantity of its own."""
    for ending in sorted(ERRORS, key=len, reverse=True):
        if name.endswith(ending):
            return name.removesuffix(ending)
    return None


def in_order(names: set[str]) -> list[str]:
    """Names of quantities and errors as tables have them: declared ones first, each before its errors."""
    places = {name: place for place, name in enumerate(QUANTITIES)}

    def place(name: str) -> tuple[int, str, int, str]:
        value = value_of_error(name) or name
        return places.get(value, len(places)), value, int(value != name), name

    return sorted(names, key=place)
