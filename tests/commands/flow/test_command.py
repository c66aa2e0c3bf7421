"""trajcheck flow: its folders, its dry run, its lines on the terminal, its options."""

from __future__ import annotations

from pathlib import Path

import pytest
from known_flows import SADDLE, Cli, quadratic
from run_files import describe_optimizer

import trajcheck
from trajcheck.commands.flow.options import FlowOptions


def test_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    """reports/flow/<run>; the report of an analysis is never overwritten."""
    run, objective, _, _ = quadratic(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert cli("flow", "run", "--objective", objective, "--quiet").code == 0
    assert sorted(path.name for path in Path("reports/flow/run").iterdir()) == [
        "flow.csv",
        "summary.json",
        "undefined.csv",
    ]
    assert cli("analyze", "run", "--quiet").code == 0
    refused = cli("flow", "run", "--objective", objective, "--out", "reports/run", "--quiet")
    assert refused.code == 5 and "another run" in refused.err
    assert cli("analyze", "run", "--out", "reports/flow/run", "--quiet").code == 5
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    inside = cli("flow", "run", "--objective", objective, "--out", "run/report", "--quiet")
    assert inside.code == 5 and before == {path.name: path.read_bytes() for path in run.iterdir()}


def test_dry_run_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    quadratic(tmp_path)
    monkeypatch.chdir(tmp_path)
    outcome = cli("flow", "run", "--objective", "missing.py:x", "--curvature", "10", "--dry-run")
    assert outcome.code == 0 and not Path("reports").exists()
    assert "41 recorded" in outcome.out and "100,000 gradients at most" in outcome.out and "5 Hessians" in outcome.out
    assert "125 to\n" in outcome.out and "2,500 products" in outcome.out
    assert all(len(line) <= 80 for line in outcome.out.splitlines())
    assert cli("flow", "run", "--objective", "missing.py:x", "--from", "step:99", "--dry-run").code == 3


def test_the_terminal_fits_80_columns(tmp_path: Path, cli: Cli) -> None:
    run, objective, _, _ = quadratic(tmp_path, SADDLE, eta=0.03, count=300)
    describe_optimizer(run, "Adam")
    arguments = ("flow", run, "--objective", objective, "--curvature", 7, "--wanted-distance", 0.01)
    outcome = cli(*arguments, "--out", tmp_path / "report")
    assert outcome.code == 0
    lines = [line for line in outcome.out.splitlines() if str(tmp_path) not in line]
    assert all(len(line) <= 80 for line in lines) and any("bound" in line for line in lines), outcome.out
    assert "wanted" in outcome.out and "warning" in outcome.out
    assert cli(*arguments, "--out", tmp_path / "report", "--quiet").out == ""


def test_the_function_stays_one_when_its_modules_are_imported() -> None:
    import trajcheck.cli.flow
    import trajcheck.commands.flow.command
    import trajcheck.metrics.formulas.other_tables.flow
    import trajcheck.reports.terminal.flow

    assert callable(trajcheck.flow) and trajcheck.flow is trajcheck.commands.flow.command.flow
    assert not (Path(trajcheck.__file__).parent / "flow.py").exists()


def test_option_defaults_agree() -> None:
    """Those of the function, the options and the command line."""
    import inspect

    from trajcheck.cli.flow import flow_command

    options = FlowOptions("x.py:f")
    for function in (trajcheck.flow, flow_command):
        for name, parameter in inspect.signature(function).parameters.items():
            if name in options.__dataclass_fields__ and name != "objective":
                assert (parameter.default or ()) == (getattr(options, name) or ()), (function, name)
