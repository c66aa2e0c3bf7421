"""What every page stands in: head, navigation, styles, scripts and what they may do; and how a picture is embedded."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from importlib.resources import files

from PIL import Image

from trajcheck.reports.figures.picture import Picture
from trajcheck.reports.page.markup import text


def frame(
    title: str,
    version: str,
    sections: Sequence[str],
    names: Mapping[str, str],
    data: str,
    more_script: str = "",
    place: str = "beside this page",
) -> str:
    """A whole page. `names` of sections that may be there, by their id, for the navigation; `data` are the script
    elements that hold the page's numbers; `more_script` is a script that page.js starts from
    them; `place` says where the CSV files are."""
    inner = "".join(sections)
    links = "".join(f'<a href="#{key}">{name}</a>' for key, name in names.items() if f'id="{key}"' in inner)
    script = resource("theme.js") + resource("page.js")
    allowed = " ".join(f"'sha256-{_digest(each)}'" for each in (script, more_script) if each)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src {allowed}; \
style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="trajcheck {text(version)}">
<title>{text(title)}</title>
<style>{resource("page.css")}</style>
</head>
<body>
<a class="skip" href="#main">To the report</a>
<header>
<h1>{text(title)}</h1>
<nav aria-label="Sections">{links}</nav>
<button type="button" id="theme" hidden>Dark</button>
</header>
<main id="main">
{inner}
</main>
<footer><p>Written by trajcheck {text(version)}. The numbers stand in the CSV files {text(place)}.</p></footer>
{data}
<script>{script}</script>
</body>
</html>
"""


def figure(picture: Picture, png: bytes, values: str) -> str:
    """A picture with its title and caption; `values` says where its numbers are to be read."""
    image, width, height = _small(png)
    name = f"figure-{picture.name}"
    return (
        f'<figure id="{name}"><h3>{text(picture.title)}</h3>'
        f'<img src="data:image/png;base64,{image}" width="{width}" height="{height}" loading="lazy" '
        f'alt="{text(f"Chart: {picture.title}. {values}")}" aria-describedby="{name}-c">'
        f'<figcaption id="{name}-c">{text(picture.caption)}</figcaption></figure>'
    )


def _small(png: bytes) -> tuple[str, int, int]:
    """The picture in 128 colours, a third of the bytes, as base64; its width and height."""
    with Image.open(io.BytesIO(png)) as image:
        few = image.convert("RGB").quantize(128, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    few.save(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode(), few.width, few.height


def resource(name: str) -> str:
    return files("trajcheck.reports.page").joinpath(name).read_text(encoding="utf-8").strip()


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
