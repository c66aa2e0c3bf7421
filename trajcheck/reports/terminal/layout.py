"""Columns of text that line up, within one width."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from trajcheck.readable import plain

WIDTH = 80


def fitted(rows: Callable[[int], Sequence[tuple[str, ...]]]) -> list[str]:
    """`aligned` rows with as many digits as fit into the line, three at most."""
    for digits in (3, 2, 1):
        lines = aligned(rows(digits))
        if max(map(len, lines)) <= WIDTH:
            break
    return lines


def number(value: float | None, digits: int = 3) -> str:
    if value is None:
        return "-"
    text = f"{value:.{digits}g}"
    return text.replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")


def wrapped(words: object, indent: int, width: int = WIDTH) -> list[str]:
    """Anybody's words on lines of at most `width` characters, all but the first indented."""
    return textwrap.wrap(plain(words), width, subsequent_indent=" " * indent)


def warning_lines(warnings: Iterable[object]) -> list[str]:
    return [line for warning in warnings for line in wrapped(f"warning: {warning}", 9)]


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """The first column flush left and cut to what is left of the line, the others flush right, as narrow as can be.

    Of a long name the end is kept: that of a path says more than its beginning.
    """
    rows = [tuple(map(plain, row)) for row in rows]
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    widths[0] = max(8, min(widths[0], WIDTH - sum(width + 2 for width in widths[1:])))
    names = [row[0] if len(row[0]) <= widths[0] else "..." + row[0][3 - widths[0] :] for row in rows]
    return [
        "  ".join(
            [name.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        for name, row in zip(names, rows, strict=True)
    ]


def permuted(spec: str, found: Mapping[str, Any]) -> str:
    """One line: what matching the units of a reference did to its distance from the last iterate."""
    text = f": {number(found['before'], 4)} from the last iterate, matched {number(found['after'], 4)}"
    room, spec = WIDTH - 11 - len(text), plain(spec)
    return f"permuted   {spec if len(spec) <= room else '...' + spec[3 - room :]}{text}"


def percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f}%"
