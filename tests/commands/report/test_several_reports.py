"""Several reports in common figures: trajcheck report with more than one, draw_together, and their page."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("plotly")

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from plain_run_files import Outcome
from saved_reports import analysis

import trajcheck
from trajcheck.commands.report.several_reports import OWNER
from trajcheck.errors import UsageError
from trajcheck.reports.figures.catalogue import PICTURES
from trajcheck.reports.figures.drawing.run_panels import RUN_MARKS, some, window_mean
from trajcheck.reports.figures.drawing.style import COLOURS, MOST, RC
from trajcheck.reports.figures.picture import NothingToDraw
from trajcheck.reports.figures.render import Drawn, draw
from trajcheck.reports.page.of_several import document
from trajcheck.reports.reading.report import Series
from trajcheck.reports.reading.several_reports import Together, read_together

Cli = Callable[..., Outcome]
NASTY = "</script><script>alert(1)</script>\"'&<!--"


@pytest.fixture(autouse=True)
def styled() -> Iterator[None]:
    with matplotlib.rc_context(RC):
        yield


def report(folder: Path, name: str, refs: Sequence[str] = ("final",), **more: Any) -> Path:
    """An analysis of a run called by that name."""
    run = {
        "path": f"runs/{name}",
        "id": f"id of {name}",
        "optimizer": "SGD",
        "plain_sgd": True,
        "parameters": 31,
        "skip": 1,
    }
    return analysis(folder / name, refs, **{"run": run, **more})


def figure(together: Together, name: str) -> Figure:
    (picture,) = (each for each in PICTURES["together"] if each.name == name)
    return picture.draw(together)


def entries(of: Figure) -> list[str]:
    return [each.get_text().strip() for legend in of.legends for each in legend.get_texts()]


def titles(of: Figure) -> list[str]:
    return [ax.get_title(loc="left") for ax in of.axes]


def colours(of: Figure, panel: int = 0) -> set[str]:
    """The runs' colours among the lines of a panel."""
    return {str(line.get_color()) for line in of.axes[panel].get_lines()} & set(COLOURS)


def drawn_values(of: Figure, panel: int, place: int) -> list[np.ndarray]:
    """The values of a run's continuous lines."""
    lines = [line for line in of.axes[panel].get_lines() if line.get_color() == COLOURS[place]]
    return [np.asarray(line.get_ydata(), float) for line in lines if line.get_linestyle() != "None"]


ALL = ["cosine", "convexity_ratio", "sharpness", "distances", "loss"]


def test_a_line_a_run_with_a_colour_a_mark_and_its_name(tmp_path: Path) -> None:
    together = read_together([report(tmp_path, name) for name in ("a", "b", "c")])
    assert together.labels == ["a", "b", "c"] and together.ref == "final"
    for name in ALL:
        of = figure(together, name)
        assert [entry for entry in entries(of) if entry in ("a", "b", "c")] == ["a", "b", "c"]
        for panel in range(len(of.axes)):
            assert colours(of, panel) == set(COLOURS[:3]), name
            marks = {line.get_marker() for line in of.axes[panel].get_lines()}
            assert set(RUN_MARKS[:3]) <= marks, name


def test_the_lines_are_the_columns(tmp_path: Path) -> None:
    values = [np.linspace(place, place + 1, 40) for place in range(2)]
    names = ("loss", "init_dist", "cos_skip", "lambda_max")
    folders = [report(tmp_path, f"r{n}", change={c: each for c in names}) for n, each in enumerate(values)]
    together = read_together(folders)
    for name in ("loss", "distances", "cosine", "sharpness"):
        of = figure(together, name)
        for place, each in enumerate(values):
            assert any(np.array_equal(line, each) for line in drawn_values(of, 0, place)), name


def test_one_sample_a_panel_and_runs_without_it_are_counted(tmp_path: Path) -> None:
    folders = [report(tmp_path, "both", samples=("own", "probe")), report(tmp_path, "own")]
    together = read_together(folders)
    of = figure(together, "loss")
    assert titles(of) == ["probe batches (1 of 2 runs)", "own sample: each step's batch"]
    assert colours(of, 0) == {COLOURS[0]} and colours(of, 1) == set(COLOURS[:2])
    assert together.differences == ["Samples: own and probe (both); own (own)."]


