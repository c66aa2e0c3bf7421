"""The page itself: headline, warnings, interactive series, figures, what was left out, provenance."""

from __future__ import annotations

from trajcheck.reports.figures.drawing.style import BLACK, COLOURS
from trajcheck.reports.figures.render import Drawn
from trajcheck.reports.page import library
from trajcheck.reports.page.facts import (
    assumptions_section,
    headline_table,
    left_out_section,
    provenance_section,
    schedule_section,
    warnings_section,
)
from trajcheck.reports.page.frame import figure, frame, resource
from trajcheck.reports.page.markup import items, script_json, section, text
from trajcheck.reports.page.other_sentences import comparison_words, flow_words
from trajcheck.reports.page.sentences import Words, analysis_words
from trajcheck.reports.page.series import pack
from trajcheck.reports.reading.report import SavedReport

_WORDS = {"analysis": analysis_words, "comparison": comparison_words, "flow": flow_words}
_TITLES = {"analysis": "Analysis of", "comparison": "Comparison with", "flow": "Gradient flow of"}
_DASHES = {"own": "solid", "probe": "dash", "full": "dashdot", "previous": "dot"}
_VALUES = "Its values are in the CSV files, and under Series as lines and as a table"


def document(report: SavedReport, drawn: Drawn) -> str:
    """The whole page; `drawn` holds every picture as PNG."""
    path = report.summary["run"]["path"]
    packed = pack(report)
    meta = {
        **packed.meta,
        "colours": [None if colour == BLACK else colour for colour in COLOURS],
        "dashes": _DASHES,
    }
    sections = [
        _headline(report, _WORDS[report.kind](report)),
        assumptions_section(report),
        schedule_section(report),
        warnings_section(report),
        _series() if meta["quantities"] else "",
        section(
            "figures", "Figures", *(figure(each, drawn.files[each.name]["png"], _VALUES) for each in drawn.pictures)
        ),
        left_out_section(report, drawn.left_out, packed.left_out, [each.name for each in drawn.not_asked]),
        provenance_section(report),
    ]
    names = {
        "headline": "Headline",
        "assumptions": "Assumptions",
        "schedule": "Schedule",
        "warnings": "Warnings",
        "series": "Series",
        "figures": "Figures",
        "left-out": "Left out",
        "provenance": "Provenance",
    }
    chart = library.source()
    data = f"""<script type="application/json" id="series-meta">{script_json(meta)}</script>
<script type="text/plain" id="series-data">{packed.data}</script>
<script type="text/plain" id="library">{library.packed(chart)}</script>"""
    title = f"{_TITLES[report.kind]} {path}"
    version = str(report.summary["versions"].get("trajcheck", ""))
    return frame(title, version, sections, names, data, more_script=chart)


def _headline(report: SavedReport, words: Words) -> str:
    unsaid = items(f"{about}: {reason}" for about, reason in words.unsaid.items())
    return section(
        "headline",
        "Headline",
        headline_table(report),
        "".join(f"<h3>{text(title)}</h3>{items(said)}" for title, said in words.said.items()),
        f"<details><summary>Of what no sentence is made, and why</summary>{unsaid}</details>" if unsaid else "",
    )


def _series() -> str:
    return section("series", "Series", resource("series.html"))
