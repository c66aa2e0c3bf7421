"""index.html: the table of the index for people. One file, without a server, a network or a chart library.

The same rows, version and files give the same bytes, so that a batch that found nothing new leaves the page alone.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from trajcheck.commands.batch import page_cells as cells
from trajcheck.commands.batch.index import GONE, INDEX, replace_file
from trajcheck.commands.batch.page_cells import Cell, IndexRow, text, visible
from trajcheck.commands.batch.page_words import READING
from trajcheck.commands.batch.run_state import DONE, FAILED, INCOMPLETE
from trajcheck.reports.page.markup import script_json
from trajcheck.version import __version__

PAGE = "index.html"

#: The most references that have columns: those of most runs. The others stand in index.csv.
MOST = 6

STATUSES = (DONE, INCOMPLETE, FAILED, GONE)


class IndexColumn(NamedTuple):
    """`reference` is the place of the reference that it is towards; numbers are flush right and sorted as numbers."""

    name: str
    cell: Callable[[IndexRow], Cell]
    numbers: bool = True
    reference: int | None = None


def write_page(out: Path, rows: Sequence[IndexRow], across: Sequence[tuple[str, str]] = ()) -> None:
    """Write index.html, if it is not the same already. Raises OutputError."""
    replace_file(out / PAGE, document(out, rows, across).encode())


def document(out: Path, rows: Sequence[IndexRow], across: Sequence[tuple[str, str]] = ()) -> str:
    """The whole page on some rows of the index in `out`; `across` are pages of several runs, in words and by their
    place below `out`."""
    references, others = _references(rows)
    common = _common([str(row["run"]) for row in rows])
    columns = list(_columns(out, common, rows, references))
    table = [[column.cell(row) for column in columns] for row in rows]
    keys = {place: [cells[place].key for cells in table] for place, column in enumerate(columns) if column.numbers}
    switched = [name for _, name in _switched(rows, references)]
    style = _resource("page.css") + "".join(f"\n.without-{name} .{name} {{ display: none; }}" for name in switched)
    script = _resource("theme.js", "trajcheck.reports.page") + "\n" + _resource("page.js")
    title = f"{len(rows):,} run{'' if len(rows) == 1 else 's'}"
    below = f" below {text(visible(common))}" if common else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src '{_digest(script)}'; \
style-src '{_digest(style)}'; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="trajcheck {text(__version__)}">
<title>{title} - trajcheck</title>
<style>{style}</style>
</head>
<body>
<a class="skip" href="#runs">To the table</a>
<header>
<h1>{title}{below}</h1>
<p>{_summary(rows)}{_across(across)}</p>
<nav aria-label="On this page"><a href="#reading">How to read the columns</a> <a href="./{INDEX}">{INDEX}</a></nav>
<button type="button" id="theme" hidden>Dark</button>
</header>
<main>
{_controls(rows, references)}
<p><span id="count" role="status">{len(rows):,} of {len(rows):,} runs.</span> \
<button type="button" id="all" hidden>Show all</button></p>
<div class="scroll" id="runs" tabindex="0" role="region" aria-label="Table of the runs"><table id="table">
{_head(columns, references)}
<tbody>
{"".join(map(_line(columns), table))}</tbody></table></div>
{_reading(columns, others)}
</main>
<footer><p>Written by trajcheck {text(__version__)}.{_newest(rows)} All values, unrounded, are in \
<a href="./{INDEX}">{INDEX}</a>.</p></footer>
<script type="application/json" id="keys">{script_json(keys)}</script>
<script>{script}</script>
</body>
</html>
"""


def _references(rows: Sequence[IndexRow]) -> tuple[list[str], list[str]]:
    """The references of most rows, in order of appearance, and those for which there is no room."""
    found = Counter(name[: -len(": cosine")] for row in rows for name in row if name.endswith(": cosine"))
    most = {ref for ref, _ in found.most_common(MOST)}
    return [ref for ref in found if ref in most], [ref for ref in found if ref not in most]


def _common(paths: Sequence[str]) -> str:
    """The folder below which all runs lie; "" where that is the root, or there is none."""
    try:
        common = os.path.commonpath([os.path.dirname(path) for path in paths])
    except ValueError:
        return ""
    return "" if common == os.path.dirname(common) else common


def _columns(out: Path, common: str, rows: Sequence[IndexRow], references: Sequence[str]) -> Iterator[IndexColumn]:
    yield IndexColumn("run", partial(cells.run_cell, out=out, common=common), False)
    yield IndexColumn("status", cells.status_cell, False)
    yield IndexColumn("warnings", partial(cells.count_cell, name="warnings"))
    if _any_message(rows):
        yield IndexColumn("message", cells.message_cell, False)
    for place, ref in enumerate(references):
        yield IndexColumn("cosine", partial(cells.cosine_cell, ref=ref), True, place)
        yield IndexColumn("ratio", partial(cells.ratio_cell, ref=ref), True, place)
        for name, share in (("convex", "convex"), ("not", "not_convex"), ("?", "undetermined")):
            yield IndexColumn(name, partial(cells.share_cell, ref=ref, name=share), True, place)
    yield IndexColumn("steps", cells.steps_cell)
    yield IndexColumn("parameters", partial(cells.count_cell, name="parameters"))
    yield IndexColumn("analyzed", cells.analyzed_cell, False)
    yield IndexColumn("duration", cells.duration_cell)
    yield IndexColumn("left out", partial(cells.count_cell, name="left_out"))


def _any_message(rows: Sequence[IndexRow]) -> bool:
    return any(cells.words_of(row.get("message")) for row in rows)


