"""Figures that can be read: ticks that do not collide, legends that show what is drawn, lines that are not hidden."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from saved_reports import analysis, summary, write_report

from trajcheck.reports.figures.catalogue import PICTURES
from trajcheck.reports.figures.drawing.axes import line, panels, scale
from trajcheck.reports.figures.drawing.group_panels import GroupPanel, draw_panel
from trajcheck.reports.figures.drawing.legends import entry, legend
from trajcheck.reports.figures.drawing.ratio_panel import limits
from trajcheck.reports.figures.drawing.style import RC
from trajcheck.reports.figures.of_one_run.flow import PICTURE as FLOW
from trajcheck.reports.reading.groups import Curve
from trajcheck.reports.reading.report import Series, read_report
from trajcheck.tables.step_operands import NOT_CHOSEN


@pytest.fixture(autouse=True)
def styled() -> Iterator[None]:
    with matplotlib.rc_context(RC):
        yield


def along(values: Any, errors: Any = None) -> Series:
    return Series(np.arange(float(len(values))), np.asarray(values, float), errors)


def boxes(ax: Axes) -> list[tuple[float, float]]:
    """Where the labels of the upright axis begin and end, from below, in pixels."""
    labels = [each for each in ax.yaxis.get_ticklabels() if each.get_text() and each.get_visible()]
    found = sorted((box.y0, box.y1) for box in (each.get_window_extent() for each in labels))
    low, high = ax.get_window_extent().y0, ax.get_window_extent().y1
    return [(a, b) for a, b in found if low - 1 <= (a + b) / 2 <= high + 1]


def drawn(figure: Figure) -> Figure:
    FigureCanvasAgg(figure).draw()
    return figure


@pytest.mark.parametrize("panel_height", [1.1, 2.7])
@pytest.mark.parametrize("linear_up_to", [None, 2.0])
def test_labels_around_zero_do_not_collide(panel_height: float, linear_up_to: float | None) -> None:
    stream = np.random.default_rng(0)
    for _ in range(12):
        decades = stream.uniform(2.2, 14)
        values = 10 ** stream.uniform(-decades, 0, 200) * stream.choice([-1, 1], 200) * 10 ** stream.uniform(-6, 6)
        values[:5] *= 1e3
        figure, axes = panels(1, height=panel_height)
        ax = axes[0, 0]
        scale(ax, [along(values)], linear_up_to)
        ax.plot(values)
        drawn(figure)
        places = boxes(ax)
        assert len(places) >= 2 and all(a[1] <= b[0] + 0.5 for a, b in pairwise(places)), (ax.get_yticks(), places)
        if ax.get_yscale() == "symlog":
            assert 0.0 in ax.get_yticks()


def test_an_axis_of_one_sign_that_hardly_leaves_its_linear_part_has_labels() -> None:
    figure, axes = panels(1)
    ax = axes[0, 0]
    ax.set_ylim(-0.4, 3.0)
    scale(ax, [along([0.1, -0.2, 0.1, 100.0])], 2.0)
    ax.set_ylim(-0.4, 3.0)
    assert len(boxes(drawn(figure).axes[0])) >= 2


def entries(figure: Figure) -> list[Line2D]:
    return [each for legend in figure.legends for each in legend.legend_handles if isinstance(each, Line2D)]


def has_neighbours(line: Line2D) -> bool:
    here = np.isfinite(np.asarray(line.get_ydata(), float))
    return line.get_linestyle() != "None" and bool((here[1:] & here[:-1]).any())


@pytest.mark.parametrize("samples", [("own",), ("own", "previous", "probe")])
@pytest.mark.parametrize("every", [1, 7])
def test_a_line_in_the_legend_is_drawn(tmp_path: Path, samples: tuple[str, ...], every: int) -> None:
    """With `every` = 7 no two values are neighbours, and the legends show marks."""
    from saved_reports import OF_REFERENCES, OF_STEPS

    stream = np.random.default_rng(3)
    names = {*OF_STEPS, *OF_REFERENCES}
    change = {name: np.where(np.arange(40) % every == 0, stream.normal(size=40), np.nan) for name in sorted(names)}
    report = read_report(analysis(tmp_path / "r", ("final", "init"), samples=samples, change=change))
    for picture in PICTURES["analysis"]:
        if picture.name in ("layers", "trajectory"):
            continue
        figure = picture.draw(report)
        lines = [line for ax in figure.axes for line in ax.lines]
        for each in entries(figure):
            like = [
                line
                for line in lines
                if line.get_color() == each.get_color() or line.get_linestyle() == each.get_linestyle()
            ]
            if each.get_linestyle() != "None" and each.get_linewidth() < 3:
                assert any(has_neighbours(line) for line in like), (picture.name, each.get_label())
            elif each.get_marker() not in ("None", ""):
                assert any(line.get_marker() not in ("None", "") for line in lines), (picture.name, each.get_label())


def test_values_that_stand_alone_have_a_mark_of_their_sample_in_the_legend() -> None:
    figure, axes = panels(1)
    values = np.where(np.arange(30) % 3 == 0, 1.0, np.nan)
    line(axes[0, 0], along(values), "#0072B2", "-")
    line(axes[0, 0], along(values + 1), "#0072B2", "--")
    legend(figure, [entry("own", "#0072B2"), entry("probe", "#0072B2", "--"), entry("nothing of it", "#D55E00")])
    own, probe, other = entries(figure)
    assert (own.get_linestyle(), own.get_marker()) == ("None", "o")
    assert (probe.get_linestyle(), probe.get_marker()) == ("None", "s")
    assert other.get_linestyle() == "None" or other.get_marker() in ("None", "")


def test_a_line_beneath_an_equal_one_is_seen() -> None:
    figure, axes = panels(1)
    ax = axes[0, 0]
    values = np.sin(np.arange(200) / 30)
    for color in ("#0072B2", "#D55E00"):
        line(ax, along(values), color)
    line(ax, along(values + 1), "#009E73")
    before = len(ax.lines)
    legend(figure, [entry("a", "#0072B2")])
    (wide,) = ax.lines[before:]
    assert wide.get_color() == "#0072B2" and wide.get_linewidth() > 2 and wide.get_alpha() < 0.5
    np.testing.assert_array_equal(np.asarray(wide.get_ydata()), values)
    assert "wide and pale: beneath an equal line" in [str(each.get_label()).strip() for each in entries(figure)]


@pytest.mark.parametrize("apart", ["style", "distance", "crossing"])
def test_lines_that_can_be_told_apart_stay_as_they_are(apart: str) -> None:
    figure, axes = panels(1)
    ax = axes[0, 0]
    values = np.linspace(0, 1, 200)
    line(ax, along(values), "#0072B2")
    other = {"style": values, "distance": values + 0.05, "crossing": 1 - values}[apart]
    line(ax, along(other), "#D55E00", "--" if apart == "style" else "-")
    before = len(ax.lines)
    legend(figure, [entry("a", "#0072B2")])
    assert len(ax.lines) == before


def test_errors_far_larger_than_the_ratio_do_not_set_its_scale() -> None:
    _, axes = panels(1)
    ax = axes[0, 0]
    errors = np.full(100, 0.1)
    errors[50:55] = 1e4
    ratio = along(np.linspace(0.5, 2.5, 100), errors)
    line(ax, ratio, "#000000")
    low, high = limits(ax, [ratio])
    assert -0.5 <= low <= -0.2 and 2.5 <= high < 4
    assert limits(ax, [along([np.nan, np.nan])])[0] <= -0.2


# -- the learning rate ------------------------------------------------------------------------------------------------


def learning_rate(folder: Path) -> Figure:
    (picture,) = (each for each in PICTURES["analysis"] if each.name == "learning_rate")
    return picture.draw(read_report(folder))


def test_the_learning_rate_has_a_logarithmic_panel_for_every_reference(tmp_path: Path) -> None:
    change = {"lr": 0.1, "lo_lr": np.geomspace(5, 0.01, 40), "lo_lr_smooth": np.geomspace(4, 0.02, 40)}
    figure = learning_rate(analysis(tmp_path / "r", ("final", "init", "step:3"), change=change))
    shown = [ax for ax in figure.axes if ax.get_visible()]
    assert [ax.get_title(loc="left") for ax in shown] == ["towards final", "towards init", "towards step:3"]
    for ax in shown:
        assert ax.get_yscale() == "log" and ax.get_ylim() == shown[0].get_ylim()
        assert any(np.array_equal(each.get_ydata(), np.full(40, 0.1)) for each in ax.lines)
        low, high = ax.get_ylim()
        assert low < 0.01 and high > 5


def test_negative_rates_are_bars_at_the_foot_and_no_values(tmp_path: Path) -> None:
    smooth = np.where(np.arange(40) < 30, 0.5, -0.5)
    folder = analysis(tmp_path / "r", change={"lr": 0.1, "lo_lr": smooth, "lo_lr_smooth": smooth})
    figure = learning_rate(folder)
    ax = figure.axes[0]
    bars = [each for each in ax.collections if len(each.get_paths())]
    corners = np.concatenate([path.vertices for each in bars for path in each.get_paths()])
    assert corners[:, 0].min() == 29.5 and corners[:, 0].max() == 39.5 and corners[:, 1].max() < 0.2
    drawn_values = [np.asarray(each.get_ydata(), float) for each in ax.lines]
    assert any(np.array_equal(np.isfinite(each), smooth > 0) for each in drawn_values)
    assert "bars at the foot: negative rates" in [each.get_text().strip() for each in figure.legends[0].get_texts()]


def test_rates_of_one_sign_only_can_be_drawn(tmp_path: Path) -> None:
    for n, value in enumerate((-1.0, 1.0, 1e-300, 0.0)):
        change = {"lr": value, "lo_lr": value, "lo_lr_smooth": value}
        drawn(learning_rate(analysis(tmp_path / str(n), change=change)))


# -- what stands below ------------------------------------------------------------------------------------------------


def comparison(folder: Path, align: str) -> Path:
    steps = np.arange(20)
    pairs = [
        pd.DataFrame(
            {
                "run_a": "a",
                "run_b": run,
                "step_a": steps,
                "step_b": 2 * steps,
                "tau_a": 0.3 * steps,
                "tau_b": 0.3 * steps,
                "dist": steps + 1.0,
                "displacement_cos": 0.5,
            }
        )
        for run in ("b", "c")
    ]
    about = {**summary(["final"]), "runs": {}, "options": {"align": align}}
    return write_report(folder, {"compare": pd.concat(pairs)}, about)


@pytest.mark.parametrize(("align", "words"), [("time", "time"), ("step", "step"), ("loss", "step")])
def test_a_comparison_by_time_has_time_below_it(tmp_path: Path, align: str, words: str) -> None:
    report = read_report(comparison(tmp_path / "r", align))
    (picture,) = (each for each in PICTURES["comparison"] if each.name == "between_runs")
    figure = picture.draw(report)
    assert figure.axes[-1].get_xlabel().startswith(words)
    expected = (0.3 if align == "time" else 1.0) * np.arange(20)
    for ax in figure.axes:
        curves = [each for each in ax.lines if len(np.atleast_1d(each.get_xdata())) == 20]
        assert curves and all(np.allclose(np.asarray(each.get_xdata(), float), expected) for each in curves)


def test_rows_that_nobody_chose_are_no_gaps(tmp_path: Path) -> None:
    values = np.where(np.arange(40) % 5 == 0, 3.0, np.nan)
    values[20] = np.nan  # chosen, and not found
    asked = ("steps", "lambda_max", "", "own", "1-4, 6-9, 11-14, 16-19, 21-24, 26-29, 31-34, 36-39", NOT_CHOSEN)
    folder = analysis(tmp_path / "r", change={"lambda_max": values})
    text = pd.DataFrame([asked], columns=["table", "column", "ref", "sample", "steps", "reason"]).to_csv(index=False)
    (folder / "undefined.csv").write_text(text)
    series = read_report(folder).series("steps", "lambda_max", sample="own")
    assert series.steps.tolist() == [0, 5, 10, 15, 20, 25, 30, 35]
    assert np.isnan(series.values[4]) and np.isfinite(np.delete(series.values, 4)).all()


def test_a_band_that_reaches_below_0_has_an_axis_with_room_for_it() -> None:
    mean = np.geomspace(1.0, 0.01, 9)
    for spread, kind in ((0.1 * mean, "log"), (np.where(np.arange(9) == 5, 2 * mean, 0.1 * mean), "linear")):
        ax = Figure().subplots()
        draw_panel(ax, GroupPanel("cos", "cos", {0: Curve(np.arange(9.0), mean, spread, 3, 3)}))
        assert ax.get_yscale() == kind


def test_a_flow_shows_the_eigenvalues_along_it_where_there_are_any(tmp_path: Path) -> None:
    frame = pd.DataFrame({"step": [0.0, 1.0, 2.0], "flow_dist": [0.0, 0.1, 0.2], "lambda_min": [-0.3, np.nan, -0.1]})
    about = {**summary([]), "flow": {"sample": "full"}}
    figure = FLOW.draw(read_report(write_report(tmp_path / "r", {"flow": frame}, about)))
    eigenvalues = figure.axes[-1]
    assert eigenvalues.get_ylabel().startswith("curvature")
    assert any(np.nansum(np.asarray(each.get_ydata(), float)) == pytest.approx(-0.4) for each in eigenvalues.lines)
    without = write_report(tmp_path / "s", {"flow": frame.drop(columns="lambda_min")}, about)
    assert [ax.get_ylabel() for ax in FLOW.draw(read_report(without)).axes] == ["distance [length]"]
