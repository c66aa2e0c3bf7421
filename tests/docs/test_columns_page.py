"""docs/columns.md has the tables that the declarations of the columns make, and explains whatever a report holds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from documents import DOCS, code_words
from places import ROOT, SAMPLES

import trajcheck

PAGE = DOCS / "columns.md"
EXPLAINED = set(code_words(PAGE.read_text()))


def test_the_tables_are_those_of_the_declarations(tmp_path: Path) -> None:
    """`python docs/columns.py` changes nothing."""
    script, page = tmp_path / "columns.py", tmp_path / "columns.md"
    script.write_bytes((DOCS / "columns.py").read_bytes())
    page.write_bytes(PAGE.read_bytes())
    subprocess.run([sys.executable, str(script)], check=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT)})
    assert page.read_text() == PAGE.read_text(), "python docs/columns.py writes the tables anew"


def test_every_file_and_column_of_a_report_is_explained(tmp_path: Path) -> None:
    """Of one with all that it can hold."""
    report = trajcheck.analyze(
        SAMPLES / "digits-sgd-seed0", ["final", "init"], steps=":9", layers=True, pca=3, out=tmp_path / "report"
    )
    files = {path.name for path in report.folder.iterdir()}
    assert {name for name in files if not name.startswith(".")} <= EXPLAINED | {"scalars"}
    tables = (report.steps, report.references, report.assumptions, report.undefined, report.layers, report.trajectory)
    assert {str(name) for table in tables if table is not None for name in table} <= EXPLAINED
    assert set(report.summary) <= EXPLAINED
