"""An inspection as some ten aligned lines: what this is, what can be measured, and what the rest would need."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from trajcheck.readable import in_lines, size_text
from trajcheck.reports.terminal.layout import WIDTH, warning_lines, wrapped

if TYPE_CHECKING:
    from trajcheck.reports.making.inspection import Inspection

_LABEL = 11


def inspection_text(found: Inspection) -> str:
    """Lines of at most 80 characters; what is wrong with steps, and what was understood in some way, below."""
    rows = [
        ("run", str(found.path)),
        ("format", found.format),
        ("steps", _steps(found)),
        ("size", f"{size_text(found.bytes)} in {found.files:,} files"),
        ("trained", _trained(found)),
        ("optimizer", _optimizer(found)),
        ("records", _records(found)),
        ("measured", "; ".join(_measured(found))),
        ("needs", "; ".join(_needs(found))),
    ]
    lines = [
        line for label, words in rows for line in wrapped(f"{label:<{_LABEL}}{words or 'nothing more'}", _LABEL, WIDTH)
    ]
    left_out = [f"step {step} is left out: {reason}" for step, reason in found.left_out.items()]
    more = [f"{len(left_out) - 5} more steps are left out"] if len(left_out) > 5 else []
    return in_lines([*lines, *warning_lines([*left_out[:5], *more, *found.notes])])


def _steps(found: Inspection) -> str:
    steps = found.steps
    gaps = {after - before for before, after in pairwise(steps)}
    spacing = f", every {gaps.pop()}" if len(gaps) == 1 else f", {min(gaps)} to {max(gaps)} apart" if gaps else ""
    first = "" if steps[0] == 0 else "; x_0 is not there"
    return f"{len(steps)} iterates, {steps[0]} to {steps[-1]}{spacing}{first}"


def _trained(found: Inspection) -> str:
    others = [
        f"{count} {what}"
        for count, what in ((found.frozen, "frozen"), (found.tied, "tied"), (found.buffers, "buffers"))
        if count
    ]
    beside = f"; beside them {', '.join(others)}" if others else ""
    return f"{found.parameters:,} parameters in {found.tensors} tensors, {', '.join(found.dtypes)}{beside}"


def _optimizer(found: Inspection) -> str:
    state = f"; its state: {', '.join(found.state)}" if found.state else ""
    return f"{found.optimizer or 'unknown'}{state}"


def _records(found: Inspection) -> str:
    every = len(found.steps)
    counts = [
        (found.losses, "loss"),
        (found.rates, "rates"),
        (found.gradients, "gradient"),
        (found.batches, "batch"),
    ]
    held = [what if count == every else f"{what} at {count}" for count, what in counts if count]
    lacking = [what for count, what in counts if not count]
    words = [", ".join(held)] if held else []
    words += [f"no {', no '.join(lacking)}"] if lacking else []
    words += [f"{found.probes} probe batches"] if found.probes else []
    words += [f"a log of {found.logged:,} steps"] if found.logged else []
    words += ["the loss program"] if found.program else []
    return "; ".join(words)


def _measured(found: Inspection) -> Iterator[str]:
    yield "norms, distances and path lengths towards any reference"
    if found.gradients:
        yield "secant quantities (rsi, eb, cos) and smoothness along the path"
    if found.times:
        yield "time (tau), so flow and compare --align time"
    if found.program:
        yield "losses, convexity and curvature by --objective run"


def _needs(found: Inspection) -> Iterator[str]:
    batches = "" if found.batches or found.probes else " that has batches (--sample probe, --sample full)"
    if not found.program:
        what = "losses, convexity, curvature" if found.gradients else "losses, gradients, convexity, curvature"
        yield f"{what}: --objective FILE.py:NAME{batches}"
    if not found.times:
        yield "tau: the rate of every step, in the records or in a log (--log)"
    if not found.update_pairs:
        yield "one update by itself: records of consecutive steps"
