"""reports/trackers/tags.py: under which tags trackers get a report's numbers."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from saved_reports import analysis

from trajcheck.reports.reading.report import read_report
from trajcheck.reports.trackers.tags import tagged


def test_tags_hold_nothing_that_acts_on_a_terminal(tmp_path: Path) -> None:
    """References and columns of a report are anybody's words."""
    folder = analysis(tmp_path / "some", ["\x1b[2J\u202e"], rows=3)
    for name in ("steps", "references"):
        frame = pd.read_csv(folder / f"{name}.csv")
        frame.assign(**{"new\x1b]0;x\x07/b": 1.0}).to_csv(folder / f"{name}.csv", index=False)
    tags = {each.tag for each in tagged(read_report(folder))}
    assert tags and all(tag.isprintable() for tag in tags)
    assert "trajcheck/steps/own/new\\x1b]0;x\\x07.b" in tags
