"""Figures and a page of several saved reports together: drawn from their tables and summaries, without the runs."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from trajcheck.commands.report.one_report import DEFAULT_FORMATS, FIGURES, FORMATS, PAGE, DrawnReport, check_drawable
from trajcheck.errors import BadInputError, UsageError
from trajcheck.reports.making.folder import SUMMARY, ReportFolder
from trajcheck.version import __version__

#: In the place of a run's id: the folder is replaced by another call of this kind, and holds no run's report.
OWNER = "several-runs"


def draw_together(
    reports: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    ref: str | None = None,
    formats: Sequence[str] = DEFAULT_FORMATS,
    *,
    group_by: Sequence[str] = (),
    over: str = "step",
    notes: Sequence[str] = (),
) -> DrawnReport:
    """Draw the reports of several runs, as `analyze` wrote them, in common figures with a page, into the folder `out`,
    which is new, empty, or of an earlier such call; no checkpoint is opened.

    `ref` is one of their references, as it was given; by default final. The first 7 runs are drawn, in the order given;
    with `group_by`, fields of the runs such as user.optimizer, all of them, as means and spreads over those that agree
    in these fields, `over` step, tau or fraction, t/T. `notes` join the page's list of what was left out. Needs the
    extra `plots`. Raises BadInputError where a folder holds no report, UsageError, OutputError.
    """
    if len(reports) < 2:
        raise UsageError(f"{len(reports)} reports: figures of several runs need two or more.")
    check_drawable(formats)
    from trajcheck.reports.figures.catalogue import PICTURES
    from trajcheck.reports.figures.render import draw
    from trajcheck.reports.page.of_several import document
    from trajcheck.reports.reading.groups import grouped
    from trajcheck.reports.reading.several_reports import read_together

    together = read_together([Path(report) for report in reports], ref)
    if group_by:
        together = grouped(together, group_by, over)
    with ReportFolder(Path(out), OWNER) as folder:  # is it to be had?
        try:
            drawn = draw(together, tuple(dict.fromkeys(("png", *formats))))
            page = document(together, drawn, Path(out), notes)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
            raise BadInputError(
                f"{', '.join(map(str, reports))}: cannot be drawn together: a summary or a table is not as trajcheck "
                f"writes it ({error!r:.200}). Make the reports anew; where they are new, this is a bug."
            ) from error
        about = {
            "format": 1,
            "run": {"id": OWNER},
            "reports": {label: str(each.folder) for label, each in zip(together.labels, together.reports, strict=True)},
            "ref": together.ref,
            "group_by": list(group_by),
            "over": over if group_by else None,
            "differences": together.differences,
            "left_out": drawn.left_out,
            "versions": {"trajcheck": __version__},
        }
        files: dict[str, str | bytes] = {SUMMARY: json.dumps(about, indent=1) + "\n"}
        figures = {
            f"{FIGURES}/{name}.{form}": content
            for name, contents in drawn.files.items()
            for form, content in contents.items()
            if form in formats
        }
        files |= {**figures, PAGE: page}
        kinds = (*PICTURES["together"], *PICTURES["grouped"])  # of an earlier call too
        every = {f"{FIGURES}/{each.name}.{form}" for each in kinds for form in FORMATS}
        folder.publish(files, outdated=sorted(every - set(files)))
    return DrawnReport(folder.path / PAGE, [folder.path / name for name in figures], drawn.left_out)