def test_own_cosines_with_and_without_the_step_s_own_term_do_not_share_a_panel(tmp_path: Path) -> None:
    folders = [report(tmp_path, "later"), report(tmp_path, "foreign", change={"cos_skip": np.nan})]
    of = figure(read_together(folders), "cosine")
    assert titles(of) == [
        "towards final, own sample, without the step's own term: cos_skip (1 of 2 runs)",
        "towards final, own sample: each step's batch (1 of 2 runs)",
    ]
    assert [colours(of, panel) for panel in (0, 1)] == [{COLOURS[0]}, {COLOURS[1]}]


def test_a_run_without_a_value_and_one_without_the_reference_are_named(tmp_path: Path) -> None:
    folders = [
        report(tmp_path, "a"),
        report(tmp_path, "b", change={"lambda_max": None}),
        report(tmp_path, "c", ["init"]),
    ]
    together = read_together(folders)
    assert "b: no value" in entries(figure(together, "sharpness"))
    assert "c: no value" in entries(figure(together, "cosine"))
    assert together.missing("references", "cos", "cos_skip") == {"c": "its report has no reference final"}
    assert together.missing("steps", "lambda_max") == {"b": "the report has no lambda_max"}


def test_more_runs_than_colours_are_left_out_and_it_is_said(tmp_path: Path) -> None:
    together = read_together([report(tmp_path, f"run{n}", rows=3) for n in range(MOST + 2)])
    of = figure(together, "loss")
    assert len(colours(of)) == MOST == len(RUN_MARKS)
    assert f"the first {MOST} of {MOST + 2} runs are drawn" in entries(of)
    page = document(together, Drawn(), tmp_path / "out")
    assert f"The figures show the first {MOST} runs, and not run7, run8." in page


def test_the_ratio_is_dotted_where_its_denominator_is_negative(tmp_path: Path) -> None:
    den = np.where(np.arange(40) < 10, -1.0, 1.0)
    folders = [
        report(tmp_path, "a", change={"convexity_den": den}),
        report(tmp_path, "b", change={"convexity_den": 1.0}),
    ]
    of = figure(read_together(folders), "convexity_ratio")
    dotted = [line for line in of.axes[0].get_lines() if line.get_linestyle() == ":"]
    assert {str(line.get_color()) for line in dotted if np.isfinite(line.get_ydata()).any()} == {COLOURS[0]}
    assert "dotted: den < 0, convex means ratio ≤ 1" in entries(of)
    (line,) = (each for each in dotted if each.get_color() == COLOURS[0])
    ratio = pd.read_csv(folders[0] / "references.csv")["convexity_ratio"].to_numpy()
    np.testing.assert_allclose(np.asarray(line.get_ydata(), float), np.where(den < 0, ratio, np.nan), rtol=1e-12)


def test_thresholds_are_dashed_in_the_run_s_colour(tmp_path: Path) -> None:
    folders = [report(tmp_path, n, change={"stability_threshold": v}) for n, v in (("a", 4.0), ("b", np.nan))]
    of = figure(read_together(folders), "sharpness")
    drawn = [(line.get_color(), np.asarray(line.get_ydata(), float)) for line in of.axes[0].get_lines()]
    flat = [color for color, values in drawn if np.array_equal(values, np.full(40, 4.0))]
    assert flat == [COLOURS[0]]
    assert "dashes: stability threshold, 2/lr or 2(1+β)/lr" in entries(of)


def test_a_running_mean_keeps_gaps_and_takes_defined_values_alone() -> None:
    values = np.array([1.0, 2.0, np.nan, 4.0, 5.0, 9.0])
    series = Series(np.arange(6.0), values, None)
    expected = [np.nanmean(values[max(0, t - 2) : t + 3]) if np.isfinite(values[t]) else np.nan for t in range(6)]
    np.testing.assert_allclose(window_mean(series), expected, rtol=1e-15)


