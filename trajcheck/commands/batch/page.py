"""index.html: the table of the index for people. One file, without a server, a network or a chart library.

The same rows, version and files give the same bytes, so that a batch that found nothing new leaves the page alone.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

from trajcheck.commands.batch import page_cells as cells
from trajcheck.commands.batch.index import GONE, INDEX, long_rows, replace_file, user_names
from trajcheck.commands.batch.page_cells import Cell, IndexRow, text
from trajcheck.commands.batch.page_columns import CLOSED, MOST_FIELDS, NAMES, USER, IndexColumn, index_columns
from trajcheck.commands.batch.page_words import EMPTY_CELLS, READING
from trajcheck.commands.batch.run_state import DONE, FAILED, INCOMPLETE
from trajcheck.readable import plain
from trajcheck.reports.page.markup import script_json
from trajcheck.reports.quantities.catalogue import quantity_of
from trajcheck.version import __version__

PAGE = "index.html"

STATUSES = (DONE, INCOMPLETE, FAILED, GONE)


def write_page(out: Path, runs: Sequence[Mapping[str, Any]], across: Sequence[tuple[str, str]] = ()) -> None:
    """Write index.html, if it is not the same already. Raises OutputError."""
    replace_file(out / PAGE, document(out, runs, across).encode())


def document(out: Path, runs: Sequence[Mapping[str, Any]], across: Sequence[tuple[str, str]] = ()) -> str:
    """The whole page on some runs of the index in `out`; `across` are pages of several runs, in words and by their
    place below `out`."""
    rows = long_rows(runs)
    common = _common([str(run["run"]) for run in runs])
    columns = list(index_columns(out, common, runs, rows))
    table = [[column.cell(row) for column in columns] for row in rows]
    keys = {place: [cells[place].key for cells in table] for place, column in enumerate(columns) if column.numbers}
    switched = _switched(columns)
    style = _resource("page.css") + "".join(f"\n.without-{name} .{name} {{ display: none; }}" for name in switched)
    script = _resource("theme.js", "trajcheck.reports.page") + "\n" + _resource("page.js")
    title = f"{len(runs):,} run{'' if len(runs) == 1 else 's'}"
    below = f" below {text(plain(common))}" if common else ""
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
<p>{_summary(runs)}{_across(across)}</p>
<nav aria-label="On this page"><a href="#reading">How to read the columns</a> <a href="./{INDEX}">{INDEX}</a></nav>
<button type="button" id="theme" hidden>Dark</button>
</header>
<main>
{_controls(runs, rows, switched)}
<p><span id="count" role="status">{len(rows):,} of {len(rows):,} rows.</span> \
<button type="button" id="all" hidden>Show all</button></p>
<div class="scroll" id="runs" tabindex="0" role="region" aria-label="Table of the rows"><table id="table">
{_head(columns)}
<tbody>
{"".join(map(_line(columns), table))}</tbody></table></div>
{_reading(columns, rows)}
</main>
<footer><p>Written by trajcheck {text(__version__)}.{_newest(runs)} All values, unrounded, are in \
<a href="./{INDEX}">{INDEX}</a>.</p></footer>
<script type="application/json" id="keys">{script_json(keys)}</script>
<script>{script}</script>
</body>
</html>
"""


def _common(paths: Sequence[str]) -> str:
    """The folder below which all runs lie; "" where that is the root, or there is none."""
    try:
        common = os.path.commonpath([os.path.dirname(path) for path in paths])
    except ValueError:
        return ""
    return "" if common == os.path.dirname(common) else common


# -- the table --------------------------------------------------------------------------------------------------------


def _head(columns: Sequence[IndexColumn]) -> str:
    """The headings, which are buttons; above them the groups of columns."""
    above = []
    for group, found in groupby(columns, key=lambda column: column.group):
        own = list(found)
        if not group:
            above += [f'<td class="{_kind(column)}"></td>' for column in own]
        else:
            above.append(f'<th scope="colgroup" colspan="{len(own)}" class="{group} group">{text(NAMES[group])}</th>')
    names = "".join(_heading(place, column) for place, column in enumerate(columns))
    return f"<thead><tr>{''.join(above)}</tr><tr>{names}</tr></thead>"


