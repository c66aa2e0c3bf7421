"""The headline of an analysis as tables of text, for the terminal, a page and a notebook.

A column of errors is of one kind: `path`, along the path; `batch`, over probe batches; `steps`, for the choice of the
rows that were recorded. It stands at the right of its value, and a kind that no row has has no column.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from trajcheck.reports.quantities.catalogue import ERRORS, PREVIOUS
from trajcheck.reports.terminal.layout import number

#: Marks behind a number that say which quantity it is of.
MARKS = {
    **{"cos_skip": " ", "cos": "*"},
    **{"convexity_ratio_skip": " ", "convexity_ratio": "*", "convexity_ratio_controlled": "^"},
}


_SKIP, _CONTROLLED = "convexity_ratio_skip", "convexity_ratio_controlled"


class HeadlineTable(NamedTuple):
    """`rows` of cells below `heads`; the first `words` columns are words, the others numbers."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int


class Said(NamedTuple):
    """What a headline says of a row, `values`, on one sample; `name` is the reference, or what else the row is of."""

    name: str
    sample: str
    values: Mapping[str, Any]


class _Value(NamedTuple):
    """A number of the headline with its errors; `mark` names what it is of."""

    name: str
    heading: str
    mark: str = ""
    share: bool = False


_RATIO = (
    _Value("convexity_ratio", "ratio", "convexity_of"),
    _Value("convexity_num", "num"),
    _Value("convexity_den", "den"),
)
_REST = (
    _Value("cosine", "cosine", "cosine_of"),
    _Value("convex", "convex", share=True),
    _Value("not_convex", "not", share=True),
)
_CHANGE = (_Value("loss_change_sum", "sum over rows"), _Value("loss_change_known", "f(x_T)-f(x_0)"))


def headline_tables(head: Mapping[str, Any], digits: int = 3) -> list[HeadlineTable]:
    """Of one analysis, a row a reference and sample, the previous iterate last."""
    return tables_of(list(said_of(head)), digits)


def tables_of(said: Sequence[Said], digits: int = 3, first: str = "reference") -> list[HeadlineTable]:
    """Cosine and shares of all samples; of each sample by itself ratio, num and den; and, where it is known, what the
    sum of loss_change is over every step. `first` heads the names of the rows."""
    samples = list(dict.fromkeys(each.sample for each in said))
    several = len(samples) > 1
    found = [_table("cosine, and share of convex steps", said, _REST, digits, first, sample=several, undetermined=True)]
    for sample in samples:
        of_sample = [each for each in said if each.sample == sample]
        head = f"on {sample}" if several else first
        found.append(_table(f"convexity ratio, sample {sample}", of_sample, _RATIO, digits, head))
    known = [each for each in said if each.values.get("loss_change_known") is not None]
    if known:
        found.append(_table("sum of loss changes", known, _CHANGE, digits, first, sample=True))
    return found


def legend(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the headings and marks of the tables mean, of those that there are."""
    head, run = summary["headline"], summary["run"]
    said = [each.values for each in said_of(head)]
    cosines, ratios = ({each.get(name) for each in said} for name in ("cosine_of", "convexity_of"))
    names = [one.name for one in (*_REST, *_RATIO, *_CHANGE)]
    kinds = {
        kind for end, kind in ERRORS.items() for each in said for name in names if _plain(each, name + end) is not None
    }
    after = "s after t" if run["skip"] == 1 else f"s >= t + {run['skip']}"
    lines = {
        "cosine": f"mean of cos(g_t, x_s - x*), {after}: free of the step's own term" if "cos_skip" in cosines else "",
        "cosine*": "mean of cos(g_t, x_t - x*): x* does not depend on the sample of g_t" if "cos" in cosines else "",
        "ratio": "num/den with <g_t, x_s - x*> in num: free of the steps' own terms" if _SKIP in ratios else "",
        "ratio*": "num/den = sum <g, x-y> / sum f(x)-f(y); >= 1 if convex and den > 0",
        "ratio^": "with sum f(x)-f(y) = f(x_T)-f(x_0), known, as a control variate" if _CONTROLLED in ratios else "",
        "convex": "share of steps with f(x)-f(y)-<g, x-y> < 0; not: > 0; ?: unresolved",
        "path": "standard error along the path, two of which cover 95%: of cosine and shares by means of stretches, of "
        "ratio, num and den for other draws of the steps' batches" if "path" in kinds else "",
        "batch": "standard error over the probe batches" if "batch" in kinds else "",
        "steps": f"standard error for the choice of the recorded steps{_peaks(run)}" if "steps" in kinds else "",
    }  # fmt: skip
    return [(term, words) for term, words in lines.items() if words]


def _peaks(run: Mapping[str, Any]) -> str:
    """What an error for the choice of rows does not hold."""
    if run.get("plain_sgd"):
        return ""
    return "; with momentum or Adam less sure: a peak that no record met is not in it"


def said_of(head: Mapping[str, Any]) -> Iterator[Said]:
    """Every row of a headline."""
    samples = head.get("samples") or {head["sample"]: head}
    for ref in head["references"]:
        yield from (Said(ref, sample, each["references"][ref]) for sample, each in samples.items())
    yield from (Said(PREVIOUS, sample, each["previous"]) for sample, each in samples.items())


def _table(
    title: str,
    said: Sequence[Said],
    values: Sequence[_Value],
    digits: int,
    first: str,
    *,
    sample: bool = False,
    undetermined: bool = False,
) -> HeadlineTable:
    heads = [first, *(["sample"] if sample else [])]
    columns: list[list[str]] = [
        [each.name for each in said],
        *([[each.sample for each in said]] if sample else []),
    ]
    words = len(columns)
    for one in values:
        heads.append(one.heading)
        columns.append([_number(one, each.values, digits) for each in said])
        for end, kind in ERRORS.items():
            errors = [_plain(each.values, one.name + end) for each in said]
            if any(error is not None for error in errors):
                heads.append(kind)
                columns.append([_error(one, error, digits) for error in errors])
    if undetermined:
        heads.append("?")
        columns.append([_percent(_plain(each.values, "undetermined")) for each in said])
    return HeadlineTable(title, tuple(heads), tuple(zip(*columns, strict=True)), words)


def _plain(values: Mapping[str, Any], name: str) -> float | None:
    """A value of the headline; a share, or its error, from among the shares."""
    if name in ("convex", "not_convex", "undetermined"):
        return (values.get("shares") or {}).get(name)
    if name.removesuffix("_error") in ("convex", "not_convex"):
        return (values.get("shares_error") or {}).get(name.removesuffix("_error"))
    return values.get(name)


def _number(one: _Value, values: Mapping[str, Any], digits: int) -> str:
    value = _plain(values, one.name)
    if one.share:
        return _percent(value)
    return number(value, digits) + (MARKS.get(values.get(one.mark) or "", "") if value is not None and one.mark else "")


def _error(one: _Value, error: float | None, digits: int) -> str:
    if one.share and error is not None:
        return f"{number(100 * error, 2)}%"
    return number(error, min(2, digits))


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1g}%" if 0 < share < 0.01 else f"{100 * share:.0f}%"
