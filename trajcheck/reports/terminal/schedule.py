"""The last-iterate bound of a log, for the terminal."""

from __future__ import annotations

from trajcheck.readable import in_lines
from trajcheck.reports.making.schedule_bound import ScheduleBound
from trajcheck.reports.terminal.layout import aligned, number, warning_lines, wrapped

_HELD = {True: "held: the gap is no more than the bound", False: "broken: the gap is above the bound"}


def schedule_text(found: ScheduleBound) -> str:
    """The terms in a table, what they say, why what is missing is, and what to know of them."""
    between = f"{found.first_step} to {found.step}"
    lines = [
        *wrapped(f"log        {found.log}", 11),
        f"           {found.form}, {found.steps:,} steps, {between}; x_1 is that of step {found.first_step}, x_T of "
        f"{found.step}",
        f"steps      {_steps(found)}",
        "",
    ]
    rows = [
        ("sum of the rates, S", number(found.rate_sum, 4)),
        ("D^2 / (2 S)", number(found.distance_term, 4)),
        ("sum eta^2 |g|^2 / (2 S)", number(found.gradient_term, 4)),
        ("the last iterate's term", number(found.last_term, 4)),
        ("bound, the sum of the three", number(found.bound, 4)),
        ("f(x_T) - f(x*)", number(found.gap, 4)),
        ("best factor on the rates", number(found.rate_factor, 4)),
        ("the bound with it", number(found.best_bound, 4)),
        ("D at which that factor is 1", number(found.matched_distance, 4)),
        ("least D of a convex f", number(found.least_distance, 4)),
    ]
    lines += aligned(rows)
    lines.append("")
    verdict = f"not known whether it holds: {found.missing['held']}" if found.held is None else _HELD[found.held]
    lines += wrapped(f"bound      {verdict}", 11)
    reasons: dict[str, list[str]] = {}
    for name, why in found.missing.items():
        if name != "held":
            reasons.setdefault(why, []).append(name)
    lines += [line for why, names in reasons.items() for line in wrapped(f"missing    {', '.join(names)}: {why}", 11)]
    lines += warning_lines(f"not the theorem's: {why}" for why in found.not_theorem)
    lines += [line for note in found.notes for line in wrapped(f"note: {note}", 6)]
    return in_lines(lines)


def _steps(found: ScheduleBound) -> str:
    if found.theorem is None:
        return "not known to be those of the subgradient method"
    return "those of the subgradient method" if found.theorem else "not those of the subgradient method"
