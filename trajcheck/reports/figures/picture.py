"""What a figure is: a name, a title, a caption, and how it is drawn from a saved report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Words for several figures: those that are not on demand, and all.
MAIN, ALL = "main", "all"


class NothingToDraw(Exception):
    """The columns of a figure are absent or empty; the message says why."""


@dataclass(frozen=True)
class Picture:
    """A file of one of the folders beside this one, with such a PICTURE in it, is a figure; nothing else lists it.

    `name` is its file's, `caption` says what is shown, on which conventions. `draw` takes the SavedReport, or the
    several ones of a Together or Grouped, and raises NothingToDraw where there are none of its columns. `kinds` are the
    reports that have it: analysis, comparison, flow, together, grouped. In each, figures stand in the order of `place`.
    One that is `on_demand` is drawn where it is asked for, by its name or with all: it is for a question that few have.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[Any], Figure]
    place: int
    kinds: tuple[str, ...] = ("analysis",)
    on_demand: bool = False
