"""trajcheck/reports/making: tables and a summary become the files of a report, and frames."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trajcheck.metrics.columns import Column, column
from trajcheck.reports.making.csv_table import CsvTable
from trajcheck.reports.making.folder import ReportFolder
from trajcheck.reports.making.publishing import empty_columns, publish, summary_of


@dataclass(frozen=True)
class Asked:
    much: tuple[str, ...] = ("a", "b")


def summary() -> dict[str, Any]:
    return summary_of(
        about={"run": {"id": "r"}},
        found={"headline": {}},
        warnings=["careful"],
        incomplete=[],
        left_out={},
        empty=[],
        options=Asked(),
        replayed=False,
        computed={"replay": None},
    )


def pairs() -> CsvTable:
    table = CsvTable("pairs", [0, 1, 5, 6], late="sample", after=("time", "weight", "nowhere"))
    first, second = column([1.5, None], ["", "too early"]), column([None, None], "never")
    for run, steps in (("b", [0, 5]), ("c", [1, 6])):
        keys = {"run_a": "a", "run_b": run, "step_a": steps, "sample": "own"}
        table.add(keys, {"weight": column([1, 2], ""), "value": first, "other": second})
    return table


def test_keys_stand_where_they_belong_and_empty_columns_nowhere() -> None:
    frame = pairs().frame()
    assert list(frame) == ["run_a", "run_b", "step_a", "weight", "sample", "value"]
    assert frame["step_a"].tolist() == [0, 5, 1, 6] and frame["run_b"].tolist() == ["b", "b", "c", "c"]
    assert frame["weight"].dtype == "Int64" and frame["value"].notna().tolist() == [True, False, True, False]


def test_what_is_published(tmp_path: Path) -> None:
    with ReportFolder(tmp_path / "new", "r") as folder:
        frames = publish(folder, {"pairs": pairs()}, summary())
    out = tmp_path / "new"
    assert {path.name for path in out.iterdir()} == {"pairs.csv", "undefined.csv", "summary.json"}
    assert (out / "pairs.csv").read_text().splitlines()[1] == "a,b,0,1,own,1.5"
    reasons = frames["undefined"][["column", "ref", "sample", "steps", "reason"]].to_numpy().tolist()
    assert ["value", "b", "own", "5", "too early"] in reasons and ["other", "c", "own", "1, 6", "never"] in reasons
    written = json.loads((out / "summary.json").read_text())
    assert list(written)[:4] == ["format", "definitions", "run", "headline"] and list(written)[-1] == "created"
    assert written["options"] == {"much": ["a", "b"]} and "torch" not in written["versions"]


def test_a_table_of_an_earlier_call_is_removed_where_this_one_has_none(tmp_path: Path) -> None:
    with ReportFolder(tmp_path / "report", "r") as folder:
        publish(folder, {"pairs": pairs(), "layers": pairs()}, summary(), optional=("layers",))
    with ReportFolder(tmp_path / "report", "r") as folder:
        publish(folder, {"pairs": pairs()}, summary())
        assert (folder.path / "layers.csv").exists()
        publish(folder, {"pairs": pairs()}, summary(), optional=("layers",))
        assert not (folder.path / "layers.csv").exists()


def test_columns_are_empty_that_no_table_fills() -> None:
    full, none = column([1.0], ""), column([None], "no")
    tables: list[dict[str, Column]] = [{"a": full, "b": none}, {"a": none, "b": none, "c": none}]
    assert empty_columns(tables) == ["b", "c"]
