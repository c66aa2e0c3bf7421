"""What analyze, compare and flow print of a finished report: a table for people, or its headline for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trajcheck.errors import UsageError
from trajcheck.readable import plain
from trajcheck.reports.quantities.catalogue import ERRORS, PREVIOUS
from trajcheck.reports.terminal.layout import number

TABLE = "table"
FORMATS = (TABLE, "json", "csv", "markdown")

#: What json tells of a summary, as far as the kind of report has it.
_TOLD = ("run", "runs", "headline", "warnings", "incomplete")


def check_format(name: str) -> None:
    """Raise UsageError for a format that there is not."""
    if name not in FORMATS:
        raise UsageError(f"--format {name!r}: expected one of {', '.join(FORMATS)}.")


def printed(
    name: str,
    folder: Path,
    summary: Mapping[str, Any],
    table: Callable[[], str],
    rows: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> str:
    """The text for stdout. `table` makes that of the format `table`; json is an object of the report's folder and the
    parts of summary.json that are read first; csv and markdown are the headline, a row a reference, other run or flow,
    with all digits in csv. `rows`: those of a table by its name, which the three then
    are in the place of the headline."""
    if name == TABLE:
        return table()
    if name == "json":
        told = {key: summary[key] for key in _TOLD if key in summary}
        if rows is not None:
            told = {"run": summary["run"], **rows, "warnings": summary["warnings"]}
        return json.dumps({"report": str(folder), **told}, indent=2, allow_nan=False)
    found = headline_rows(summary) if rows is None else [row for each in rows.values() for row in each]
    return _csv(found) if name == "csv" else _markdown(found)


def headline_rows(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The headline of any kind of report as rows of one table; None where there is no value."""
    head = summary["headline"]
    if "runs" in summary:
        return [{"run_b": path, **_plain(values)} for path, values in head.items()]
    if "flow" in summary:
        return [{"run": summary["run"]["path"], **_plain(head)}]
    samples = head.get("samples", {head["sample"]: head})
    return [
        *(
            _analysis_row(spec, sample, each["references"][spec])
            for spec in head["references"]
            for sample, each in samples.items()
        ),
        *(_analysis_row(PREVIOUS, sample, each["previous"]) for sample, each in samples.items()),
    ]


def _analysis_row(reference: str, sample: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """A value, and its errors where there are any: _error along the path, _se over batches, _rows_se for the choice of
    rows."""
    row: dict[str, Any] = {"reference": reference, "sample": sample}
    for name in ("cosine", "convexity_ratio", "convexity_num", "convexity_den"):
        row[name] = values[name]
        row |= {each: values[each] for end in ERRORS if values.get(each := name + end) is not None}
        if name in ("cosine", "convexity_ratio"):
            of = f"{name.partition('_')[0]}_of"
            row[of] = values[of]
    for name in ("convex", "not_convex", "undetermined"):
        row[name] = (values["shares"] or {}).get(name)
        if (error := (values["shares_error"] or {}).get(name)) is not None:
            row[f"{name}_error"] = error
    return row


def _plain(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested values one beside the other, as outer_inner; lists are left to json."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= _plain(value, f"{before}{name}_")
        elif not isinstance(value, list):
            found[before + name] = value
    return found


def _names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    from trajcheck.reports.making.csv_text import rows_text

    names = _names(rows)
    return rows_text(names, [[row.get(name, "") for name in names] for row in rows]).rstrip("\n")


def _markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    names = _names(rows)
    lines = [names, ["---"] * len(names), *([_cell(row.get(name)) for name in names] for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return number(value, 4)
    return plain(value).replace("\\", "\\\\").replace("|", "\\|")
