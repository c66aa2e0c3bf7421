"""trajcheck/reports/making/folder.py where other processes make reports beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trajcheck.errors import OutputError
from trajcheck.reports.making.folder import ReportFolder


def beforehand(monkeypatch: pytest.MonkeyPatch, path: Path, *, file: bool = False) -> None:
    """Another process makes `path` between the look whether it is there and its making."""
    mkdir = Path.mkdir

    def late(folder: Path, *arguments: Any, **options: Any) -> None:
        if folder == path and not path.exists():
            path.write_text("") if file else mkdir(path)
        mkdir(folder, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", late)


def test_a_folder_that_another_process_makes_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As two workers of a batch do whose reports lie in one folder, which is not there yet."""
    beforehand(monkeypatch, tmp_path / "reports")
    with ReportFolder(tmp_path / "reports" / "run", "id") as folder:
        folder.publish({"steps.csv": "step\n"})
    assert (tmp_path / "reports" / "run" / "steps.csv").read_text() == "step\n"


def test_a_folder_of_another_process_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beforehand(monkeypatch, tmp_path / "reports")
    with ReportFolder(tmp_path / "reports" / "run", "id"):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["reports"]


def test_a_file_in_its_place_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beforehand(monkeypatch, tmp_path / "reports", file=True)
    with pytest.raises(OutputError, match="cannot be written"), ReportFolder(tmp_path / "reports" / "run", "id"):
        pass
