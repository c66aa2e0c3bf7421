"""Figures of groups of runs: means and spreads over those that agree in a field, over step, time or t/T."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("plotly")

from plain_run_files import Outcome
from saved_reports import analysis

import trajcheck
from trajcheck.errors import UsageError
from trajcheck.reports.figures.catalogue import PICTURES
from trajcheck.reports.figures.drawing.ratio_panel import ratios_of_several
from trajcheck.reports.figures.picture import NothingToDraw
from trajcheck.reports.figures.render import draw
from trajcheck.reports.reading.groups import Grouped, grouped
from trajcheck.reports.reading.several_reports import read_together

Cli = Callable[..., Outcome]
NAMES = [each.name for each in PICTURES["grouped"]]


def report(folder: Path, name: str, rows: int = 40, **more: Any) -> Path:
    user = more.pop("user", {})
    run = {"path": f"/runs/{name}", "id": name, "optimizer": "SGD", "last_step": rows - 1, "user": user}
    return analysis(folder / name, rows=rows, run=run, **more)


def of_groups(folders: list[Path], *fields: str, over: str = "step") -> Grouped:
    return grouped(read_together(folders), fields or ("group",), over)


def test_means_and_spreads_over_the_runs_of_a_group(tmp_path: Path) -> None:
    stream = np.random.default_rng(0)
    values = {name: stream.normal(size=40) for name in ("g/s0", "g/s1", "g/s2", "h/s0")}
    folders = [report(tmp_path, name, change={"loss": each}) for name, each in values.items()]
    both = of_groups(folders)
    assert [(group.label, group.places) for group in both.groups] == [("g", (0, 1, 2)), ("h", (3,))]
    curves = both.curves("steps", "loss", "own")
    mine = np.array([values[name] for name in ("g/s0", "g/s1", "g/s2")])
    np.testing.assert_array_equal(curves[0].x, np.arange(40))
    np.testing.assert_allclose(curves[0].mean, mine.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(curves[0].spread, mine.std(axis=0, ddof=1), rtol=1e-12)
    assert (curves[0].runs, curves[0].of, curves[1].runs) == (3, 3, 1)
    assert np.isnan(curves[1].spread).all()
    np.testing.assert_allclose(curves[1].mean, values["h/s0"], rtol=1e-12)


def test_over_time_and_over_the_share_of_the_run(tmp_path: Path) -> None:
    folders = [report(tmp_path, f"g/s{n}", rows=rows, change={"loss": 1.0 * n}) for n, rows in enumerate((20, 40))]
    by_tau = of_groups(folders, over="tau").curves("steps", "loss", "own")[0]
    assert by_tau.x.max() <= 1.9 + 1e-12 and np.isfinite(by_tau.mean).all()  # up to the end of the shorter run
    share = of_groups(folders, over="fraction").curves("steps", "loss", "own")[0]
    assert share.x.min() >= 0 and share.x.max() <= 1
    np.testing.assert_allclose(share.mean, 0.5)
    np.testing.assert_allclose(share.spread, 0.5**0.5)


def test_many_rows_are_means_over_stretches(tmp_path: Path) -> None:
    stream = np.random.default_rng(1)
    values = [stream.normal(size=400) for _ in range(2)]
    folders = [report(tmp_path, f"g/s{n}", rows=400, change={"loss": each}) for n, each in enumerate(values)]
    curve = of_groups(folders).curves("steps", "loss", "own")[0]
    stretches = np.array([each.reshape(40, 10).mean(axis=1) for each in values])
    np.testing.assert_allclose(curve.mean, stretches.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(curve.spread, stretches.std(axis=0, ddof=1), rtol=1e-9)


def test_a_line_stops_where_a_run_has_no_value_and_counts_those_that_have_none(tmp_path: Path) -> None:
    ending = np.where(np.arange(40) < 30, 1.0, np.nan)
    changes: list[Any] = [1.0, ending, np.nan]
    folders = [report(tmp_path, f"g/s{n}", change={"loss": each}) for n, each in enumerate(changes)]
    curve = of_groups(folders).curves("steps", "loss", "own")[0]
    assert (curve.runs, curve.of) == (2, 3)
    np.testing.assert_array_equal(np.isfinite(curve.mean), np.arange(40) < 30)


def test_every_figure_is_drawn_or_says_why_not(tmp_path: Path) -> None:
    folders = [
        report(tmp_path, f"{group}/s{n}", samples=("own", "probe"), user={"lr": n}) for group in "gh" for n in (0, 1)
    ]
    assert [each.name for each in draw(of_groups(folders), ("svg",)).pictures] == NAMES
    few = of_groups(folders, "user.lr", "group")
    assert [group.label for group in few.groups] == ["lr 0, g", "lr 1, g", "lr 0, h", "lr 1, h"]
    nothing = {name: np.nan for name in ("loss", "cos", "cos_skip", "convexity_ratio", "avg_smooth", "lambda_max")}
    empty = [
        report(tmp_path / "empty", f"g/s{n}", change={**nothing, "init_dist": np.nan, "ref_dist": np.nan})
        for n in (0, 1)
    ]
    assert len(draw(of_groups(empty), ("svg",)).left_out) == len(NAMES)
    for folder in folders:
        pd.read_csv(folder / "steps.csv").assign(tau=np.nan).to_csv(folder / "steps.csv", index=False)
    with pytest.raises(NothingToDraw, match="tau is not known of g/s0"):
        PICTURES["grouped"][0].draw(of_groups(folders, over="tau"))


def test_the_command(cli: Cli, tmp_path: Path) -> None:
    folders = [report(tmp_path / "reports", f"{group}/s{n}") for group in "gh" for n in (0, 1)]
    out = tmp_path / "out"
    words = (
        "report",
        tmp_path / "reports",
        "--group-by",
        "group",
        "--over",
        "fraction",
        "--out",
        out,
        "--format",
        "svg",
    )
    done = cli(*words)
    assert done.code == 0 and [line.rpartition("/")[2] for line in done.out.splitlines()] == [
        *(f"{name}.svg" for name in NAMES),
        "report.html",
    ]
    about = json.loads((out / "summary.json").read_text())
    assert (about["group_by"], about["over"]) == (["group"], "fraction")
    page = (out / "report.html").read_text()
    assert "4 runs in 2 groups" in page and "group h" in page
    trajcheck.draw_together(folders, out, formats=["svg"])  # without groups: no figure of groups is left
    assert not (out / "figures" / "previous_ratio.svg").exists()
    for more, said in (
        (("--over", "tau"), "give --group-by too"),
        (("--group-by", "user.x", "--out", out), "'user.x': is no field of these runs"),
        (("--group-by", "group", "--over", "days", "--out", out), "--over 'days': expected one of step, tau, fraction"),
        (("--group-by", "group"), "--out is needed with 4 reports"),
    ):
        done = cli("report", *folders, *more)
        assert done.code == 2 and said in done.err, done


def test_a_run_counts_once(tmp_path: Path) -> None:
    folders = [report(tmp_path, name) for name in ("a", "b")]
    about = json.loads((folders[1] / "summary.json").read_text())
    about["run"]["id"] = "a"
    (folders[1] / "summary.json").write_text(json.dumps(about))
    with pytest.raises(UsageError, match="another report of the same run"):
        of_groups(folders)


def test_the_ratio_is_the_headlines_and_kinds_are_not_averaged(tmp_path: Path) -> None:
    """Runs whose ratio is without the steps' own terms, and those whose ratio holds them, have a panel each."""
    kinds = ["convexity_ratio_skip", "convexity_ratio", "convexity_ratio_skip", "convexity_ratio"]
    folders = []
    for n, kind in enumerate(kinds):
        folder = report(tmp_path, f"g{n // 3}/s{n}", change={"convexity_ratio": 2.0 + n, "convexity_den": 1.0})
        rows = pd.read_csv(folder / "references.csv").assign(convexity_ratio_skip=0.5 * n, convexity_den_skip=-1.0)
        rows.to_csv(folder / "references.csv", index=False)
        values = json.loads((folder / "summary.json").read_text())
        values["headline"]["references"]["final"]["convexity_of"] = kind
        (folder / "summary.json").write_text(json.dumps(values))
        folders.append(folder)
    together = read_together(folders)
    (one, free, den), (two, plain, _) = ratios_of_several(together)
    assert one == f"{two}, without the steps' own terms"
    assert {place: set(series.values) for place, series in free.items()} == {0: {0.0}, 2: {1.0}}
    assert {place: set(series.values) for place, series in plain.items()} == {1: {3.0}, 3: {5.0}}
    assert {value for series in den.values() for value in series.values} == {-1.0}
    of_each = of_groups(folders)
    means = [of_each.averaged(lines) for _, lines, _ in ratios_of_several(of_each)]
    assert [{n: (curve.mean[0], curve.runs) for n, curve in each.items()} for each in means] == [
        {0: (0.5, 2)},
        {0: (3.0, 1), 1: (5.0, 1)},
    ]
    (picture, several) = (
        next(each for each in PICTURES[kind] if each.name == "convexity_ratio") for kind in ("grouped", "together")
    )
    for figure in (picture.draw(of_each), several.draw(together)):
        titles = [ax.get_title(loc="left") or ax.get_title() for ax in figure.axes]
        assert [title.removesuffix(" (2 of 4 runs)") for title in titles] == [one, two]
