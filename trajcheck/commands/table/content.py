"""The table, whatever it is written as: headings, a cell for each row and column, and what is to be said of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from trajcheck.commands.table.columns import Found, RunRow, TableColumn
from trajcheck.reports.quantities.catalogue import ERRORS

MIXED = "mixed"

#: The most reasons, runs of a reason, that are listed below a table.
MOST_REASONS, MOST_RUNS = 30, 4


@dataclass(frozen=True)
class Entry:
    """A cell. `words` stand as they are; a number has its standard `error`, None where there is none, and is over
    `count` of the row's runs; None and no words is a dash, `blank` a cell of a column that makes no sense there.
    Where a quantity and its errors have columns of their own, `beside` is the error of the value (the largest), or the
    value of the error: both have the digits that the error warrants."""

    value: float | None = None
    error: float | None = None
    beside: float | None = None
    words: str = ""
    count: int = 1
    blank: bool = False


@dataclass(frozen=True)
class Line:
    """`all_labels` say which runs, reference and sample a row is of, `labels` those that are not the same in all rows;
    `runs` how many runs."""

    all_labels: tuple[str, ...]
    labels: tuple[str, ...]
    runs: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Table:
    """`all_names` and `label_names` head the labels. `grouped`: errors are over runs, whose number is a column."""

    all_names: tuple[str, ...]
    label_names: tuple[str, ...]
    columns: tuple[TableColumn, ...]
    lines: tuple[Line, ...]
    grouped: bool
    notes: tuple[str, ...] = field(default=())


def make_table(
    rows: Sequence[RunRow], columns: Sequence[TableColumn], group_by: Sequence[str], refs: Sequence[str]
) -> Table:
    """A row a run, reference and sample or, with `group_by`, one for the runs that agree in these fields: the means
    over them, each with its standard error s / sqrt(n), s having the divisor n - 1, for n of 2 or more. Those of one
    run, or group, stand together, its references in the order of `refs`."""
    groups: dict[tuple[tuple[str, ...], str, str], list[RunRow]] = {}
    for each in rows:
        who = tuple(str(each.fields.get(name, "")) for name in group_by) if group_by else (each.label,)
        groups.setdefault((who, each.row.ref, each.row.sample), []).append(each)
    everyone = list(dict.fromkeys(who for who, _, _ in groups))
    keys = sorted(groups, key=lambda key: (everyone.index(key[0]), refs.index(key[1]) if key[1] in refs else 0))
    names = (*(name.removeprefix("user.") for name in group_by or ("run",)), "reference", "sample")
    whole = {key: (*key[0], *key[1:]) for key in keys}
    several = [len({labels[place] for labels in whole.values()}) > 1 for place in range(len(names))]
    shown = [place for place in range(len(names)) if several[place] or place < len(names) - 2]

    if not group_by:
        columns = [part for column in columns for part in column.split(_kinds(column, rows))]

    def line(key: tuple[tuple[str, ...], str, str]) -> Line:
        own, labels = groups[key], whole[key]
        entries = tuple(_entry(column, own, bool(group_by)) for column in columns)
        return Line(labels, tuple(labels[place] for place in shown), len(own), entries)

    alike = [f"all rows: {names[place]} {whole[keys[0]][place]}" for place in range(len(names)) if place not in shown]
    errors = _about_errors(bool(group_by), columns, min(map(len, groups.values())))
    notes = (*alike, *errors, *_cosines(columns, rows), *_reasons(columns, rows))
    label_names = tuple(names[place] for place in shown)
    return Table(names, label_names, tuple(columns), tuple(map(line, keys)), bool(group_by), notes)


def _kinds(column: TableColumn, rows: Sequence[RunRow]) -> list[str]:
    """The kinds of errors of a column's values, in a fixed order."""
    there = {kind for each in rows for kind in column.of(each).errors}
    return [kind for kind in ERRORS.values() if kind in there]