def test_long_lines_of_single_batches_are_smoothed_others_are_not(tmp_path: Path) -> None:
    losses = {name: np.random.default_rng(seed).normal(size=400) for seed, name in enumerate(("a", "b"))}
    folders = [
        report(tmp_path, name, samples=("own", "probe"), rows=400, change={"loss": values})
        for name, values in losses.items()
    ]
    together = read_together(folders)
    of = figure(together, "loss")
    assert [len(drawn_values(of, panel, 0)) for panel in (0, 1)] == [1, 2]  # probe, own
    bold, raw = sorted(drawn_values(of, 1, 0), key=np.std)
    np.testing.assert_array_equal(raw, together.reports[0].series("steps", "loss", sample="own").values)
    assert np.std(bold) < 0.5 * np.std(raw)
    assert "bold: running mean over 1/40 of the rows" in entries(of)
    assert "bold: running mean over 1/40 of the rows" not in entries(figure(together, "distances"))


def test_marks_of_two_runs_stand_in_different_places() -> None:
    here = np.arange(1000) % 3 > 0
    marks = [some(here, place) for place in range(MOST)]
    assert all(12 <= mark.sum() <= 14 and not (mark & ~here).any() for mark in marks)
    assert not any((a & b).any() for n, a in enumerate(marks) for b in marks[:n])


@pytest.mark.parametrize(
    "values", [np.nan, 0.0, -3.0, np.r_[np.full(39, np.nan), 1e-12], np.geomspace(1e-300, 1e300, 40)]
)
def test_no_column_stops_a_figure(tmp_path: Path, values: Any) -> None:
    from saved_reports import OF_REFERENCES, OF_STEPS

    change = {name: values for name in {*OF_STEPS, *OF_REFERENCES}}
    together = read_together(
        [report(tmp_path, "a", change=change), report(tmp_path, NASTY.replace("/", "\\"), change=change)]
    )
    drawn = draw(together, ("svg",))
    if np.isnan(values).all():
        assert not drawn.pictures and len(drawn.left_out) == len(ALL)
    else:
        assert [picture.name for picture in drawn.pictures] == ALL
    assert "<script>alert" not in document(together, Drawn(), tmp_path)


def test_the_hessian_that_was_not_asked_for(tmp_path: Path) -> None:
    together = read_together([report(tmp_path, name, change={"lambda_max": None}) for name in ("a", "b")])
    with pytest.raises(NothingToDraw, match="no Hessian was asked for"):
        figure(together, "sharpness")


# -- names and differences --------------------------------------------------------------------------------------------


def test_long_names_stay_distinct(tmp_path: Path) -> None:
    same_end = "x" * 40
    together = read_together([report(tmp_path, f"{n}/{same_end}", rows=3) for n in ("a", "b")])
    assert together.labels[0].startswith("1. …") and together.labels[1].startswith("2. …")
    assert len({entry for entry in entries(figure(together, "loss"))}) == 2


def test_two_reports_of_one_run_are_called_by_their_folders(tmp_path: Path) -> None:
    folders = [analysis(tmp_path / name, rows=3) for name in ("first", "second")]
    together = read_together(folders)
    assert together.labels == ["first", "second"]
    assert together.differences == ["first, second are reports of one and the same run."]


def test_what_differs_is_said(tmp_path: Path) -> None:
    def about(name: str, point: str, **run: Any) -> dict[str, Any]:
        from saved_reports import summary

        head = summary(["final"])["headline"]
        head["references"]["final"]["point"] = point
        return {"headline": head, "run": {"path": name, "id": name, "optimizer": "SGD", "parameters": 31, **run}}

    folders = [
        report(tmp_path, "a", **about("a", "a/step:9")),
        report(tmp_path, "b", **about("b", "a/step:9", parameters=1200)),
    ]
    assert read_together(folders).differences == [
        "Reference x*: a point of the run itself (a); a point from elsewhere (b).",
        "Parameters: 31 (a); 1,200 (b).",
    ]
    same = read_together([report(tmp_path, name) for name in ("c", "d")])
    assert same.differences == [] and "are the same in all reports" in document(same, Drawn(), tmp_path)


