"""All figures, found by their declarations: a module of these folders that holds a PICTURE is a figure."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from trajcheck.reports.figures import of_fits, of_groups, of_one_run, of_pairs, of_several_runs
from trajcheck.reports.figures.picture import Picture

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
