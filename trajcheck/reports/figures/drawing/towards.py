"""Columns towards every reference on every sample: a colour a reference, a line style a sample."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from trajcheck.reports.figures.drawing.axes import line
from trajcheck.reports.figures.drawing.legends import entry, not_drawn
from trajcheck.reports.figures.drawing.ratio_panel import sample_entries
from trajcheck.reports.figures.drawing.style import COLOURS, DASHES, short, told_apart
from trajcheck.reports.reading.report import SavedReport, Series


@dataclass(frozen=True)
class ReferenceLines:
    """The lines of references.csv that one figure shows: `references` are those that it tells apart, of `of` that the
    report has; `lines` are the columns that have a value, by column, reference (its place) and sample."""

    references: Sequence[str]
    of: int
    lines: dict[tuple[str, int, str], Series]

    def of_column(self, column: str) -> dict[tuple[int, str], Series]:
        """The lines of one column, by reference and sample."""
        return {key[1:]: series for key, series in self.lines.items() if key[0] == column}

    def draw(self, ax: Axes, column: str, **more: float) -> None:
        """One column's lines."""
        for (number, sample), series in self.of_column(column).items():
            line(ax, series, COLOURS[number], DASHES[sample], **more)

    def entries(self, words: str = "towards", length: int = 30) -> list[Line2D | Patch]:
        """Entries of a legend for the references that have a line."""
        shown = dict.fromkeys(number for _, number, _ in self.lines)
        return [entry(f"{words} {short(self.references[number], length)}", COLOURS[number]) for number in shown]

    @property
    def sample_entries(self) -> list[Line2D | Patch]:
        """Entries for the samples that have a line, where there are several."""
        return sample_entries(list(dict.fromkeys(sample for *_, sample in self.lines)))

    @property
    def not_drawn(self) -> list[Line2D | Patch]:
        """An entry that says how many references found no colour, if any did not."""
        return not_drawn(len(self.references), self.of)


def towards_references(
    report: SavedReport, columns: Iterable[str], samples: Sequence[str] | None = None
) -> ReferenceLines:
    """Those columns towards each reference that a figure can tell apart, on each sample of the report, or on
    `samples`."""
    references = told_apart(report.references)
    every = {
        (column, number, sample): report.series("references", column, ref=reference, sample=sample)
        for column in columns
        for number, reference in enumerate(references)
        for sample in (report.samples if samples is None else samples)
    }
    return ReferenceLines(references, len(report.references), {key: series for key, series in every.items() if series})
