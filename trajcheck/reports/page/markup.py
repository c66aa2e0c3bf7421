"""Words into HTML. Names of runs, references and tensors are anybody's: everything passes through `text`."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trajcheck.readable import plain

#: Letters of one text on a page.
LONGEST = 20_000


def text(words: object) -> str:
    """Words as HTML text, or as an attribute's value between double quotes."""
    return html.escape(plain(words, LONGEST), quote=True)


def script_json(value: Any) -> str:
    """JSON that may stand in a script element: no letter in it can end the element or begin a comment."""
    found = json.dumps(_shown(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return found.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _shown(value: Any) -> Any:
    """The value with every text in it as it can be shown."""
    if isinstance(value, str):
        return plain(value, max(LONGEST, len(value)))
    if isinstance(value, Mapping):
        return {_shown(name): _shown(each) for name, each in value.items()}
    return [_shown(each) for each in value] if isinstance(value, list | tuple) else value


def items(lines: Iterable[str]) -> str:
    """A list of words; nothing for none."""
    found = "".join(f"<li>{text(line)}</li>" for line in lines)
    return f"<ul>{found}</ul>" if found else ""


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], numbers: int = 0) -> str:
    """A table that scrolls by itself where it is too wide; the last `numbers` columns are flush right.

    The first cell of each row is its heading.
    """
    first = len(head) - numbers
    kinds = ["" if place < first else ' class="number"' for place in range(len(head))]
    heads = "".join(f'<th scope="col"{kind}>{text(each)}</th>' for each, kind in zip(head, kinds, strict=True))
    body = "".join(
        f'<tr><th scope="row">{text(row[0])}</th>'
        + "".join(f"<td{kind}>{text(cell)}</td>" for cell, kind in zip(row[1:], kinds[1:], strict=True))
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{text(caption)}"><table>'
        f"<caption>{text(caption)}</caption><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def section(identity: str, title: str, *parts: str) -> str:
    """A section under its heading; nothing where it has nothing to say."""
    inner = "".join(parts)
    if not inner:
        return ""
    return (
        f'<section id="{identity}" aria-labelledby="{identity}-h"><h2 id="{identity}-h">{title}</h2>{inner}</section>'
    )
