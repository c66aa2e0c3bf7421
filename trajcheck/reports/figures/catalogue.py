"""All figures, found by their declarations: a module of these folders that holds a PICTURE is a figure."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pkgutil import iter_modules

from trajcheck.errors import UsageError
from trajcheck.reports.figures import of_fits, of_groups, of_one_run, of_pairs, of_several_runs
from trajcheck.reports.figures.picture import ALL, MAIN, Picture

KINDS = ("analysis", "comparison", "flow", "together", "grouped")


def _declared() -> list[Picture]:
    return [
        import_module(f"{folder.__name__}.{module.name}").PICTURE
        for folder in (of_one_run, of_fits, of_pairs, of_several_runs, of_groups)
        for module in iter_modules(folder.__path__)
    ]


def _in_order(pictures: list[Picture]) -> dict[str, tuple[Picture, ...]]:
    in_order = sorted(pictures, key=lambda each: each.place)
    return {kind: tuple(each for each in in_order if kind in each.kinds) for kind in KINDS}


#: By the kind of report, in the order in which they are shown.
PICTURES = _in_order(_declared())


def chosen(kind: str, figures: Sequence[str]) -> tuple[Picture, ...]:
    """Those of a kind of report that `figures` name, in the order in which they are shown: names, MAIN, which stands
    for all that are not on demand, or ALL. Raises UsageError."""
    every = PICTURES[kind]
    names = [each.name for each in every]
    if unknown := [each for each in figures if each not in (MAIN, ALL, *names)] or not figures:
        found = ", ".join(f"{each!r:.60}" for each in unknown) if isinstance(unknown, list) else "none"
        raise UsageError(f"--figures: {found}; expected {MAIN}, {ALL}, or some of {', '.join(names)}.")
    if ALL in figures:
        return every
    return tuple(each for each in every if each.name in figures or (MAIN in figures and not each.on_demand))
