"""trajcheck/commands/batch/discovery.py: which folders are runs, and where their reports go."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
from archives import write_archive, write_walk

from trajcheck.commands.batch.discovery import find_runs
from trajcheck.errors import RunError
from trajcheck.runs.formats.native.run import NativeRun

NAMES = ("a", "gpt2/one", "gpt2/two", "gpt2/deep/three")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "archive", NAMES)


def names(archive: Path, out: Path, **patterns: tuple[str, ...]) -> list[str]:
    return [run.name for run in find_runs([archive], out, **patterns)]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ({}, ["a", "gpt2/deep/three", "gpt2/one", "gpt2/two"]),
        ({"include": ("gpt2/*",)}, ["gpt2/deep/three", "gpt2/one", "gpt2/two"]),
        ({"include": ("gpt2/t*", "a")}, ["a", "gpt2/two"]),
        ({"exclude": ("*/one", "*three")}, ["a", "gpt2/two"]),
        ({"include": ("gpt2/*",), "exclude": ("*/t*",)}, ["gpt2/one"]),
        ({"include": ("GPT2/*",)}, []),
    ],
)
def test_patterns(archive: Path, tmp_path: Path, patterns: dict[str, tuple[str, ...]], expected: list[str]) -> None:
    assert names(archive, tmp_path / "out", **patterns) == expected


def test_runs_are_not_looked_into_and_links_not_followed(archive: Path, tmp_path: Path) -> None:
    write_walk(archive / "a/inner")
    outside = write_walk(tmp_path / "outside")
    (archive / "link").symlink_to(outside)
    (archive / "loop").symlink_to(archive)
    assert names(archive, tmp_path / "out") == ["a", "gpt2/deep/three", "gpt2/one", "gpt2/two"]


def test_a_run_itself_is_an_archive(archive: Path, tmp_path: Path) -> None:
    (run,) = find_runs([archive / "a"], tmp_path / "out")
    assert (run.name, run.report, run.path) == ("a", Path("a"), archive / "a")


def test_archives_of_the_same_name_and_archives_within_archives(archive: Path, tmp_path: Path) -> None:
    other = write_archive(tmp_path / "other/archive", ("a",))
    found = find_runs([archive, other, archive, archive / "gpt2"], tmp_path / "out")
    assert len(found) == 5 and len({run.report for run in found}) == 5
    assert {run.report.parts[0].split("-")[0] for run in found} == {"archive"}
    again = find_runs([other, archive], tmp_path / "out")
    assert {run.report for run in again} == {run.report for run in found}


def test_reports_are_not_looked_at(archive: Path) -> None:
    write_walk(archive / "reports/not-a-run")
    assert "reports/not-a-run" in names(archive, archive / "elsewhere")
    assert "reports/not-a-run" not in names(archive, archive / "reports")


def test_a_folder_that_vanishes_or_cannot_be_read_is_left_out_with_a_word(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recognise = NativeRun.recognise

    def vanishing(folder: Path) -> bool:
        if folder.name == "one":
            shutil.rmtree(folder)
        return recognise(folder)

    monkeypatch.setattr(NativeRun, "recognise", vanishing)
    with caplog.at_level(logging.WARNING, "trajcheck.batch"):
        assert names(archive, tmp_path / "out") == ["a", "gpt2/deep/three", "gpt2/two"]
    assert str(archive / "gpt2/one") in caplog.text


def test_no_such_archive(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such folder"):
        find_runs([tmp_path / "nowhere"], tmp_path / "out")
