"""python -m experiments [EXPERIMENT...] [--small | --full]: see README.md."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import recipe, table
from experiments.making import Workplace

#: Where runs, reports and figures go, unless told.
OUT = recipe.HERE / "out"
SIZES = {"small": "minutes on two cores (default)", "full": "a day on a GPU at most", "smallest": "seconds, for tests"}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments", description="Papers' findings, measured again.")
    parser.add_argument("experiment", nargs="*", help="which ones; see --list")
    parser.add_argument("--list", action="store_true", help="name the experiments, and how many trainings they are")
    sizes = parser.add_mutually_exclusive_group()
    for name, words in SIZES.items():
        sizes.add_argument(f"--{name}", dest="size", action="store_const", const=name, help=words)
    parser.add_argument("--out", type=Path, default=OUT, help="folder of runs and reports (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: %(default)s)")
    parser.add_argument("--keep", action="store_true", help="put the reports' columns beside README.md, and remake it")
    given = parser.parse_args(arguments)
    known, size = recipe.names(), given.size or table.SIZE
    if given.list or not (given.experiment or given.keep):
        _list(known)
        return 0
    if unknown := [name for name in given.experiment if name not in known]:
        parser.error(f"{', '.join(unknown)}: no such experiment; there are {', '.join(known)}")
    for name in given.experiment:
        place = Workplace(given.out / size / name, recipe.load(name, size))
        made = place.make(lambda line: print(line, file=sys.stderr), given.workers)
        rows = place.folder / "table.md"
        rows.write_text(table.table({name: table.read(place.recipe, place.reports)}) + "\n")
        print(f"{name}: {len(place.recipe.trainings)} trainings, {made} runs and reports made")
        print(rows)
    if given.keep:
        places = {name: Workplace(given.out / table.SIZE / name, recipe.load(name, table.SIZE)) for name in known}
        table.keep({name: table.read(place.recipe, place.reports) for name, place in places.items()})
        table.keep_figures(
            {
                f"{name}-{each.name}": place.picture(each)
                for name, place in places.items()
                for each in place.recipe.figures
            }
        )
        table.into_readme()
        print(table.README)
    return 0


def _list(known: Sequence[str]) -> None:
    for name in known:
        sizes = {size: recipe.load(name, size) for size in recipe.SIZES}
        print(f"{name:18} {sizes['small'].title} ({sizes['small'].paper})")
        print(f"{'':18} {', '.join(f'{size}: {len(each.trainings)} trainings' for size, each in sizes.items())}")


if __name__ == "__main__":
    sys.exit(main())
