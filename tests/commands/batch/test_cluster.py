"""A batch on a cluster: who makes the reports, and what comes of a machine that does not see their folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from archives import tables, write_archive

import trajcheck
from trajcheck import batch
from trajcheck.commands.batch.tasks import CHUNK, REPORT, REPORT_IF_SEEN
from trajcheck.runners.local import LocalRunner

NAMES = ("a", "b/c")


@pytest.mark.parametrize("seen", [True, False])
def test_the_machines_make_the_reports_where_they_see_the_folder(
    seen: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = write_archive(tmp_path / "archive", NAMES)
    batch([archive], tmp_path / "here", trajcheck.BatchConfig(plots=False))
    asked: list[str] = []

    class Elsewhere(LocalRunner):
        def map(self, function: str, tasks: Any) -> Any:
            asked.append(function)
            there = tmp_path / "another file system"
            return super().map(function, tasks if seen else [{**task, "reports": str(there)} for task in tasks])

    monkeypatch.setattr("trajcheck.commands.batch.command.make_runner", lambda *_, **__: Elsewhere())
    monkeypatch.chdir(tmp_path)
    result = batch([archive], "there", trajcheck.BatchConfig(plots=False, runner="ray"))
    assert result.analyzed == {"done": 2}
    assert asked == ([REPORT_IF_SEEN] if seen else [REPORT_IF_SEEN, CHUNK]) and REPORT not in asked
    for name in NAMES:
        assert tables(tmp_path / "there/archive" / name) == tables(tmp_path / "here/archive" / name)
    assert batch([archive], "there", trajcheck.BatchConfig(plots=False, runner="ray")).unchanged == 2
