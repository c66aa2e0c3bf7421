"""README.md: its commands run, its outputs and its Python are true, its table names every column."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from documents import fenced
from loops import recorded_steps
from places import ROOT
from plain_run_files import Outcome

import trajcheck
from trajcheck.commands.report.one_report import can_draw
from trajcheck.metrics.families import FAMILIES
from trajcheck.metrics.flow import FLOW_COLUMNS, FLOW_CURVATURE

README = (ROOT / "README.md").read_text()
NUMBER = re.compile(r"(?<![\w.-])-?\d[\d,]*\.?\d*(?:e-?\d+)?")


@pytest.fixture
def beside_the_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "sample_checkpoints").symlink_to(ROOT / "sample_checkpoints")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def same_but_for_rounding(shown: str, got: str) -> None:
    """The words are equal; numbers agree to the last digit shown, give or take what another processor rounds."""
    assert NUMBER.sub("#", shown).split() == NUMBER.sub("#", got).split()
    for a, b in zip(NUMBER.findall(shown), NUMBER.findall(got), strict=True):
        x, y = float(a.replace(",", "")), float(b.replace(",", ""))
        assert x == pytest.approx(y, rel=0.02, abs=1.01 if "." not in a else 0), (a, b)


def test_the_sample_outputs_are_what_the_commands_print(cli: Callable[..., Outcome], beside_the_samples: Path) -> None:
    sessions = fenced("console")
    assert sessions
    for session in sessions:
        command, _, shown = session.removeprefix("$ trajcheck ").partition("\n")
        if command.startswith("report ") and not can_draw():
            continue
        outcome = cli(*command.split())
        assert outcome.code == 0, outcome
        same_but_for_rounding(shown, outcome.out)
        assert all(len(line) <= 80 for line in outcome.out.splitlines())


@pytest.mark.skipif(not can_draw(), reason="needs the extra `plots`")
def test_the_picture_is_what_the_code_draws(cli: Callable[..., Outcome], beside_the_samples: Path) -> None:
    """Of the same shape, and alike where the eye would look; fonts and antialiasing may differ."""
    command = "analyze sample_checkpoints/digits-sgd-seed0 --objective run --sample own --sample probe --out report"
    assert cli(*command.split(), "--quiet").code == 0
    assert command.removesuffix(" --out report") in (ROOT / "sample_checkpoints" / "README.md").read_text()
    assert "](sample_checkpoints/digits-cosine.png)" in README
    shown = ROOT / "sample_checkpoints" / "digits-cosine.png"
    drawn = {path.stem: path for path in trajcheck.draw_report("report", ["png"]).figures}
    assert unlike(shown, drawn["cosine"]) < 0.02
    assert all(unlike(shown, path) > 0.04 for name, path in drawn.items() if name != "cosine")


def unlike(one: Path, other: Path) -> float:
    """The mean difference of two pictures in grey, coarsely, from 0 to 1; 1 where they differ in shape."""
    from PIL import Image

    with Image.open(one) as a, Image.open(other) as b:
        if abs(a.width / a.height / (b.width / b.height) - 1) > 0.03:
            return 1.0
        coarse = [np.asarray(each.convert("L").resize((144, 102), Image.Resampling.BOX), float) for each in (a, b)]
    return float(np.abs(coarse[0] - coarse[1]).mean() / 255)


def test_the_first_command_is_the_one_shown() -> None:
    install, command = fenced("sh")[0].strip().split(" && ")
    assert install == "pip install ."
    assert fenced("console")[0].startswith(f"$ {command}\n")


def frameworks(code: str) -> set[str]:
    return {name for name in ("transformers", "lightning") if f"import {name}" in code or f"from {name}" in code}


def test_the_python_runs_and_its_run_can_be_analyzed(
    cli: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for code in fenced("python"):
        if not frameworks(code):
            exec(compile(code, "README.md", "exec"), {})
    assert recorded_steps(tmp_path / "runs" / "any") == [0, 4, 8, 12, 16, 20]
    assert "`trajcheck analyze runs/first --objective run`" in README
    assert cli("analyze", "runs/first", "--objective", "run", "--quiet").code == 0
    assert (tmp_path / "reports" / "runs" / "first" / "steps.csv").exists()


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set", "ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*`isinstance.treespec, LeafSpec.` is deprecated")
@pytest.mark.parametrize(("framework", "run"), [("transformers", "gpt2"), ("lightning", "regression")])
def test_the_recipes_for_frameworks_run(
    framework: str, run: str, cli: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(framework)
    monkeypatch.chdir(tmp_path)
    blocks = [code for code in fenced("python") if frameworks(code) == {framework}]
    exec(compile(blocks[0], "README.md", "exec"), {"__name__": "readme"})
    assert recorded_steps(tmp_path / "runs" / run)[:2] == [0, 4]
    arguments = ["analyze", f"runs/{run}", "--quiet"]
    for code in blocks[1:]:
        (tmp_path / "objective.py").write_text(code)
        arguments += ["--objective", f"objective.py:{run}"]
    assert cli(*arguments).code == 0


def test_every_column_of_a_comparison_is_explained(beside_the_samples: Path) -> None:
    runs = [f"sample_checkpoints/digits-sgd-seed{seed}" for seed in (0, 1)]
    objective = "sample_checkpoints/objectives.py:digits"
    found = trajcheck.compare(*runs, align="time", objective=objective, steps="0:3", out="report").pairs
    explained = set(re.findall(r"`([a-z_0-9.]+)`", README))
    explained |= {f"{name[:-2]}_b" for name in explained if name.endswith("_a")}
    assert {name for name in found if not re.fullmatch(r"line_0\.[2-9]", str(name))} <= explained


def test_every_column_is_explained() -> None:
    names = {name for family in FAMILIES.values() for name in (*family.step_columns, *family.reference_columns)}
    names |= {name for name in (*FLOW_COLUMNS, *FLOW_CURVATURE) if not name.endswith("_residual")}
    explained = set(re.findall(r"`([a-z_]+)`", README))
    explained |= {f"{name}_sum" for name in ("update_corr", "descent", "loss_change")}
    assert names <= explained
