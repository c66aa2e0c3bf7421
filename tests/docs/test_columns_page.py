"""docs/columns.md explains every column that a report can have."""

from __future__ import annotations

import re
from pathlib import Path

from documents import DOCS, code_words
from places import SAMPLES

import trajcheck
from trajcheck.metrics.families import FAMILIES
from trajcheck.metrics.flow import FLOW_COLUMNS, FLOW_CURVATURE

EXPLAINED = set(code_words((DOCS / "columns.md").read_text()))


def test_every_column_is_explained() -> None:
    names = {name for family in FAMILIES.values() for name in (*family.step_columns, *family.reference_columns)}
    names |= {name for name in (*FLOW_COLUMNS, *FLOW_CURVATURE) if not name.endswith("_residual")}
    sums = {f"{name}_sum" for name in ("update_corr", "descent", "loss_change")}
    assert names <= EXPLAINED | sums


def test_every_column_of_a_comparison_is_explained(tmp_path: Path) -> None:
    runs = [SAMPLES / f"digits-sgd-seed{seed}" for seed in (0, 1)]
    objective = f"{SAMPLES / 'objectives.py'}:digits"
    found = trajcheck.compare(*runs, align="time", objective=objective, steps="0:3", out=tmp_path / "report").pairs
    explained = EXPLAINED | {f"{name[:-2]}_b" for name in EXPLAINED if name.endswith("_a")}
    assert {name for name in found if not re.fullmatch(r"line_0\.[2-9]", str(name))} <= explained


def test_every_file_and_column_of_a_report_is_explained(tmp_path: Path) -> None:
    """Of one with all that it can hold."""
    report = trajcheck.analyze(
        SAMPLES / "digits-sgd-seed0", ["final", "init"], steps=":9", layers=True, pca=3, out=tmp_path / "report"
    )
    files = {path.name for path in report.folder.iterdir()}
    assert {name for name in files if not name.startswith(".")} <= EXPLAINED | {"scalars"}
    tables = (report.steps, report.references, report.undefined, report.layers, report.trajectory)
    names = {str(name) for table in tables if table is not None for name in table}
    sums = {f"{name}_sum" for name in ("update_corr", "descent", "loss_change")}
    assert names <= EXPLAINED | sums
    assert set(report.summary) <= EXPLAINED