def _entry(column: TableColumn, rows: Sequence[RunRow], grouped: bool) -> Entry:
    found = [column.of(each) for each in rows]
    scale = 100.0 if column.share else 1.0
    if column.of_error:
        error, value = found[0].errors.get(column.of_error), found[0].value
        if error is None or not isinstance(value, float):
            return Entry(blank=True)
        return Entry(error * scale, beside=value * scale)
    if column.words:
        words = {str(each.value) for each in found if each.value is not None}
        return Entry(words=words.pop() if len(words) == 1 else MIXED if words else "")
    values = [
        float(each.value) * scale for each in found if isinstance(each.value, float) and math.isfinite(each.value)
    ]
    if not values:
        return Entry(blank=not any(each.reason for each in found))
    if not grouped:
        errors = found[0].errors
        if column.errors:
            own = errors.get(column.errors)
            return Entry(values[0], None if own is None else own * scale)
        return Entry(values[0], beside=max(errors.values()) * scale if errors else None)
    error = float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else None
    return Entry(float(np.mean(values)), error, count=len(values))


def _about_errors(grouped: bool, columns: Sequence[TableColumn], fewest: int) -> Iterator[str]:
    if grouped:
        yield "mean and one standard error over the runs of a row, s / sqrt(n); a row of one run has no error"
        if 1 < fewest < 5:
            yield f"an error over {fewest} runs is itself uncertain by about {100 / (2 * (fewest - 1)) ** 0.5:.0f}%"
        return
    for kind, words in _WORDS.items():
        names = [column.name for column in columns if column.errors == kind]
        apart = any(column.of_error == kind for column in columns)
        if names or apart:
            of = [f"of {', '.join(names)}"] if names else []
            of += [f"in columns ± {kind}"] if apart else []
            yield f"± {' and '.join(of)}: one standard error {words}"


#: Kinds of errors.
_WORDS = {
    "path": "along the path: of sums and ratios for other draws of the steps' batches, of means over stretches of it",
    "batch": "over the probe batches",
    "steps": "for the choice of the recorded steps; with momentum or Adam a peak that no record met is not in it",
}


#: What is to be known of a ratio beside its name.
_BELOW = {"convexity_ratio_skip": " (what each step gained is left out: convex functions may give less than 1)"}


def _cosines(columns: Sequence[TableColumn], rows: Sequence[RunRow]) -> Iterator[str]:
    """Which cosine and which ratio it is, towards which references."""
    for name, of in (("cosine", "cosine_of"), ("convexity_ratio", "convexity_of")):
        if not any(column.name == name for column in columns):
            continue
        kinds: dict[str, list[str]] = {}
        for each in rows:
            if isinstance(kind := each.row.values.get(of), str):
                kinds.setdefault(kind, []).append(f"{each.row.ref}, {each.row.sample}")
        for kind, places in kinds.items():
            if kind != name:
                yield f"{name} is of {kind}: {'; '.join(dict.fromkeys(places))}" + _BELOW.get(kind, "")


def _reasons(columns: Sequence[TableColumn], rows: Sequence[RunRow]) -> Iterator[str]:
    """Why cells are a dash, or over fewer runs than the others of their row."""
    found: dict[tuple[str, str, str, str], list[str]] = {}
    for column in columns:
        for each in rows if not column.of_error else ():
            cell: Found = column.of(each)
            if cell.value is None and cell.reason:
                found.setdefault((column.name, each.row.ref, each.row.sample, cell.reason), []).append(each.label)
    total = Counter((each.row.ref, each.row.sample) for each in rows)
    listed = list(found.items())
    for (name, ref, sample, why), labels in listed[:MOST_REASONS]:
        runs = ", ".join(labels[:MOST_RUNS]) + (
            f" and {len(labels) - MOST_RUNS} more" if len(labels) > MOST_RUNS else ""
        )
        of = "all runs" if len(labels) == total[ref, sample] else runs
        yield f"no {name} towards {ref}, sample {sample} ({of}): {why}"
    if len(listed) > MOST_REASONS:
        yield f"{len(listed) - MOST_REASONS} more reasons stand in the reports' undefined.csv"
