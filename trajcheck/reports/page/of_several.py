"""The page of several runs: which they are, their headlines, in what they differ, figures, what is not in them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote

from trajcheck.reports.figures.render import Drawn
from trajcheck.reports.page.frame import figure, frame
from trajcheck.reports.page.markup import items, section, table, text
from trajcheck.reports.quantities.headline import Said, said_of, tables_of
from trajcheck.reports.reading.groups import Grouped
from trajcheck.reports.reading.report import SavedReport
from trajcheck.reports.reading.several_reports import Together
from trajcheck.version import __version__

#: What a figure's runs must have a value of.
_NEEDED = {
    "cosine": ("references", "cos", "cos_skip"),
    "convexity_ratio": ("references", "convexity_ratio"),
    "sharpness": ("steps", "lambda_max"),
    "distances": ("steps", "init_dist"),
    "loss": ("steps", "loss"),
    "previous_ratio": ("steps", "convexity_ratio"),
    "smoothness": ("steps", "avg_smooth", "lambda_max"),
}

_NAMES = {
    "runs": "Runs",
    "headline": "Headlines",
    "differences": "Differences",
    "warnings": "Warnings",
    "figures": "Figures",
    "left-out": "Left out",
    "provenance": "Provenance",
}

_SAME = (
    "Samples, kind of reference, objective and precision of the replay, number of parameters, optimizer, recorded "
    "steps and the options that change a meaning are the same in all reports. Of data, or of code behind an "
    "objective of the same name, the reports do not know."
)
_CARE = (
    "A row is of one run on one sample. Rows on different samples are different quantities, and a difference within "
    "the standard errors is not resolved. An error stands at the right of its value: path, along the path; batch, over "
    "probe batches; steps, for the choice of the recorded steps. A * marks a cosine or ratio that needed no correction "
    "for the steps' own terms, the others are without these."
)


def document(together: Together, drawn: Drawn, out: Path, notes: Sequence[str] = ()) -> str:
    """The whole page, for the folder `out`; `drawn` holds every picture as PNG."""
    values = "Its values are in the CSV files of the reports"
    sections = [
        section("runs", "Runs", _runs(together, out)),
        section(
            "headline",
            f"Headlines towards {text(together.ref)}",
            *(
                table(
                    f"Headlines towards {together.ref}: {each.title}",
                    each.heads,
                    each.rows,
                    len(each.heads) - each.words,
                )
                for each in tables_of(_rows(together), first="run")
            ),
            f"<p>{text(_CARE)}</p>",
        ),
        section("differences", "What they do not have in common", items(together.differences or [_SAME])),
        section("warnings", "Warnings", items(_warnings(together))),
        section(
            "figures", "Figures", *(figure(each, drawn.files[each.name]["png"], values) for each in drawn.pictures)
        ),
        section("left-out", "What was left out, and why", items([*notes, *_left_out(together, drawn)])),
        _provenance(together),
    ]
    title = f"{len(together.reports)} runs together"
    if isinstance(together, Grouped):
        title = f"{len(together.reports)} runs in {len(together.groups)} groups"
    data = '<script type="application/json" id="series-meta">{}</script>'
    return frame(title, __version__, sections, _NAMES, data, place="of the reports")


def _runs(together: Together, out: Path) -> str:
    found = []
    groups: dict[str, tuple[str]] = {}
    if isinstance(together, Grouped):
        groups = {
            together.labels[place]: (f"group {group.label}",) for group in together.groups for place in group.places
        }
    for report, label in zip(together.reports, together.labels, strict=True):
        page = next((name for name in ("report.html", "steps.csv") if (report.folder / name).is_file()), "")
        run = report.summary["run"]
        facts = [
            *groups.get(label, ()),
            str(run.get("path", "")),
            str(run.get("optimizer") or "optimizer unknown"),
            *([f"{run['parameters']:,} parameters"] if "parameters" in run else []),
            *(
                [f"{run['recorded_steps']:,} records of steps {run['first_step']} to {run['last_step']}"]
                if "recorded_steps" in run
                else []
            ),
        ]
        found.append(
            f'<li><a href="{text(_link(report.folder / page, out))}">{text(label)}</a>: {text(", ".join(facts))}</li>'
        )
    return f"<ol>{''.join(found)}</ol>"


def _link(target: Path, out: Path) -> str:
    """The way from the page to a file, as an address."""
    return quote(os.fsencode(os.path.relpath(target, out)))


def _rows(together: Together) -> list[Said]:
    return [
        each._replace(name=label)
        for report, label in zip(together.reports, together.labels, strict=True)
        for each in said_of(report.summary["headline"])
        if each.name == together.ref and each.name in report.references
    ]


def _warnings(together: Together) -> Iterator[str]:
    for report, label in zip(together.reports, together.labels, strict=True):
        yield from (f"{label}: {warning}" for warning in report.summary.get("warnings", []))
        yield from (f"{label}: not computed: {each}" for each in report.summary.get("incomplete", []))


def _left_out(together: Together, drawn: Drawn) -> Iterator[str]:
    if rest := together.labels[together.shown :]:
        yield f"The figures show the first {together.shown} runs, and not {', '.join(rest)}."
    if isinstance(together, Grouped) and (
        rest := [each.label for each in together.groups[len(together.drawn_groups) :]]
    ):
        yield f"The figures show the first {len(together.drawn_groups)} groups, and not {'; '.join(rest)}."
    yield from (f"{title}: {reason}" for title, reason in drawn.left_out.items())
    for picture in drawn.pictures:
        for label, reason in together.missing(*_NEEDED[picture.name]).items():
            yield f"{picture.title}, {label}: {reason}"


def _provenance(together: Together) -> str:
    facts = {label: _origin(report) for label, report in zip(together.labels, together.reports, strict=True)}
    facts["drawn with"] = f"matplotlib {version('matplotlib')}"
    inner = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in facts.items())
    return section("provenance", "Where the numbers come from", f"<dl>{inner}</dl>")


def _origin(report: SavedReport) -> str:
    summary = report.summary
    return (
        f"{report.folder}, run {report.id}, made {summary.get('created', 'at an unknown time')} by trajcheck "
        f"{summary['versions'].get('trajcheck', '')}, definitions version {summary.get('definitions', 'unknown')}"
    )
