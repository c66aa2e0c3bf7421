"""The headline of an analysis in plain words.

A sentence says what was measured and no more: on which sample, with which error, over which noise floor, how much of it
is undetermined. Where one of these is not known there is no sentence, and a reason instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trajcheck.reports.quantities.catalogue import ERRORS
from trajcheck.reports.reading.report import SavedReport
from trajcheck.reports.terminal.layout import number

#: On how many standard errors a difference is called one.
STANDARD_ERRORS = 2.0

SAMPLES = {
    "own": "each step's own batch",
    "probe": "the probe batches",
    "full": "the whole data set",
}
_KINDS = {"path": "along the path", "batch": "over batches", "steps": "choice of steps"}
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
    mean, kind, sample = (values[name] for name in ("cosine", "cosine_of", "cosine_sample"))
    if mean is None:
        return "", values["cosine_missing"] or report.why_empty("cos")
    if sample not in SAMPLES:
        return "", BIASED
    error = values["cosine_error"] if values["cosine_se"] is None else values["cosine_se"]
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
        if abs(mean) <= STANDARD_ERRORS * error
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
    num, den, shares = (values[name] for name in ("convexity_num", "convexity_den", "shares"))
    if sample not in SAMPLES:
        return "", BIASED
    if values["convexity_missing"]:
        return "", values["convexity_missing"]
    if shares is None or num is None or den is None:
        return "", report.why_empty("inst_gap")
    percent = {name: f"{100 * share:.3g}%" for name, share in shares.items()}
    y = "x_(t−1)" if ref is None else "x*"
    return (
        f"On {SAMPLES[sample]}, the inequality of convexity f(x_t) − f({y}) ≤ ⟨g_t, x_t − {y}⟩ holds on "
        f"{percent['convex']} of the steps, fails on {percent['not_convex']}, and is undetermined on "
        f"{percent['undetermined']}. Summed over the run, {_sums(values)}{_ratio(values, den)}."
    ), ""


def _sums(values: Mapping[str, Any]) -> str:
    """The two sides, and what noise gives for the right one."""
    num, den = (_with_errors(values, f"convexity_{name}") for name in ("num", "den"))
    if values["convexity_of"] == "convexity_ratio_skip":
        return (
            f"the right side with x_s in the place of x_t, s the record after t, is {num} (the steps' own terms, which "
            f"noise gives too, are left out), the left {den}"
        )
    if values["convexity_of"] == "convexity_ratio_controlled":
        return f"the right side is {num} (noise gives 0 on average), the left, which is known, {den}"
    return f"the right side is {num} (noise gives 0 on average), the left {den}"


def _ratio(values: Mapping[str, Any], den: float) -> str:
    ratio = values["convexity_ratio"]
    if ratio is None:
        return "; the left is below its resolution or within its errors, so that there is no ratio"
    said = f", and their ratio {_with_errors(values, 'convexity_ratio')}"
    if values["convexity_of"] == "convexity_ratio_skip":
        return (
            f"{said}; it is no test of convexity: what each step gained is left out too, so that convex "
            "functions may give less than 1"
        )
    error = combined_error(values, "convexity_ratio")
    bound = "at least 1" if den > 0 else "at most 1, the left being negative"
    if error is not None and abs(ratio - 1) <= STANDARD_ERRORS * error:
        verdict = "1 is within two standard errors"
    else:
        verdict = "it is so" if (ratio >= 1) == (den > 0) or ratio == 1 else "it is not"
    return f"{said}; convexity asks for {bound}: {verdict}"


def combined_error(values: Mapping[str, Any], name: str) -> float | None:
    """Of all kinds of errors that a value has, in quadrature."""
    errors = [error for end in ERRORS if (error := values.get(name + end)) is not None]
    return float(np.hypot.reduce(errors)) if errors else None


def _with_errors(values: Mapping[str, Any], name: str) -> str:
    """A value with its standard errors and their kinds."""
    known = {kind: error for end, kind in ERRORS.items() if (error := values.get(name + end)) is not None}
    errors = [f"{number(error, 2)} ({_KINDS[kind]})" for kind, error in known.items()]
    return " ± ".join([number(values[name]), *errors])