# -- the table --------------------------------------------------------------------------------------------------------


def _head(columns: Sequence[IndexColumn], references: Sequence[str]) -> str:
    """The headings, which are buttons; above them, where there are references, these over the columns of each."""
    above = []
    for place, group in groupby(columns, key=lambda column: column.reference):
        if place is None:
            above += [f'<td class="{_kind(column)}"></td>' for column in group]
        else:
            ref = references[place]
            above.append(
                f'<th scope="colgroup" colspan="{len(list(group))}" class="r{place} group" '
                f'title="{text(visible(ref))}">towards {text(_short(ref))}</th>'
            )
    names = "".join(_heading(place, column, references) for place, column in enumerate(columns))
    first = f"<tr>{''.join(above)}</tr>" if references else ""
    return f"<thead>{first}<tr>{names}</tr></thead>"


def _heading(place: int, column: IndexColumn, references: Sequence[str]) -> str:
    spoken = (
        column.name if column.reference is None else f"{column.name}, towards {visible(references[column.reference])}"
    )
    return (
        f'<th scope="col" class="{_kind(column)}"><button type="button" data-place="{place}" '
        f'aria-label="{text(spoken)}">{text(column.name)}</button></th>'
    )


def _line(columns: Sequence[IndexColumn]) -> Callable[[Sequence[Cell]], str]:
    kinds = [f' class="{kind}"' if (kind := _kind(column)) else "" for column in columns]

    def line(row: Sequence[Cell]) -> str:
        rest = "".join(
            f'<td{kind} title="{text(cell.title)}">{cell.inner}</td>' if cell.title else f"<td{kind}>{cell.inner}</td>"
            for kind, cell in zip(kinds[1:], row[1:], strict=True)
        )
        return f'<tr><th scope="row">{row[0].inner}</th>{rest}</tr>\n'

    return line


def _kind(column: IndexColumn) -> str:
    towards = "" if column.reference is None else f"r{column.reference}"
    return " ".join(word for word in ("n" if column.numbers else column.name.replace(" ", "-"), towards) if word)


def _short(ref: str) -> str:
    """The end of a long name says more than its beginning."""
    words = visible(ref)
    return words if len(words) <= 28 else f"…{words[-27:]}"


# -- what stands around it --------------------------------------------------------------------------------------------


def _counts(rows: Sequence[IndexRow]) -> dict[str, int]:
    """Runs by status, the known ones first."""
    found = Counter(visible(row.get("status") or "unknown") for row in rows)
    return {status: found[status] for status in (*STATUSES, *sorted(set(found) - set(STATUSES))) if found[status]}


def _summary(rows: Sequence[IndexRow]) -> str:
    spent = sum(cells.numeric(row.get("duration")) or 0.0 for row in rows)
    counts = ", ".join(f"{count:,} {text(status)}" for status, count in _counts(rows).items())
    return f"{counts or 'none'}. Durations add up to {cells.duration(spent)}."


def _across(pages: Sequence[tuple[str, str]]) -> str:
    links = ", ".join(f'<a href="./{text(place)}">{text(words)}</a>' for words, place in pages)
    return f" Drawn together: {links}." if links else ""


def _controls(rows: Sequence[IndexRow], references: Sequence[str]) -> str:
    """The fields of the filter; hidden where no script runs."""
    counts = _counts(rows)
    statuses = "".join(
        f'<label><input type="checkbox" name="status" value="{text(status)}" checked>{text(status)} ({count:,})</label>'
        for status, count in counts.items()
    )
    switches = "".join(
        f'<label><input type="checkbox" name="column" value="{name}" checked>{text(label)}</label>'
        for label, name in _switched(rows, references)
    )
    return (
        '<div id="filter" role="search" aria-label="Runs" hidden>'
        '<div class="field"><label for="words">Words in run, message or any cell</label>'
        '<input type="search" id="words" autocomplete="off" spellcheck="false"></div>'
        f"<fieldset{'' if len(counts) > 1 else ' hidden'}><legend>Status</legend>{statuses}</fieldset>"
        f"<fieldset{'' if switches else ' hidden'}><legend>Columns</legend>{switches}</fieldset></div>"
    )


def _switched(rows: Sequence[IndexRow], references: Sequence[str]) -> list[tuple[str, str]]:
    """The columns that can be hidden: what they are called, and the class of their cells."""
    message = [("message", "message")] if _any_message(rows) else []
    return message + [(f"towards {_short(ref)}", f"r{place}") for place, ref in enumerate(references)]


def _reading(columns: Sequence[IndexColumn], others: Sequence[str]) -> str:
    names = list(dict.fromkeys(column.name for column in columns))
    said = "".join(f"<dt>{text(name)}</dt><dd>{READING[name]}</dd>" for name in names)
    more = (
        f"<p>In {INDEX} alone, as fewer runs have them, are the values towards "
        f"{', '.join(text(visible(ref)) for ref in others)}.</p>"
        if others
        else ""
    )
    return (
        '<section id="reading" aria-labelledby="reading-h"><h2 id="reading-h">How to read the columns</h2>'
        f"{more}<dl>{said}</dl></section>"
    )


def _newest(rows: Sequence[IndexRow]) -> str:
    times = [cells.words_of(row.get("analyzed")) for row in rows]
    newest = max(times, default="")
    return f" Newest analysis: {text(cells.moment(newest))} UTC." if newest else ""


def _resource(name: str, package: str = "trajcheck.commands.batch") -> str:
    return files(package).joinpath(name).read_text(encoding="utf-8").strip()


def _digest(source: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}"