def test_which_reference(tmp_path: Path) -> None:
    one, two = report(tmp_path, "one", ["init", "best"]), report(tmp_path, "two", ["best", "step:3"])
    assert read_together([one, two]).ref == "best"
    assert read_together([one, two], "step:3").ref == "step:3"
    with pytest.raises(UsageError, match=r"--ref 'mean:4': is a reference of none.*they have init, best, step:3"):
        read_together([one, two], "mean:4")


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command_and_its_folder(cli: Cli, tmp_path: Path) -> None:
    folders = [report(tmp_path, name, rows=4) for name in ("a", "b")]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    out = tmp_path / "out"
    done = cli("report", *folders, "--out", out, "--format", "svg")
    assert done.code == 0, done
    assert done.out.splitlines() == [*(str(out / "figures" / f"{name}.svg") for name in ALL), str(out / "report.html")]
    first = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert cli("report", *folders, "--out", out, "--format", "svg", "--quiet") == (0, "", "")
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == first
    assert before == {path: path.read_bytes() for path in before}
    about = json.loads((out / "summary.json").read_text())
    assert about["run"]["id"] == OWNER and list(about["reports"]) == ["a", "b"]
    page = (out / "report.html").read_text()
    assert '<a href="../a/steps.csv">a</a>' in page and 'src="data:image/png' in page
    assert cli("report", *folders, "--out", out, "--format", "pdf").code == 0
    assert {path.suffix for path in (out / "figures").iterdir()} == {".pdf"}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["a", "b"], 2, "--out is needed with 2 reports"),
        (["a", "a", "--out", "out"], 2, "was given twice"),
        (["a", "--ref", "final"], 2, "--ref chooses what several reports are shown towards"),
        (["a", "b", "--ref", "best", "--out", "out"], 2, "--ref 'best': is a reference of none of these reports"),
        (["a", "b", "--format", "gif", "--out", "out"], 2, "--format: 'gif'"),
        (["a", "nowhere", "--out", "out"], 3, "nowhere: holds no report"),
        (["a", "b", "--out", "a"], 5, "holds the report of another run"),
        (["a", "b", "--out", "mine"], 5, "holds other files (notes.txt)"),
        (["a", "flow", "--out", "out"], 2, "flow: is the report of a flow"),
    ],
)
def test_refusals(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "flow"):
        report(tmp_path, name, rows=3)
    about = json.loads((tmp_path / "flow" / "summary.json").read_text())
    (tmp_path / "flow" / "summary.json").write_text(json.dumps({**about, "flow": {}}))
    (tmp_path / "flow" / "flow.csv").write_text("step\n0\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("")
    done = cli("report", *words)
    assert done.code == code and said in done.err, done
    assert not (tmp_path / "out").exists()


def test_the_output_of_several_is_no_report_of_one(cli: Cli, tmp_path: Path) -> None:
    folders = [report(tmp_path, name, rows=3) for name in ("a", "b")]
    trajcheck.draw_together(folders, tmp_path / "out", formats=["svg"])
    assert cli("report", tmp_path / "out").code == 3
    assert cli("report", folders[0], "--out", tmp_path / "out").code == 5
    with pytest.raises(UsageError, match="two or more"):
        trajcheck.draw_together(folders[:1], tmp_path / "alone")


def test_a_summary_that_is_not_ours_is_bad_input(cli: Cli, tmp_path: Path) -> None:
    folders = [report(tmp_path, name, rows=3) for name in ("a", "b")]
    about = json.loads((folders[1] / "summary.json").read_text())
    (folders[1] / "summary.json").write_text(json.dumps({**about, "headline": {}}))
    done = cli("report", *folders, "--out", tmp_path / "out")
    assert done.code == 3 and "cannot be drawn together" in done.err, done
