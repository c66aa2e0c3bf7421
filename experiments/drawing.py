"""The figures of README.md: those of `trajcheck report`, from saved reports of which only some rows are shown."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

import trajcheck
from experiments.recipe import Figure

#: The most colours of a kept picture, a third of whose bytes are enough for lines.
COLOURS = 64


def draw_figure(figure: Figure, reports: Sequence[Path], out: Path) -> None:
    """Draw these reports in groups, or the first of them, into `out`/figures, as `trajcheck report` does. Nothing where
    the extra `plots` is missing."""
    if out.exists():
        shutil.rmtree(out)
    shown = [restricted(figure, report, out / "of") for report in (reports if figure.by else reports[:1])]
    by = [f"user.{field}" for field in figure.by]
    to = out / "drawn"
    try:
        if figure.by and len(shown) > 1:
            trajcheck.draw_together(shown, to, ref=figure.ref, formats=["png"], group_by=by, over="fraction")
        else:
            trajcheck.draw_report(shown[0], formats=["png"], figures=[figure.picture], out=to)
    except ModuleNotFoundError:
        return


def keep_picture(path: Path, to: Path) -> None:
    """Put a picture there, in few colours."""
    from PIL import Image

    with Image.open(path) as picture:
        picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(to, optimize=True)


def restricted(figure: Figure, report: Path, folder: Path) -> Path:
    """A copy of a report, with the rows and columns that the figure shows."""
    to = folder / report.name
    to.mkdir(parents=True)
    shutil.copyfile(report / "summary.json", to / "summary.json")
    for path in report.glob("*.csv"):
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
        if path.name in ("steps.csv", "references.csv"):
            rows = rows[rows["sample"].isin(figure.samples)]
        if path.name == "references.csv":
            rows = rows[rows["ref"] == figure.ref]
        rows.drop(columns=[column for column in figure.without if column in rows]).to_csv(to / path.name, index=False)
    return to
