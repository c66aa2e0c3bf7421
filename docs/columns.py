"""The tables of columns.md, from the declarations of the columns: `python docs/columns.py` writes them anew."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from trajcheck.inner_products.catalogue import REFERENCE_PRODUCTS, STEP_PRODUCTS, vectors_needed
from trajcheck.metrics.assumptions.catalogue import assumptions
from trajcheck.metrics.assumptions.entries import NUMBERS
from trajcheck.metrics.catalogue import quantities
from trajcheck.metrics.quantity import ALLOCATION, AVERAGES, COMPARE, FLOW, REFERENCES, SCHEDULE, STEPS, Quantity
from trajcheck.tables.needed import needed_by

PAGE = Path(__file__).with_name("columns.md")
BEGIN, END = "<!-- columns: begin -->", "<!-- columns: end -->"

#: What a condition of a column (`Quantity.when`) asks for.
CONDITIONS = {
    "own": "`--sample own`",
    "fixed": "`--sample probe` or `full`",
    "replay": "objective",
    "decay": "a run with weight decay",
    "windows": "`Recorder(windows=True)`",
    "all_losses": "`every-step.f64`, or `Recorder(windows=True)`, or a log of every step",
    "curvature": "objective, `--curvature`",
    "lambda_max": "objective, `--curvature`",
    "lambda_min": "objective, `--curvature`, `--curvature-ends min` or `both`",
    "path_integral": "objective, `--path-integral`",
    "allocate": "objective, `--allocate`",
    "lags": "recorded gradients, `--memory-lags`",
    "thinned": "rows that are not all steps",
    "tail_index": "`--tail-index`",
    "batches": "several batches a row: objective and `--sample probe`, or a step accumulated over micro-batches with "
    "an objective or `Recorder(micro_gradients=True)`",
    "gap": "`--align time`",
    "line": "objective",
}
SECTIONS = {
    STEPS: "A row a recorded step and `sample`, with its `step`: the path by itself, y being x_{t-1}.",
    REFERENCES: "A row a step, `ref` (the reference as it was given) and `sample`; y is x\\*.",
    SCHEDULE: "The [last-iterate bound](schedule.md): a row a `step` (that of x_T), `ref` and `sample` (own, probe, "
    "full); of rows whose step has a rate above 0, at most 64, evenly spaced in their logarithms, the last among them.",
    COMPARE: "A row a pair of iterates: `run_a`, `run_b`, `step_a`, `step_b` (between two records: that of the first), "
    "and `interpolated`, whether x_b lies between two records.",
    ALLOCATION: "With `--allocate`: a row a recorded `step`, `sample` and `tensor` (its name, or the text that "
    "`--group` matched), with `numel` and `group`, the number of its parameter group. Where there are several groups, "
    "rows with an empty `tensor` hold their sums.",
    AVERAGES: "With `--average`: a row a recorded `step`, `average` (as it was given) and `sample`, probe or full.",
    FLOW: "A row a recorded `step`; theta is the [gradient flow](flow.md), started at x_s.",
}


def tables() -> str:
    """Everything between the two marks."""
    parts = []
    for table, words in SECTIONS.items():
        rows = [_row(each) for each in quantities(table).values() if not (each.hidden or each.only_of_tensor)]
        parts.append(f"## {table}.csv\n\n{words}\n\n{_table(rows)}")
        if table == REFERENCES:
            parts.append(f"## assumptions.csv\n\n{_ledger()}")
            parts.append(f"## layers.csv\n\n{_layers()}")
    return "\n\n".join(parts)


def page() -> str:
    """The page with its tables as the declarations have them."""
    text = PAGE.read_text()
    before, after = text.index(BEGIN) + len(BEGIN), text.index(END)
    return f"{text[:before]}\n{tables()}\n{text[after:]}"


def _table(rows: Iterable[str]) -> str:
    return "\n".join(("| column | meaning | unit, range | takes | `--metrics` |", "|---|---|---|---|---|", *rows))


def _row(one: Quantity) -> str:
    name = re.sub(r"_$", "_K", one.name)
    meaning = _text(one.formula) + (f" ({one.source})" if one.source else "")
    unit = ", ".join(([] if str(one.unit) == "none" else [str(one.unit)]) + [one.range])
    cells = (meaning, unit, ", ".join(takes(one)), ", ".join(one.families))
    return f"| `{name}` | " + " | ".join(cells) + " |"


def takes(one: Quantity) -> list[str]:
    """What a column takes beside the recorded iterates, in words."""
    found: dict[str, None] = {}
    if one.table in (STEPS, REFERENCES):
        what = needed_by(one.table, one.operands, one.optional)
        products = [STEP_PRODUCTS[name] for name in what.step_products]
        vectors = vectors_needed(products + [REFERENCE_PRODUCTS[name] for name in what.reference_products])
        if what.evaluations.keys() - {"descent"} or "gradient_reference" in vectors:
            found["objective"] = None
        elif vectors & {"gradient", "regularised"}:
            found["gradient"] = None
        if "gradient_reference" in vectors:
            found["`--ref-gradients`"] = None
    more = ", ".join(CONDITIONS[name] for name in one.when)
    return list(found | dict.fromkeys(more.split(", ") if more else ()))


def _layers() -> str:
    own, towards = (
        [f"`{name}`" for name, one in quantities(table).items() if one.of_tensor] for table in (STEPS, REFERENCES)
    )
    alone = [one for one in quantities(STEPS).values() if one.only_of_tensor]
    words = [f"`{one.name}`, {_text(one.formula)}" + (f" ({one.source})" if one.source else "") for one in alone]
    radial, *asked = words
    return (
        "With `--layers` or `--group`: a row a step, reference, sample and `tensor` (its name, or the text that "
        "`--group` matched), with `numel`, the number of its elements, and "
        f"{radial}; with `--tail-index`, on probe batches, {'; '.join(asked)}. "
        f"Rows with an empty `ref` hold, of the path, {', '.join(own)}; "
        f"those with a reference {', '.join(towards)}."
    )


def _ledger() -> str:
    """A row an assumption, with the tables that it is judged on."""
    tables: dict[str, list[str]] = {}
    for table, name in assumptions():
        tables.setdefault(name, []).append({STEPS: "x_{t-1}", REFERENCES: "x*"}[table])
    rows = {name: one for (_, name), one in assumptions().items()}
    lines = [
        f"| `{name}` | {_text(one.title)} ({one.source}) | {_text(one.formula)} | {_text(', '.join(tables[name]))} | "
        + "; ".join(f"`{name}`: {f'{one.extreme} {_text(words)}'.strip()}" for name, words in one.constants.items())
        + " |"
        for name, one in rows.items()
    ]
    head = ("| `assumption` | what it is | `formula` | y | `parameter` |", "|---|---|---|---|---|")
    return (
        "A row an assumption, `parameter`, `ref` (`x_(t-1)`: between consecutive iterates) and `sample`, with "
        + ", ".join(f"`{name}`" for name in NUMBERS)
        + ": [how a row is read](assumptions.md#how-a-row-is-read).\n\n"
        + "\n".join((*head, *lines))
    )


def _text(formula: str) -> str:
    """A formula as Markdown: inner products in angle brackets, nothing that marks up."""
    text = re.sub(r"<(?![= ])([^<>]*,[^<>]*)>", "⟨\\1⟩", formula)
    text = re.sub(r"(--[a-z][a-z-]*|windows=True)", r"`\1`", text)
    text = re.sub(r"\b([a-z]+(?:_[a-z]+)+)\b", _code, text)
    return text.replace("|", "\\|").replace("x*", "x\\*")


def _code(match: re.Match[str]) -> str:
    known = {name for table in SECTIONS for name in quantities(table)}
    return f"`{match[1]}`" if match[1] in known else match[1]


if __name__ == "__main__":
    PAGE.write_text(page())