def _heading(place: int, column: IndexColumn) -> str:
    return (
        f'<th scope="col" class="{_kind(column)}"><button type="button" data-place="{place}" '
        f'aria-label="{text(column.name)}">{text(column.name)}</button></th>'
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
    own = "n" if column.numbers else "" if column.group == USER else column.name.replace(" ", "-")
    return " ".join(word for word in (own, column.group) if word)


# -- what stands around it --------------------------------------------------------------------------------------------


def _counts(rows: Sequence[IndexRow]) -> dict[str, int]:
    """Runs by status, the known ones first."""
    found = Counter(plain(row.get("status") or "unknown") for row in rows)
    return {status: found[status] for status in (*STATUSES, *sorted(set(found) - set(STATUSES))) if found[status]}


def _summary(rows: Sequence[IndexRow]) -> str:
    spent = sum(cells.numeric(row.get("duration")) or 0.0 for row in rows)
    counts = ", ".join(f"{count:,} {text(status)}" for status, count in _counts(rows).items())
    return f"{counts or 'none'}. Durations add up to {cells.duration(spent)}."


def _across(pages: Sequence[tuple[str, str]]) -> str:
    links = ", ".join(f'<a href="./{text(place)}">{text(words)}</a>' for words, place in pages)
    return f" Drawn together: {links}." if links else ""


def _controls(runs: Sequence[IndexRow], rows: Sequence[IndexRow], switched: Mapping[str, str]) -> str:
    """The fields of the filter; hidden where no script runs."""
    counts = _counts(runs)
    statuses = "".join(
        f'<label><input type="checkbox" name="status" value="{text(status)}" checked>{text(status)} ({count:,})</label>'
        for status, count in counts.items()
    )
    switches = "".join(
        f'<label><input type="checkbox" name="column" value="{name}"{"" if name in CLOSED else " checked"}>'
        f"{text(label)}</label>"
        for name, label in switched.items()
    )
    return (
        '<div id="filter" role="search" aria-label="Rows" hidden>'
        '<div class="field"><label for="words">Words in run, message or any cell</label>'
        '<input type="search" id="words" autocomplete="off" spellcheck="false"></div>'
        f"{_choice('ref', 'Reference', rows)}{_choice('sample', 'Sample', rows)}"
        f"<fieldset{'' if len(counts) > 1 else ' hidden'}><legend>Status</legend>{statuses}</fieldset>"
        f"<fieldset><legend>Columns</legend>{switches}</fieldset></div>"
    )


def _choice(name: str, label: str, rows: Sequence[IndexRow]) -> str:
    """A field that chooses one of the words of a column; none where there is one alone. Rows without a word, those of
    runs that failed, are never chosen away."""
    found = Counter(cells.short(plain(row[name])) for row in rows if row[name])
    if len(found) < 2:
        return ""
    options = "".join(
        f'<option value="{text(word)}">{text(word)} ({count:,})</option>' for word, count in found.items()
    )
    return (
        f'<div class="field"><label for="{name}">{label}</label>'
        f'<select id="{name}" autocomplete="off"><option value="">all</option>{options}</select></div>'
    )


def _switched(columns: Sequence[IndexColumn]) -> dict[str, str]:
    """The columns that can be hidden: the class of their cells, and what they are called."""
    there = {column.group or column.name for column in columns}
    return {name: label for name, label in {"message": "message", **NAMES}.items() if name in there}


def _reading(columns: Sequence[IndexColumn], rows: Sequence[IndexRow]) -> str:
    said = []
    for column in columns:
        words = READING.get(column.key) or text(quantity_of(column.key).words)
        if words and column.key != USER:
            said.append(f"<dt>{text(column.name)}</dt><dd>{words}</dd>")
    fields = user_names(rows)[MOST_FIELDS:]
    more = f"<p>In {INDEX} alone are {', '.join(text(plain(name)) for name in fields)}.</p>" if fields else ""
    return (
        '<section id="reading" aria-labelledby="reading-h"><h2 id="reading-h">How to read the columns</h2>'
        f"<p>{EMPTY_CELLS}</p>{more}<dl>{''.join(said)}</dl></section>"
    )


def _newest(rows: Sequence[IndexRow]) -> str:
    times = [cells.words_of(row.get("analyzed")) for row in rows]
    newest = max(times, default="")
    return f" Newest analysis: {text(cells.moment(newest))} UTC." if newest else ""


def _resource(name: str, package: str = "trajcheck.commands.batch") -> str:
    return files(package).joinpath(name).read_text(encoding="utf-8").strip()


def _digest(source: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}"
