"""trajcheck report, and the figures that analyze, compare and flow leave behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from places import SAMPLES
from plain_run_files import Outcome
from saved_reports import analysis

import trajcheck
from trajcheck.commands.report import one_report as drawing
from trajcheck.reports import extras

Cli = Callable[..., Outcome]

#: Of these there are two figures.
FEW = ("cos", "loss", "lambda_max")

with_plots = pytest.mark.skipif(not drawing.can_draw(), reason="needs the extra `plots`")


@with_plots
def test_analyze_draws_by_default_and_report_redraws_without_the_run(
    cli: Cli, plain_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRAJCHECK_PLOTS")
    folder = tmp_path / "report"
    done = cli("analyze", plain_run, "--out", folder, "--ref", "final", "--layers")
    assert done.code == 0 and done.out.endswith(f"{folder / 'report.html'}\n"), done
    before = {path.name: path.read_bytes() for path in (folder / "figures").iterdir()}
    assert {"cosine.png", "cosine.svg", "layers.png", "distances.png"} <= set(before)
    page = (folder / "report.html").read_text()
    for path in plain_run.iterdir():
        path.unlink()
    plain_run.rmdir()
    for path in (folder / "figures").iterdir():
        path.unlink()
    again = cli("report", folder)
    assert again.code == 0 and str(folder / "figures" / "cosine.svg") in again.out.splitlines()
    assert {path.name: path.read_bytes() for path in (folder / "figures").iterdir()} == before
    assert (folder / "report.html").read_text() == page


@with_plots
@pytest.mark.parametrize("command", ["compare", "flow"])
def test_compare_and_flow_draw_too(cli: Cli, command: str, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    if command == "compare":
        runs = [SAMPLES / f"digits-sgd-seed{seed}" for seed in (0, 1)]
        done = cli("compare", *runs, "--objective", "none", "--steps", "0:9", "--layers", "--out", folder, "--plots")
        expected = {"between_runs.png", "between_runs.svg", "layers.png", "layers.svg"}
    else:
        objective = f"{SAMPLES / 'objectives.py'}:breast_cancer"
        done = cli(
            "flow", SAMPLES / "breast-cancer-gd", "--objective", objective, "--rtol", "1e-2", "--out", folder, "--plots"
        )
        expected = {"flow.png", "flow.svg"}
    assert done.code == 0 and (folder / "report.html").exists(), done
    assert {path.name for path in (folder / "figures").iterdir()} == expected


def test_no_plots(cli: Cli, plain_run: Path, tmp_path: Path) -> None:
    done = cli("analyze", plain_run, "--out", tmp_path / "report", "--no-plots")
    assert done.code == 0 and "report.html" not in done.out and "pip install" not in done.out
    assert not (tmp_path / "report" / "figures").exists()


def test_without_the_extra_one_line_says_how_to_get_it(
    cli: Cli, plain_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRAJCHECK_PLOTS")
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    done = cli("analyze", plain_run, "--out", tmp_path / "report")
    assert done.code == 0 and done.out.endswith("figures and a page: pip install 'trajcheck[plots]'\n")
    asked = cli("analyze", plain_run, "--out", tmp_path / "report", "--plots")
    assert asked.code == 4 and "--plots: figures need pip install 'trajcheck[plots]'" in asked.err
    drawn = cli("report", tmp_path / "report")
    assert drawn.code == 2 and "matplotlib and plotly: pip install 'trajcheck[plots]'" in drawn.err


@with_plots
def test_an_older_page_is_pointed_out(cli: Cli, plain_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    assert cli("analyze", plain_run, "--out", folder, "--plots").code == 0
    done = cli("analyze", plain_run, "--out", folder, "--no-plots")
    assert done.out.endswith(f"report.html is of an earlier report; `trajcheck report {folder}` draws it anew\n")


@with_plots
def test_formats_and_what_is_replaced(tmp_path: Path) -> None:
    folder = analysis(tmp_path / "report", rows=4, only=FEW)
    drawn = trajcheck.draw_report(folder)
    (folder / "figures" / "mine.png").write_bytes(b"mine")
    tables = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.suffix != ".html"}
    assert {path.suffix for path in drawn.figures} == {".png", ".svg"}
    drawn = trajcheck.draw_report(folder, ["pdf"])
    assert {path.suffix for path in drawn.figures} == {".pdf"} and all(path.stat().st_size for path in drawn.figures)
    assert {path.suffix for path in (folder / "figures").iterdir()} == {".pdf", ".png"}
    assert (folder / "figures" / "mine.png").read_bytes() == b"mine"
    assert tables == {name: (folder / name).read_bytes() for name in tables}
    assert not [path for path in folder.iterdir() if path.name.startswith(".unfinished")]


@with_plots
def test_figures_that_have_no_columns_any_more_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "report"
    trajcheck.draw_report(analysis(folder, rows=4, only=FEW), ["png"])
    assert (folder / "figures" / "sharpness.png").exists()
    trajcheck.draw_report(analysis(folder, rows=4, only=FEW, change={"lambda_max": None}), ["png"])
    assert not (folder / "figures" / "sharpness.png").exists() and (folder / "figures" / "cosine.png").exists()


@with_plots
def test_some_figures_are_drawn_on_demand_and_what_is_not_drawn_is_said(cli: Cli, tmp_path: Path) -> None:
    folder = analysis(tmp_path / "report", rows=4, only=(*FEW, "avg_gap"))
    drawn = trajcheck.draw_report(folder, ["svg"])
    assert [path.stem for path in drawn.figures] == ["cosine", "sharpness"]
    assert "convexity_gap" in drawn.not_asked and "Convexity gap" not in str(drawn.left_out)
    assert f"Drawn on demand: {', '.join(drawn.not_asked)}: `trajcheck report`" in drawn.page.read_text()
    done = cli("report", folder, "--format", "svg", "--figures", "sharpness,convexity_gap")
    assert done.code == 0 and "not drawn  cosine, convexity_ratio" in done.out, done
    assert "--figures all`" in " ".join(done.out.split())
    assert sorted(path.name for path in (folder / "figures").iterdir()) == ["convexity_gap.svg", "sharpness.svg"]
    page = drawn.page.read_text()
    assert 'id="figure-convexity_gap"' in page and 'id="figure-cosine"' not in page
    done = cli("report", folder, "--format", "svg", "--figures", "all")
    assert done.code == 0 and "not drawn" not in done.out and "on demand" not in drawn.page.read_text()
    assert {path.stem for path in (folder / "figures").iterdir()} == {"convexity_gap", "cosine", "sharpness"}


@with_plots
def test_analyze_says_which_figures_there_are_more_and_draws_those_that_are_named(
    cli: Cli, plain_run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "report"
    done = cli("analyze", plain_run, "--out", folder, "--plots", "--figures", "distances")
    more, page = done.out.splitlines()[-2:]
    assert done.code == 0 and page == str(folder / "report.html"), done
    assert more.startswith("more figures: cosine, convexity_ratio, ") and more.endswith(f"{folder} --figures all`")
    assert {path.stem for path in (folder / "figures").iterdir()} == {"distances"}


@with_plots
def test_figures_that_there_are_not(cli: Cli, plain_run: Path, tmp_path: Path) -> None:
    """Before anything is computed."""
    folder = tmp_path / "report"
    words = "--figures: 'colour'; expected main, all, or some of cosine, convexity_ratio, "
    done = cli("analyze", plain_run, "--out", folder, "--plots", "--figures", "main,colour")
    assert done.code == 2 and words in done.err and not folder.exists(), done
    done = cli("analyze", plain_run, "--out", folder, "--no-plots", "--figures", "all")
    assert done.code == 2 and "none is drawn with --no-plots" in done.err and not folder.exists(), done
    reports = [analysis(tmp_path / name, rows=4, only=FEW) for name in ("a", "b")]
    done = cli("report", reports[0], "--figures", "colour")
    assert done.code == 2 and words in done.err, done
    done = cli("report", *reports, "--figures", "all", "--out", tmp_path / "both")
    assert done.code == 2 and "--figures chooses those of one report" in done.err, done
    done = cli("report", reports[0], "--figures", "all", "--show", "assumptions")
    assert done.code == 2 and "--show prints" in done.err, done


@with_plots
def test_into_another_folder(cli: Cli, tmp_path: Path) -> None:
    folder, out = analysis(tmp_path / "report", rows=4, only=FEW), tmp_path / "paper" / "pictures"
    before = sorted(path.name for path in folder.iterdir())
    for _ in range(2):
        assert cli("report", folder, "--format", "svg", "--out", out, "--quiet") == (0, "", "")
    assert sorted(path.name for path in out.iterdir()) == ["figures", "report.html", "summary.json"]
    assert sorted(path.name for path in folder.iterdir()) == before
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("")
    refused = cli("report", folder, "--out", other)
    assert refused.code == 5 and "holds other files (notes.txt)" in refused.err


@with_plots
def test_a_folder_that_cannot_be_written(cli: Cli, tmp_path: Path) -> None:
    folder = analysis(tmp_path / "report", rows=4, only=FEW)
    (folder / "figures").write_text("")  # root writes wherever a file is not in the way
    done = cli("report", folder)
    assert done.code == 5 and "the report could not be written: figures: Not a directory" in done.err, done


@with_plots
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "summary.json").unlink(), "holds no report: there is no summary.json"),
        (lambda folder: (folder / "summary.json").write_text("{"), "cannot be read as JSON"),
        (lambda folder: (folder / "summary.json").write_text("[1]"), "is not a report's summary of format 1"),
        (lambda folder: (folder / "steps.csv").unlink(), "steps.csv is missing"),
        (
            lambda folder: (folder / "steps.csv").write_text("step,sample,loss\n0,own,high\n"),
            "steps.csv: cannot be read",
        ),
        (lambda folder: (folder / "references.csv").write_text(""), "references.csv: cannot be read"),
    ],
)
def test_bad_reports(cli: Cli, tmp_path: Path, spoil: Callable[[Path], object], words: str) -> None:
    folder = analysis(tmp_path / "report", rows=4, only=FEW)
    spoil(folder)
    done = cli("report", folder)
    assert done.code == 3 and words in done.err, done


@with_plots
def test_bad_options(cli: Cli, tmp_path: Path) -> None:
    done = cli("report", analysis(tmp_path / "report", rows=4, only=FEW), "--format", "gif")
    assert done.code == 2 and "--format: 'gif'; expected some of png, svg, pdf" in done.err
    assert cli("report", tmp_path / "nowhere").code == 3


@with_plots
def test_layers_of_an_earlier_report_are_not_drawn(tmp_path: Path) -> None:
    folder = analysis(tmp_path / "report", rows=4, only=FEW)
    (folder / "layers.csv").write_text("step,ref,sample,tensor,grad_norm\n0,,own,weight,1.0\n")
    assert "Tensor by tensor" in trajcheck.draw_report(folder, ["png"]).left_out
    about = json.loads((folder / "summary.json").read_text())
    about["options"]["layers"] = True
    (folder / "summary.json").write_text(json.dumps(about))
    assert "Tensor by tensor" not in trajcheck.draw_report(folder, ["png"]).left_out
