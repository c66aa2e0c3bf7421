"""Which columns index.html has: those of the run, its own fields, the quantities by groups, facts of the analysis."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from trajcheck.commands.batch import page_cells as cells
from trajcheck.commands.batch.index import quantity_names, user_names
from trajcheck.commands.batch.page_cells import Cell, IndexRow
from trajcheck.readable import plain
from trajcheck.reports.quantities.catalogue import GROUPS, WORD, quantity_of, value_of_error

#: Groups of columns that are not in a group of the quantities.
USER, ABOUT = "user", "about"
NAMES = {USER: "the training's own fields", **GROUPS, ABOUT: "about the analysis"}

#: The groups that are hidden until somebody asks for them.
CLOSED = frozenset(NAMES) - {USER, "headline"}

#: The most fields of the trainings that have columns; the others stand in index.csv.
MOST_FIELDS = 12


class IndexColumn(NamedTuple):
    """`key` is what its words are found by. Numbers are flush right and sorted as numbers. Columns of a group can be
    hidden, `message` by itself."""

    name: str
    key: str
    cell: Callable[[IndexRow], Cell]
    numbers: bool = True
    group: str = ""


def index_columns(
    out: Path, common: str, runs: Sequence[Mapping[str, Any]], rows: Sequence[IndexRow]
) -> Iterator[IndexColumn]:
    yield IndexColumn("run", "run", partial(cells.run_cell, out=out, common=common), False)
    yield IndexColumn("status", "status", cells.status_cell, False)
    yield IndexColumn("ref", "ref", partial(cells.word_cell, name="ref"), False)
    yield IndexColumn("sample", "sample", partial(cells.word_cell, name="sample"), False)
    if any(cells.words_of(run.get("message")) for run in runs):
        yield IndexColumn("message", "message", cells.message_cell, False)
    for name in user_names(rows)[:MOST_FIELDS]:
        numbers = all(cells.numeric(row.get(name)) is not None or row.get(name) is None for row in rows)
        shown = plain(name.removeprefix("user."))
        yield IndexColumn(shown, USER, partial(cells.user_cell, name=name), numbers, USER)
    for name in quantity_names(rows):
        quantity = quantity_of(name)
        if value_of_error(name) is None and quantity.kind != WORD:
            yield IndexColumn(
                plain(quantity.heading),
                name,
                partial(cells.quantity_cell, quantity=quantity),
                True,
                quantity.group,
            )
    yield IndexColumn("warnings", "warnings", partial(cells.count_cell, name="warnings"), True, ABOUT)
    yield IndexColumn("steps", "steps", cells.steps_cell, True, ABOUT)
    yield IndexColumn("parameters", "parameters", partial(cells.count_cell, name="parameters"), True, ABOUT)
    yield IndexColumn("analyzed", "analyzed", cells.analyzed_cell, False, ABOUT)
    yield IndexColumn("duration", "duration", cells.duration_cell, True, ABOUT)
    yield IndexColumn("left out", "left out", partial(cells.count_cell, name="left_out"), True, ABOUT)
