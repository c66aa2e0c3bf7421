"""The headline of an analysis in plain words.

A sentence says what was measured and no more: on which sample, with which error, over which noise floor, how much of it
is undetermined. Where one of these is not known there is no sentence, and a reason instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trajcheck.reports.reading.report import SavedReport
from trajcheck.reports.terminal.layout import number

#: On how many standard errors a difference is called one.
ERRORS = 2.0

SAMPLES = {
    "own": "each step's own batch",
    "probe": "the probe batches",
    "full": "the whole data set",
}
BIASED = "measured on the previous sample, from which x_t was made: biased, so nothing is said of it"


@dataclass(frozen=True)
class Words:
    """`said` are sentences under headings, `unsaid` {what they would have been about: why there is none}."""

    said: dict[str, list[str]] = field(default_factory=dict)
    unsaid: dict[str, str] = field(default_factory=dict)


def analysis_words(report: SavedReport) -> Words:
    """A sentence on the cosine and one on convexity towards every reference, and one on convexity along the path; on
    probe batches or the whole data set where the report has them, else on each step's own batch."""
    words, head = Words(), report.summary["headline"]
    samples = head.get("samples", {head["sample"]: head})
    sample = next((name for name in ("probe", "full", "own") if name in samples), "previous")
    for ref, values in head["references"].items():
        title = f"Towards {ref}"
        _put(words, title, "the cosine", *_cosine(report, ref, values))
        _put(words, title, "convexity", *_convexity(report, ref, sample, samples[sample]["references"][ref]))
    title = "Between consecutive iterates"
    _put(words, title, "convexity", *_convexity(report, None, sample, samples[sample]["previous"]))
    return words


def _put(words: Words, title: str, about: str, sentence: str, reason: str) -> None:
    if sentence:
        words.said.setdefault(title, []).append(sentence)
    else:
        words.unsaid[f"{title}, {about}"] = reason


def _cosine(report: SavedReport, ref: str, values: Mapping[str, Any]) -> tuple[str, str]:
    """The sentence, or the reason for which there is none."""
    mean, error, kind, sample = (values[name] for name in ("cosine", "cosine_error", "cosine_of", "cosine_sample"))
    if mean is None:
        return "", values["cosine_missing"] or report.why_empty("cos")
    if sample not in SAMPLES:
        return "", BIASED
    if error is None:
        return "", "its standard error is not known"
    if kind == "cos_skip":
        towards, floor = (
            "x_s − x*, x* being this point and s the record after t",
            "the step's own term is left out, so that noise would give 0",
        )
        floor += _with_own_term(report, ref)
    else:
        towards = "x_t − x*, x* being this point"
        floor = {
            "own": "x* does not depend on the step's batch, so that noise would give 0",
            "probe": "no step was made from them, so that noise would give 0",
            "full": "the noise of a step's batch has mean 0 there",
        }[sample]
    verdict = (
        "no direction towards or away from it is found: 0 is within two standard errors"
        if abs(mean) <= ERRORS * error
        else f"small steps against the gradient lead {'towards' if mean > 0 else 'away from'} it on average"
    )
    return (
        f"The cosine of the gradient with {towards}, is {number(mean)} ± {number(error, 2)} (standard error) in the "
        f"mean over the run, on {SAMPLES[sample]} ({floor}): {verdict}."
    ), ""


def _with_own_term(report: SavedReport, ref: str) -> str:
    cos, floor = (report.series("references", name, ref=ref, sample="own").values for name in ("cos", "cos_floor"))
    both = np.isfinite(cos) & np.isfinite(floor)
    weights = report.series("references", "weight", ref=ref, sample="own").values[both]
    if not weights.sum() > 0:
        return ""
    means = [number(float(np.average(each[both], weights=weights))) for each in (cos, floor)]
    return f"; with it {means[0]}, of which noise alone would give {means[1]}"


def _convexity(report: SavedReport, ref: str | None, sample: str, values: Mapping[str, Any]) -> tuple[str, str]:
    """The sentence, or the reason for which there is none; `ref` None: y = x_{t-1}."""
    num, den, ratio, shares = (values[name] for name in ("convexity_num", "convexity_den", "convexity_ratio", "shares"))
    if sample not in SAMPLES:
        return "", BIASED
    if shares is None or num is None or den is None:
        return "", report.why_empty("inst_gap")
    floor, reason = _floor(report, ref, sample, values)
    if reason:
        return "", reason
    percent = {name: f"{100 * share:.3g}%" for name, share in shares.items()}
    y = "x_(t−1)" if ref is None else "x*"
    return (
        f"On {SAMPLES[sample]}, the inequality of convexity f(x_t) − f({y}) ≤ ⟨g_t, x_t − {y}⟩ holds on "
        f"{percent['convex']} of the steps, fails on {percent['not_convex']}, and is undetermined on "
        f"{percent['undetermined']}. Summed over the run, the right side is {number(num)}{floor}, the left "
        f"{number(den)}{_ratio(report, ref, sample, ratio, den)}."
    ), ""


def _ratio(report: SavedReport, ref: str | None, sample: str, ratio: float | None, den: float) -> str:
    if ratio is None:
        return "; the left is below its resolution, so that there is no ratio"
    keys = {"sample": sample, **({} if ref is None else {"ref": ref})}
    series = report.series("steps" if ref is None else "references", "convexity_ratio", **keys)
    errors = series.errors[series.defined] if series.errors is not None else np.empty(0)
    known = len(errors) > 0 and bool(np.isfinite(errors[-1]))
    error = (
        f" ± {number(float(errors[-1]), 2)} (standard error)" if known else " (on one batch a step: no standard error)"
    )
    if sample == "full":
        error = "" if not known else error
    bound = "at least 1" if den > 0 else "at most 1, the left being negative"
    if known and abs(ratio - 1) <= ERRORS * float(errors[-1]):
        verdict = "1 is within two standard errors"
    else:
        verdict = "it is so" if (ratio >= 1) == (den > 0) or ratio == 1 else "it is not"
    return f", and their ratio {number(ratio)}{error}; convexity asks for {bound}: {verdict}"


def _floor(report: SavedReport, ref: str | None, sample: str, values: Mapping[str, Any]) -> tuple[str, str]:
    """What noise alone gives of the sum of <g, x - y>, in words, or the reason for which it is not known.

    Towards a later iterate x_r, x_t - x_r holds eta_t g_t under plain SGD, so that noise gives sum w eta |g|^2.
    """
    if ref is None or sample != "own":
        return " (noise gives 0 on average)", ""
    columns = {
        name: report.series("references", name, ref=ref, sample="own").values
        for name in ("cos", "cos_skip", "cos_floor", "weight", "lr", "grad_norm", "convexity_num", "ref_dist")
    }
    defined = {name: np.isfinite(values) for name, values in columns.items()}
    depends = values["dependence"]
    if depends["free"] is None:
        return "", f"its noise floor is not known: x* may depend on the batches, {depends['found']}"
    if depends["free"] <= report.summary["run"]["first_step"]:
        return " (x* does not depend on the batches: noise gives 0 on average)", ""
    if not defined["cos"].any():
        return "", "its noise floor is not known without the secant quantities"
    summed = defined["convexity_num"] & ~(columns["ref_dist"] == 0)
    if (summed & ~(defined["cos_floor"] & defined["lr"] & defined["grad_norm"])).any():
        return "", f"its noise floor is not known: {report.why_empty('cos_floor')}"
    noise = columns["weight"] * columns["lr"] * columns["grad_norm"] ** 2
    return f" (of which {number(float(noise[summed].sum()))} are the steps' own terms η|g|², which noise gives too)", ""
