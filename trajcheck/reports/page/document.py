"""The page itself: headline, warnings, interactive series, figures, what was left out, provenance."""

from __future__ import annotations

import base64
import hashlib
import io
from importlib.resources import files

from PIL import Image

from trajcheck.reports.figures.picture import Picture
from trajcheck.reports.figures.render import Drawn
from trajcheck.reports.figures.style import BLACK, COLOURS
from trajcheck.reports.page import library
from trajcheck.reports.page.facts import headline_table, left_out_section, provenance_section, warnings_section
from trajcheck.reports.page.markup import items, script_json, section, text
from trajcheck.reports.page.other_sentences import comparison_words, flow_words
from trajcheck.reports.page.sentences import Words, analysis_words
from trajcheck.reports.page.series import pack
from trajcheck.reports.saved import SavedReport

_WORDS = {"analysis": analysis_words, "comparison": comparison_words, "flow": flow_words}
_TITLES = {"analysis": "Analysis of", "comparison": "Comparison with", "flow": "Gradient flow of"}
_DASHES = {"own": "solid", "probe": "dash", "full": "dashdot", "previous": "dot"}


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
        warnings_section(report),
        _series() if meta["quantities"] else "",
        section("figures", "Figures", *(_figure(each, drawn.files[each.name]["png"]) for each in drawn.pictures)),
        left_out_section(report, drawn.left_out, packed.left_out),
        provenance_section(report),
    ]
    names = {
        "headline": "Headline",
        "warnings": "Warnings",
        "series": "Series",
        "figures": "Figures",
        "left-out": "Left out",
        "provenance": "Provenance",
    }
    links = "".join(f'<a href="#{key}">{name}</a>' for key, name in names.items() if f'id="{key}"' in "".join(sections))
    script, chart = _resource("page.js"), library.source()
    allowed = " ".join(f"'sha256-{_digest(each)}'" for each in (script, chart))
    title = text(f"{_TITLES[report.kind]} {path}")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src {allowed}; \
style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="trajcheck {text(report.summary["versions"].get("trajcheck", ""))}">
<title>{title}</title>
<style>{_resource("page.css")}</style>
</head>
<body>
<a class="skip" href="#main">To the report</a>
<header>
<h1>{title}</h1>
<nav aria-label="Sections">{links}</nav>
<button type="button" id="theme" hidden>Dark</button>
</header>
<main id="main">
{"".join(sections)}
</main>
<footer><p>Written by trajcheck {text(report.summary["versions"].get("trajcheck", ""))}. The numbers stand in the CSV \
files beside this page.</p></footer>
<script type="application/json" id="series-meta">{script_json(meta)}</script>
<script type="text/plain" id="series-data">{packed.data}</script>
<script type="text/plain" id="library">{library.packed(chart)}</script>
<script>{script}</script>
</body>
</html>
"""


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
    return section("series", "Series", _resource("series.html"))


def _figure(picture: Picture, png: bytes) -> str:
    image, width, height = _small(png)
    name = f"figure-{picture.name}"
    words = f"Chart: {picture.title}. Its values are in the CSV files, and under Series as lines and as a table"
    return (
        f'<figure id="{name}"><h3>{text(picture.title)}</h3>'
        f'<img src="data:image/png;base64,{image}" width="{width}" height="{height}" loading="lazy" '
        f'alt="{text(words)}" aria-describedby="{name}-c">'
        f'<figcaption id="{name}-c">{text(picture.caption)}</figcaption></figure>'
    )


def _small(png: bytes) -> tuple[str, int, int]:
    """The picture in 128 colours, a third of the bytes, as base64; its width and height."""
    with Image.open(io.BytesIO(png)) as image:
        few = image.convert("RGB").quantize(128, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    few.save(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode(), few.width, few.height


def _resource(name: str) -> str:
    return files("trajcheck.reports.page").joinpath(name).read_text(encoding="utf-8").strip()


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
