"""The rows of schedule.csv: the last-iterate bound at some of a report's steps, towards each reference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from trajcheck.metrics.columns import Column, column, constant, lift
from trajcheck.metrics.families import Family
from trajcheck.metrics.last_iterate import horizons, last_iterate
from trajcheck.metrics.quantity import SCHEDULE
from trajcheck.metrics.student import ERRORS, widening
from trajcheck.runs.references import Reference
from trajcheck.runs.trajectory import Trajectory
from trajcheck.tables.evaluated import Evaluated
from trajcheck.tables.needed import needed
from trajcheck.tables.samples import SE, Measured
from trajcheck.tables.schedule.step_numbers import StepNumbers, step_numbers
from trajcheck.tables.schedule.subgradient_steps import one_function, other_steps, update_lengths

#: Of which samples the losses are those of f.
SAMPLES = ("own", "probe", "full")
ONE_BATCH = "one batch tells f(x_T) - f(x*) without an error: --sample probe, or full, measures one"


class SchedulePart(NamedTuple):
    """Rows towards one reference on one sample, at `steps`; `not_theorem` says why they are not the theorem's."""

    ref: str
    sample: str
    steps: Sequence[int]
    columns: Mapping[str, Column]
    not_theorem: Sequence[str]


class Schedule(NamedTuple):
    """`facts` are what the summary says of all of them."""

    parts: Sequence[SchedulePart]
    facts: Mapping[str, Any]


def schedule(measured: Iterable[Measured], families: Iterable[Family]) -> Schedule | None:
    """Of every reference on every sample; None where there is neither. Steps are those with a rate above 0, evenly
    spaced in their logarithms, the last one among them."""
    have = needed(families)
    samples = [each for each in measured if each.sample in SAMPLES]
    if not samples or not samples[0].references:
        return None
    source = samples[0].sources[0]
    trajectory, rows = source.trajectory, source.rows.rows
    own = next((each.sources[0] for each in samples if each.sample == "own"), None)
    numbers = step_numbers(trajectory, [row.step for row in rows], own)
    places = _places(numbers, [row.step for row in rows])
    steps = [rows[place].step for place in places]
    terms = _terms(numbers, steps)
    single = one_function(trajectory)
    why = [*other_steps(trajectory, steps[-1]), update_lengths(trajectory.log, numbers.first, steps[-1])]
    parts = []
    for reference in samples[0].references:
        for each in samples:
            also = [*why, _another_f(single, each.sample), _not_independent(single, reference, numbers.first)]
            reasons = list(dict.fromkeys(filter(None, also)))
            operands = {
                **terms,
                **_measured(each, reference, places, single=single, have=(have.reference_products, have.evaluations)),
                "theorem": constant(float(not reasons), len(places)),
            }
            columns = {}
            for name, made in Evaluated(SCHEDULE, operands.__getitem__).columns(()).items():
                columns[name] = made
                if (error := f"{name}{SE}") in operands:
                    columns[error] = operands[error]
            parts.append(SchedulePart(reference.spec, each.sample, steps, columns, reasons))
    return Schedule(parts, _facts(trajectory, numbers, steps, parts, single=single))


def _facts(
    trajectory: Trajectory, numbers: StepNumbers, steps: Sequence[int], parts: Sequence[SchedulePart], *, single: bool
) -> dict[str, Any]:
    not_theorem: dict[str, dict[str, list[str]]] = {}
    for each in parts:
        not_theorem.setdefault(each.ref, {})[each.sample] = list(each.not_theorem)
    return {
        "rows": len(steps),
        "first_step": numbers.first,
        "step": steps[-1],
        "one_function": single,
        "why": numbers.why,
        "skipped": len([step for step in numbers.skipped if step <= steps[-1]]),
        "not_theorem": not_theorem,
    }


def _places(numbers: StepNumbers, steps: Sequence[int]) -> list[int]:
    """Of rows: those with a rate above 0 before the first step that lacks a number, some of them where there are many;
    and the last row of an update where that lacks one."""
    at = np.array(steps) - numbers.first
    known = np.flatnonzero((at < numbers.known) & (at < len(numbers.rates)))
    known = known[numbers.rates[at[known]] > 0]
    places = [int(known[k - 1]) for k in horizons(len(known))] if len(known) else []
    if numbers.known < len(numbers.rates) or not places:
        last = int(np.flatnonzero(at < max(len(numbers.rates), 1))[-1])
        places = sorted({*places, last})
    return places


def _terms(numbers: StepNumbers, steps: Sequence[int]) -> dict[str, Column]:
    """What the bound is made of beside D, at each of the steps."""
    found: dict[str, list[float | None]] = {"rate_sum": [], "gradient_term": [], "last_term": []}
    reasons = []
    for step in steps:
        count = step - numbers.first + 1
        reason = numbers.why if count > numbers.known else ""
        terms = None if reason else last_iterate(numbers.rates[:count], numbers.squares[:count])
        if terms is not None and not terms.steps:
            terms, reason = None, "no step has a rate above 0"
        for name, value in zip(found, (None,) * 3 if terms is None else terms[1:], strict=True):
            found[name].append(value)
        reasons.append(reason)
    return {
        "first_step": constant(numbers.first, len(steps)),
        **{name: column(values, reasons).finite() for name, values in found.items()},
    }


def _measured(
    each: Measured,
    reference: Reference,
    places: Sequence[int],
    *,
    single: bool,
    have: tuple[Mapping[str, Any], Mapping[str, Any]],
) -> dict[str, Column]:
    """D, and the gap with its resolution and error."""
    columns, count = each.towards[reference.spec], len(places)

    def at(name: str) -> Column:
        return Column(columns[name].values[list(places)], columns[name].reasons[list(places)])

    distance = columns["ref_dist"]
    lacks = "" if "ref_sq" in have[0] else "--metrics leaves out the distances to references: secant gives them"
    found = {"distance": column([distance.values[0] if not lacks else None] * count, lacks or distance.reasons[0])}
    if each.sources[0].epsilon is not None and "loss_ref" not in have[1]:
        nothing = column([None] * count, "--metrics leaves out the losses at references: convexity gives them")
        return {**found, **{name: nothing for name in ("loss_gap", "loss_gap_resolution", "loss_gap_error")}}
    gap, resolution = at("excess"), at("difference_resolution")
    found |= {"loss_gap": gap, "loss_gap_resolution": resolution}
    if each.sample == "probe":
        error, batches = at(f"excess{SE}"), len(each.sources)
        found["loss_gap_se"] = error
        wide = ERRORS * widening(batches - 1) if batches > 1 else 1.0
        return {**found, "loss_gap_error": lift(lambda a, b: np.maximum(a, wide * b), resolution, error)}
    if each.sample == "own" and not single:
        resolution = resolution.except_where(np.ones(count, bool), ONE_BATCH)
    return {**found, "loss_gap_error": resolution}


def _another_f(single: bool, sample: str) -> str:
    """Why the losses of a sample are not those of the f that the steps descend."""
    return "every gradient is of one batch, and this gap of another sample" if single and sample != "own" else ""


def _not_independent(single: bool, reference: Reference, first: int) -> str:
    """Why an inequality of means does not hold towards a reference: steps of minibatches made it."""
    depends = reference.dependence
    if single or (depends.free is not None and depends.free <= first):
        return ""
    if depends.known:
        return "x* depends on the batches of the steps: of means over trainings the inequality holds for others alone"
    return f"x* may depend on the batches of the steps: {depends.found}"
