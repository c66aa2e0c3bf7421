"""The HTML of a notebook's cell: everything inline, every name escaped, no script."""

from __future__ import annotations

import base64
from html import escape

from trajcheck.reports.page.facts import headline_table
from trajcheck.reports.page.markup import items, text
from trajcheck.reports.page.other_sentences import flow_words
from trajcheck.reports.reading.report import SavedReport

_OF = {"analysis": "Analysis of", "comparison": "Comparison with", "flow": "Gradient flow of"}


def cell(report: SavedReport, no_figure: str = "") -> str:
    """`no_figure` says why there is none; without such a word the first that has something to draw is shown."""
    summary = report.summary
    parts = [
        f"<p><b>{_OF[report.kind]} {text(summary['run'].get('path', ''))}</b></p>",
        headline_table(report) or _sentences(report),
        _listed("Warnings", summary.get("warnings", [])),
        _listed("Asked for and not computed", summary.get("incomplete", [])),
        f"<p>{text(no_figure)}</p>" if no_figure else _figure(report),
        f"<p>{text(report.folder)}</p>",
    ]
    return f'<div class="trajcheck-report">{"".join(parts)}</div>'


def _sentences(report: SavedReport) -> str:
    words = flow_words(report)
    unsaid = [f"No word on {about}: {reason}" for about, reason in words.unsaid.items()]
    return items([*(line for lines in words.said.values() for line in lines), *unsaid])


def _listed(title: str, lines: list[str]) -> str:
    return f"<details open><summary>{title}</summary>{items(lines)}</details>" if lines else ""


def _figure(report: SavedReport) -> str:
    """The first figure in the order of the page, with its caption; of those before it, why they have nothing."""
    from trajcheck.reports.figures.catalogue import PICTURES
    from trajcheck.reports.figures.picture import NothingToDraw
    from trajcheck.reports.figures.render import one, png

    reasons = []
    for picture in PICTURES[report.kind]:
        try:
            image = base64.b64encode(png(one(picture, report))).decode()
        except NothingToDraw as nothing:
            reasons.append(f"{picture.title}: {nothing}")
            continue
        return (
            f'<figure style="margin: 0"><img src="data:image/png;base64,{image}" '
            f'alt="{text(f"Chart: {picture.title}")}" style="width: 100%; max-width: 720px; background: white">'
            f'<figcaption style="max-width: 720px">{escape(picture.caption)}</figcaption></figure>'
        )
    return _listed("No figure", reasons)
