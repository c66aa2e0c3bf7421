"""trajcheck compare on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from two_runs import Cli, network, network_objective, network_records, written


def test_the_command(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ("a-folder-of-a-long-name" * 3)
    a, b, c = (written(folder, name, network_records(seed)) for name, seed in (("a", 1), ("b", 2), ("c", 3)))
    monkeypatch.chdir(tmp_path)
    objective = network_objective(tmp_path)
    outcome = cli("compare", a, b, c, "--objective", objective, "--line", 2, "--layers", "--align", "time")
    assert outcome.code == 0, outcome
    assert all(len(line) <= 80 or str(tmp_path) in line for line in outcome.out.splitlines())
    rows = [line for line in outcome.out.splitlines() if line.startswith("...")]
    assert len(rows) == 2 and all("other" in row for row in rows)
    folder = tmp_path / "reports" / "compare" / "a--b--c"
    for name in ("compare.csv", "layers.csv", "undefined.csv", "summary.json"):
        assert (folder / name).exists() and f"reports/compare/a--b--c/{name}" in outcome.out
    summary = json.loads((folder / "summary.json").read_text())
    head = summary["headline"][str(b)]
    frame = pd.read_csv(folder / "compare.csv")
    of_b = frame[frame["run_b"] == str(b)]
    assert head["max_barrier"] == of_b["barrier"].max() and head["dist"] == of_b["dist"].iloc[-1]
    assert head["max_barrier_step_a"] == of_b["step_a"].to_numpy()[np.nanargmax(of_b["barrier"])]
    assert summary["options"]["align"] == "time" and summary["versions"]["torch"]
    assert cli("compare", a, b, "--quiet", "--out", tmp_path / "quiet").out == ""


def test_the_command_refuses(tmp_path: Path, cli: Cli) -> None:
    run = written(tmp_path, "a", network(3), None)
    assert cli("compare", run).code == 2
    assert cli("compare", run, run, "--interpolate").code == 2
    missing = cli("compare", run, tmp_path / "nothing")
    assert missing.code == 3 and "no such run" in missing.err
