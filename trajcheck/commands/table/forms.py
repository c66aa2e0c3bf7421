"""A table as LaTeX (booktabs), Markdown or CSV. Words are anybody's: they are escaped, and never become code."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from trajcheck.commands.table.content import Entry, Line, Table
from trajcheck.commands.table.digits import Rounded, rounded
from trajcheck.readable import one_line
from trajcheck.reports.making.csv_text import rows_text
from trajcheck.reports.quantities.catalogue import PREVIOUS

#: The first words of a file by which a later call knows it as one that it may replace; of CSV a heading says it.
MARKS = {"latex": "% made by trajcheck table", "markdown": "<!-- made by trajcheck table -->"}
COUNT = "runs"

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}", "]": "{]}", '"': r"\textquotedbl{}", "±": r"$\pm$", "–": "--", "…": r"\ldots{}",
}  # fmt: skip


def latex_text(words: str) -> str:
    """Words for LaTeX in any of its fonts; a letter beyond Latin-1, which pdflatex may not have, as [U+03BB]."""
    return "".join(
        _LATEX.get(c, c if ord(c) < 256 else f"{{[}}U+{ord(c):04X}{{]}}") for c in one_line(words)
    )  # fmt: skip


def markdown_text(words: str) -> str:
    """Words for a cell of a Markdown table."""
    escaped = one_line(words).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    escaped = re.sub(r"([\\`*_\[\]|~$])", r"\\\1", escaped)
    return re.sub(r"(?i)\bwww\.", "www&#46;", escaped.replace("://", "&#58;//"))  # else an address is a link


def latex(table: Table, caption: str = "") -> str:
    """A tabular with the rules of the package booktabs; with a caption a whole table."""
    heads = [*map(latex_text, table.label_names), *(["$n$"] if table.grouped else [])]
    heads += [column.latex or latex_text(column.heading) for column in table.columns]
    kinds = "l" * len(table.label_names) + "r" * table.grouped
    kinds += "".join("l" if column.words else "r" for column in table.columns)
    lines = [MARKS["latex"], "% needs \\usepackage{booktabs}", *(f"% {_one_line(note)}" for note in table.notes)]
    indent = "  " if caption else ""
    body = [rf"\begin{{tabular}}{{{kinds}}}", r"\toprule", _row(heads), r"\midrule"]
    before: Line | None = None
    for line in table.lines:
        if before is not None and len(line.labels) > 1 and line.labels[0] != before.labels[0]:
            body.append(r"\addlinespace")
        body.append(_row([*map(_label, _without_repeats(line, before)), *_cells(table, line, latex_number, "--")]))
        before = line
    body += [r"\bottomrule", r"\end{tabular}"]
    if caption:
        lines += [r"\begin{table}", r"  \centering", rf"  \caption{{{latex_text(caption)}}}"]
        return "\n".join([*lines, *(indent + each for each in body), r"\end{table}"]) + "\n"
    return "\n".join([*lines, *body]) + "\n"


def markdown(table: Table, caption: str = "") -> str:
    """A table as GitHub and most others have it, with its notes below."""
    heads = [*map(markdown_text, table.label_names), *(["n"] if table.grouped else [])]
    heads += [markdown_text(column.heading) for column in table.columns]
    rules = [*("---" for _ in table.label_names), *(["---:"] if table.grouped else [])]
    rules += ["---" if column.words else "---:" for column in table.columns]
    rows = [heads, rules]
    rows += [
        [*map(markdown_text, line.labels), *_cells(table, line, plain_number, "–", markdown_text)]
        for line in table.lines
    ]
    text = [MARKS["markdown"], *([f"**{markdown_text(caption)}**", ""] if caption else [])]
    text += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*text, "", *(f"- {markdown_text(note)}" for note in table.notes)]).rstrip() + "\n"


def as_csv(table: Table, caption: str = "") -> str:
    """All digits: a column a quantity, its error beside it (<column>_se, of one run
    <column>_error, <column>_se or <column>_rows_se by its kind), `runs` the number of runs of a row."""
    errors = [any(line.entries[place].error is not None for line in table.lines) for place in range(len(table.columns))]
    head = [*table.all_names, COUNT]
    for column, with_error in zip(table.columns, errors, strict=True):
        head += [column.name, *([column.error_name] if with_error else [])]
    rows: list[list[object]] = []
    for line in table.lines:
        cells: list[object] = [*map(one_line, line.all_labels), line.runs]
        for column, entry, with_error in zip(table.columns, line.entries, errors, strict=True):
            scale = 100.0 if column.share else 1.0
            cells.append(one_line(entry.words) if column.words else "" if entry.value is None else entry.value / scale)
            cells += ["" if entry.error is None else entry.error / scale] if with_error else []
        rows.append(cells)
    return rows_text(head, rows)


FORMS: dict[str, Callable[[Table, str], str]] = {"latex": latex, "markdown": markdown, "csv": as_csv}


def is_table(data: bytes) -> bool:
    """Whether a file is one that `trajcheck table` has written."""
    first = data.split(b"\n", 1)[0].decode("utf-8", "replace").strip()
    return first in MARKS.values() or f",reference,sample,{COUNT}," in f"{first},"


# -- cells ------------------------------------------------------------------------------------------------------------


def _cells(
    table: Table, line: Line, number: Callable[[Rounded], str], dash: str, words: Callable[[str], str] = latex_text
) -> list[str]:
    found = [str(line.runs)] if table.grouped else []
    for column, entry in zip(table.columns, line.entries, strict=True):
        is_error = bool(column.of_error)
        found.append(words(entry.words) if column.words and entry.words else _cell(entry, is_error, line, number, dash))
    return found


def _cell(entry: Entry, is_error: bool, line: Line, number: Callable[[Rounded], str], dash: str) -> str:
    if entry.value is None:
        return "" if entry.blank else dash
    if entry.beside is not None:
        value, error = (entry.beside, entry.value) if is_error else (entry.value, entry.beside)
        both = rounded(value, error)
        return number(Rounded((is_error and both.error) or both.value, None, both.power))
    fewer = f" ({entry.count} of {line.runs})" if entry.count < line.runs else ""
    return number(rounded(entry.value, entry.error)) + fewer


def _label(words: str) -> str:
    """A label for LaTeX; the previous iterate as mathematics."""
    return "$x_{t-1}$" if words == PREVIOUS else latex_text(words)


def plain_number(each: Rounded) -> str:
    power = f"e{each.power}" if each.power else ""
    if each.error is None:
        return f"{each.value}{power}"
    return f"({each.value} ± {each.error}){power}" if power else f"{each.value} ± {each.error}"


def latex_number(each: Rounded) -> str:
    power = rf" \times 10^{{{each.power}}}" if each.power else ""
    if each.error is None:
        return f"${each.value}{power}$"
    return rf"$({each.value} \pm {each.error}){power}$" if power else rf"${each.value} \pm {each.error}$"


def _without_repeats(line: Line, before: Line | None) -> list[str]:
    """The labels, those at the left empty that are the same as in the row above."""
    labels = list(line.labels)
    for place in range(len(labels) - 1):
        if before is None or line.labels[: place + 1] != before.labels[: place + 1]:
            break
        labels[place] = ""
    return labels


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _one_line(words: str) -> str:
    return one_line(words).encode("ascii", "replace").decode()
