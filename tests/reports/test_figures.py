"""trajcheck/reports/figures: drawn from columns alone, whatever the columns hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("matplotlib")

import matplotlib
from matplotlib.figure import Figure
from saved_reports import analysis

from trajcheck.reports.figures.catalogue import PICTURES
from trajcheck.reports.figures.drawing.axes import alone, halfway, line, scale
from trajcheck.reports.figures.drawing.ratio_panel import unresolved
from trajcheck.reports.figures.drawing.style import RC, short
from trajcheck.reports.figures.of_one_run.cosine import PICTURE as COSINE
from trajcheck.reports.figures.of_one_run.losses import PICTURE as LOSSES
from trajcheck.reports.figures.of_one_run.trajectory import PICTURE as TRAJECTORY
from trajcheck.reports.figures.picture import NothingToDraw
from trajcheck.reports.figures.render import draw
from trajcheck.reports.reading.report import Series, read_report


@pytest.fixture(autouse=True)
def styled() -> Iterator[None]:
    with matplotlib.rc_context(RC):
        yield


def names(folder: Path) -> list[str]:
    return [picture.name for picture in draw(read_report(folder), ("png",)).pictures]


ALL = [picture.name for picture in PICTURES["analysis"] if picture.name != "layers"]


def test_every_figure_is_drawn_from_full_columns(tmp_path: Path) -> None:
    drawn = draw(read_report(analysis(tmp_path / "r", ("final", "init"), samples=("own", "probe"))), ("png", "svg"))
    assert [picture.name for picture in drawn.pictures] == ALL
    assert drawn.left_out == {"Tensor by tensor": "tensor by tensor was not asked for: give --layers"}
    for contents in drawn.files.values():
        assert contents["png"].startswith(b"\x89PNG") and contents["svg"].startswith(b"<?xml")


def test_the_same_columns_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PICTURES, "analysis", (COSINE,))
    report = read_report(analysis(tmp_path / "r"))
    assert draw(report, ("png", "svg", "pdf")).files == draw(report, ("png", "svg", "pdf")).files


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(np.nan, id="empty"),
        pytest.param(0.0, id="zero"),
        pytest.param(-3.0, id="negative, of one row"),
        pytest.param(np.where(np.arange(40) % 2, np.nan, 1.0), id="every other row"),
        pytest.param(np.geomspace(1e-300, 1e300, 40), id="huge range"),
        pytest.param(np.geomspace(1e-300, 1e300, 40) * (-1.0) ** np.arange(40), id="huge range of both signs"),
        pytest.param(np.r_[np.full(39, np.nan), 1e-12], id="one value"),
    ],
)
def test_no_column_stops_a_figure(tmp_path: Path, values: Any, request: pytest.FixtureRequest) -> None:
    """Every column of the report is the same; nothing but an empty one leaves a figure out."""
    if np.any(np.asarray(values) < -1e200):  # room is made for the words of the widest axes
        request.getfixturevalue("whole_figures")
    from saved_reports import OF_ALLOCATION, OF_AVERAGES, OF_REFERENCES, OF_SCHEDULE, OF_STEPS, OF_TRAJECTORY

    every = {*OF_STEPS, *OF_REFERENCES, *OF_TRAJECTORY, *OF_ALLOCATION, *OF_AVERAGES, *OF_SCHEDULE}
    rows = 1 if np.ndim(values) == 0 and values < 0 else 40
    folder = analysis(tmp_path / "r", rows=rows, change={name: values for name in every})
    drawn = draw(read_report(folder), ("svg",))
    if np.isnan(values).all():
        assert not drawn.pictures and len(drawn.left_out) == len(PICTURES["analysis"])
    else:
        assert [picture.name for picture in drawn.pictures] == ALL


def test_reports_of_two_rows(tmp_path: Path) -> None:
    assert names(analysis(tmp_path / "r", rows=2)) == ALL


@pytest.mark.usefixtures("whole_figures")
def test_names_are_only_names(tmp_path: Path) -> None:
    odd = ["$x^{", "_hidden", "a\nb", "中文 🚀", "\udcff\\alpha$_$", "x" * 300, "</svg>", "final", "init"]
    assert names(analysis(tmp_path / "r", odd, rows=3)) == ALL
    assert all(len(short(name)) <= 60 for name in odd) and short("") == "(no name)"


def test_columns_that_nobody_computed_leave_a_figure_out_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = [picture for picture in PICTURES["analysis"] if picture.name in ("learning_rate", "cosine")]
    monkeypatch.setitem(PICTURES, "analysis", few)
    folder = analysis(tmp_path / "r", change={"lo_lr": None, "lo_lr_smooth": None})
    text = (folder / "undefined.csv").read_text()
    (folder / "undefined.csv").write_text(text + "references,lo_lr,final,own,0-39,promises nothing for Adam\n")
    drawn = draw(read_report(folder), ("png",))
    assert drawn.left_out == {"Prescribed and used learning rate": "promises nothing for Adam"}
    assert drawn.files.keys() == {"cosine"}


def test_a_gap_breaks_the_line_and_a_lone_value_is_a_point() -> None:
    ax = Figure().subplots()
    values = np.ones(200)
    values[[50, 100, 102]] = np.nan
    line(ax, Series(np.arange(200.0), values, None), "#000000")
    whole, points = (each.get_xydata() for each in ax.lines)
    assert np.isnan(np.asarray(whole)[[50, 100, 102], 1]).all() and len(np.asarray(whole)) == 200
    assert np.asarray(points)[:, 0].tolist() == [101.0]


def test_few_values_are_all_marked() -> None:
    ax = Figure().subplots()
    line(ax, Series(np.arange(20.0) * 50, np.arange(20.0), None), "#000000")
    assert len(np.asarray(ax.lines[1].get_xydata())) == 20


def test_standard_errors_are_drawn() -> None:
    ax = Figure().subplots()
    line(ax, Series(np.arange(5.0), np.zeros(5), np.full(5, 2.0)), "#000000")
    assert ax.dataLim.y0 == -2 and ax.dataLim.y1 == 2


def test_alone_and_halfway() -> None:
    here = np.array([True, False, True, True, False, True])
    assert alone(here).tolist() == [True, False, False, False, False, True]
    assert halfway(np.array([0.0, 1.0, 51.0])).tolist() == [-0.5, 0.5, 26.0, 76.0]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1.0, 2.0, 3.0], "linear"),
        ([1e-6, 1.0, 2.0], "log"),
        ([0.0, 1e-6, 1.0], "log"),
        ([-1.0, 1.0, 2.0], "linear"),
        ([-1e6, 1.0, 2.0], "symlog"),
        ([0.0, 0.0], "linear"),
        ([np.nan], "linear"),
    ],
)
def test_the_scale_fits_the_values(values: list[float], kind: str) -> None:
    ax = Figure().subplots()
    scale(ax, [Series(np.arange(len(values), dtype=float), np.array(values), None)])
    assert ax.get_yscale() == kind
    assert [each.get_text() for each in ax.texts if "0 lies off" in each.get_text()] == (
        ["0 lies off the scale"] if kind == "log" and 0 in values else []
    )


def test_the_first_figure_shades_where_the_denominator_is_unresolved(tmp_path: Path) -> None:
    ratio = np.where((np.arange(40) >= 10) & (np.arange(40) < 20), np.nan, 1.5)
    folder = analysis(tmp_path / "r", change={"convexity_ratio": ratio, "convexity_den": np.ones(40)})
    report = read_report(folder)
    found, den = (report.series("references", f"convexity_{name}", ref="final") for name in ("ratio", "den"))
    assert np.flatnonzero(unresolved(found, den)).tolist() == list(range(10, 20))
    figure = COSINE.draw(report)
    lower = figure.axes[1]
    hatched = [each for each in lower.collections if each.get_hatch()]
    corners = np.concatenate([path.vertices for path in hatched[0].get_paths()])
    assert corners[:, 0].min() == 9.5 and corners[:, 0].max() == 19.5
    labels = [each.get_text().strip() for each in figure.legends[0].get_texts()]
    assert "den below its resolution: no ratio" in labels and "0 to cos_floor: own-sample cos of pure noise" in labels


def test_the_first_figure_says_so_without_losses(tmp_path: Path) -> None:
    missing = {f"convexity_{name}": None for name in ("num", "den", "ratio")}
    figure = COSINE.draw(read_report(analysis(tmp_path / "r", change=missing)))
    assert [each.get_text() for each in figure.axes[1].texts] == ["no losses: no ratio"]


def test_losses_of_a_long_run_are_drawn_over_their_range(tmp_path: Path) -> None:
    report = read_report(analysis(tmp_path / "r"))
    steps = np.arange(0, 6000, 2)
    losses = pd.DataFrame({"step": steps, "until": steps + 2, "loss": 1.0, "loss_min": 0.5, "loss_max": 2.0})
    long = replace(report, tables={**report.tables, "losses": losses.astype(float)})
    figure = LOSSES.draw(long)
    assert [each.get_text().strip() for each in figure.legends[0].get_texts()] == [
        "mean of a stretch of steps",
        "least to largest in it",
    ]
    corners = np.concatenate([path.vertices for path in figure.axes[0].collections[0].get_paths()])
    assert corners[:, 1].min() == 0.5 and corners[:, 1].max() == 2.0
    short = replace(report, tables={**report.tables, "losses": losses.assign(loss_min=1.0, loss_max=1.0).astype(float)})
    assert not LOSSES.draw(short).axes[0].collections


def test_the_first_figure_needs_a_cosine(tmp_path: Path) -> None:
    with pytest.raises(NothingToDraw, match="the report has no cos"):
        COSINE.draw(read_report(analysis(tmp_path / "r", change={"cos": None, "cos_skip": None})))


def test_the_plane_shows_explained_variance_and_every_reference(tmp_path: Path) -> None:
    figure = TRAJECTORY.draw(read_report(analysis(tmp_path / "r", ("final", "init"))))
    ax = figure.axes[0]
    assert ax.get_xlabel() == "component 1: 60% of the variance [length]" and "20%" in ax.get_ylabel()
    labels = [each.get_text().strip() for each in figure.legends[0].get_texts()]
    assert "init, 2 off the plane" in labels and "last iterate, step 39" in labels
    points = [tuple(np.ravel(each.get_xydata())) for each in ax.lines]
    assert (0.0, 1.0) in points and (0.1, 1.0) in points


@pytest.mark.parametrize(("name", "shown"), [("cosine", 6), ("convexity_ratio", 5), ("secant", 7), ("trajectory", 7)])
def test_what_is_not_drawn_is_said(tmp_path: Path, name: str, shown: int) -> None:
    picture = next(each for each in PICTURES["analysis"] if each.name == name)
    for count in (9, shown):
        figure = picture.draw(read_report(analysis(tmp_path / str(count), [f"step:{n}" for n in range(count)], rows=5)))
        labels = [each.get_text().strip() for each in figure.legends[0].get_texts()]
        assert (f"the first {shown} of {count} references are drawn" in labels) == (count == 9)
