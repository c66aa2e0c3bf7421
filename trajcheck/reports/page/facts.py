"""The page's lists of facts: headline table, what was left out and why, warnings, where the numbers come from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from trajcheck.reports.page.markup import items, section, table, text
from trajcheck.reports.quantities.headline import headline_tables, legend
from trajcheck.reports.quantities.ledger import HEADS, LEGEND, Ledger
from trajcheck.reports.quantities.schedule import HEADS as OF_BOUND
from trajcheck.reports.quantities.schedule import LEGEND as BOUND_LEGEND
from trajcheck.reports.quantities.schedule import cells, last_rows, sentences
from trajcheck.reports.reading.report import SavedReport
from trajcheck.reports.terminal.layout import number

#: The most rows of the table of empty cells, and the longest list of steps in it.
MOST, LONGEST = 200, 48

_COMPARISON = ("run b", "pairs", "last steps", "distance", "relative", "cosine", "largest barrier")


def headline_table(report: SavedReport) -> str:
    """The values to read first, as on the terminal; for a flow there is none beside the sentences."""
    head = report.summary["headline"]
    if report.kind == "analysis":
        tables = "".join(
            table(f"Headline: {each.title}", each.heads, each.rows, numbers=len(each.heads) - each.words)
            for each in headline_tables(head)
        )
        return tables + items(f"{term}: {words}" for term, words in legend(report.summary))
    if report.kind == "comparison":
        return table("Headline of the comparison", _COMPARISON, _comparison_rows(head), numbers=6)
    return ""


def _comparison_rows(head: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for run, values in head.items():
        yield (
            run,
            str(values["pairs"]),
            f"{values['step_a']}, {values['step_b']}",
            *(number(values[name]) for name in ("dist", "relative_dist", "displacement_cos")),
            number(values.get("max_barrier")),
        )


def assumptions_section(report: SavedReport) -> str:
    """The ledger: a table and a sentence a row, towards each point on each sample."""
    frame = report.tables.get("assumptions")
    if frame is None or not len(frame):
        return ""
    ledger = Ledger(frame, report.undefined)
    found = [
        f"<h3>{text(part.title[:1].upper() + part.title[1:])}</h3>"
        + table(f"Assumptions {part.title}", HEADS, part.rows(), numbers=len(HEADS) - 1)
        + items(part.said)
        for part in ledger.parts
    ]
    words = items(f"{term}: {said}" for term, said in {**LEGEND, **ledger.formulas}.items())
    return section("assumptions", "Assumptions along the path", *found, words)


def schedule_section(report: SavedReport) -> str:
    """The last-iterate bound towards each reference, a row and a sentence each."""
    frame = report.tables.get("schedule")
    if frame is None or not len(frame):
        return ""
    return section(
        "schedule",
        "The theory of schedules",
        table("Last-iterate bound", OF_BOUND, [cells(row) for row in last_rows(frame)], numbers=len(OF_BOUND) - 1),
        items(sentences(frame, report.summary)),
        items(f"{term}: {words}" for term, words in BOUND_LEGEND.items()),
    )


def warnings_section(report: SavedReport) -> str:
    summary = report.summary
    incomplete = items(summary.get("incomplete", []))
    return section(
        "warnings",
        "Warnings",
        items(summary.get("warnings", [])),
        f"<h3>Asked for and not computed</h3>{incomplete}" if incomplete else "",
    )


def left_out_section(
    report: SavedReport, pictures: Mapping[str, str], series: list[str], on_demand: Sequence[str] = ()
) -> str:
    """Figures without values, or `on_demand`, columns that found no room in the chart, steps, and empty cells by their
    reasons."""
    steps = report.summary["left_out"].get("steps", {})
    if report.kind == "comparison":
        steps = {f"{run}, step {step}": why for run, each in steps.items() for step, why in each.items()}
    parts = []
    found = [f"{title}: {reason}" for title, reason in pictures.items()]
    if on_demand:
        found.append(f"Drawn on demand: {', '.join(on_demand)}: `trajcheck report` on this folder with --figures all")
    if found:
        parts.append("<h3>Figures</h3>" + items(found))
    if series:
        parts.append("<h3>Columns without room in the interactive chart</h3>" + items([", ".join(series)]))
    if steps:
        parts.append("<h3>Steps</h3>" + items(f"{step}: {reason}" for step, reason in list(steps.items())[:MOST]))
    rows = list(_reasons(report))
    if rows:
        more = f" The first {MOST} of {len(rows)} are shown." if len(rows) > MOST else ""
        parts.append(
            f"<h3>Empty cells</h3><p>undefined.csv accounts for every one, those of standard errors too.{more}</p>"
            + table("Empty cells by reason", ("reason", "columns", "reference", "sample", "steps"), rows[:MOST])
        )
    return section("left-out", "What was left out, and why", *parts)


def _reasons(report: SavedReport) -> Iterator[tuple[str, ...]]:
    """undefined.csv with the columns, references and samples of one reason in one row, in order of appearance; without
    the columns of standard errors."""
    undefined = report.undefined[~report.undefined["column"].str.endswith("_se")]
    grouped = undefined.groupby(["table", "reason", "steps"], sort=False)
    for key, rows in grouped:
        name, reason, steps = map(str, key)
        words = [", ".join(word for word in dict.fromkeys(rows[of]) if word) for of in ("ref", "sample")]
        short = steps if len(steps) <= LONGEST else steps[: LONGEST - 1] + "…"
        yield reason, f"{name}.csv: {', '.join(dict.fromkeys(rows['column']))}", *words, short


def provenance_section(report: SavedReport) -> str:
    summary = report.summary
    facts: dict[str, Any] = {}
    for run in summary.get("runs", [summary["run"]]):
        name = f"run {run['path']}"
        facts[name] = ", ".join(f"{key} {_plain(value)}" for key, value in run.items() if key != "path")
    options = {key: value for key, value in summary["options"].items() if value not in (None, False, [], "")}
    for name in ("replay", "flow", "permutations", "scale_invariant", "line"):
        if summary.get(name):
            facts[name] = _plain(summary[name])
    facts |= {
        "options": ", ".join(f"{key} = {_plain(value)}" for key, value in options.items()),
        "definitions": f"version {summary['definitions']}",
        "made": summary["created"],
        "versions": ", ".join(f"{name} {number}" for name, number in summary["versions"].items()),
        "drawn with": ", ".join(f"{name} {version(name)}" for name in ("matplotlib", "plotly")),
    }
    inner = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in facts.items())
    return section("provenance", "Where the numbers come from", f"<dl>{inner}</dl>")


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
