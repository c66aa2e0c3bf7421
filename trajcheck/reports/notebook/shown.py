"""A report in a notebook: it shows its headline with one figure, and draws any figure that is asked for by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from trajcheck.errors import BadInputError, UsageError
from trajcheck.reports.extras import install, missing, need

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from trajcheck.reports.reading.report import SavedReport


class Shown(ABC):
    """What reports of all kinds have in common: `plot`, and how they appear where they are a cell's value."""

    @abstractmethod
    def _saved(self) -> SavedReport:
        """The report as it would be read from its folder; nothing of the folder is read."""

    def plot(self, name: str) -> Figure:
        """The figure of that name, as `trajcheck report` draws it into figures/NAME.png: a matplotlib Figure.

        Needs the extra `plots`. Raises UsageError, with the names that there are, for another name, and BadInputError
        with the reason where the figure has nothing to draw.
        """
        need("plots", "figures need")
        from trajcheck.reports.figures.catalogue import PICTURES
        from trajcheck.reports.figures.picture import NothingToDraw
        from trajcheck.reports.figures.render import one

        saved = self._saved()
        pictures = {each.name: each for each in PICTURES[saved.kind]}
        if name not in pictures:
            raise UsageError(f"no figure {name!r} of this report; there are {', '.join(pictures)}.")
        try:
            return one(pictures[name], saved)
        except NothingToDraw as nothing:
            raise BadInputError(f"{name}: has nothing to draw: {nothing}") from None

    def _repr_html_(self) -> str:
        """The headline, warnings and the report's first figure, as HTML that needs no other file."""
        from trajcheck.reports.notebook.cell import cell

        lacking = missing("plots")
        return cell(self._saved(), f"No figure without {' and '.join(lacking)}: {install('plots')}" if lacking else "")
