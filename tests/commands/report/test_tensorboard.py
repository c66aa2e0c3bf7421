"""trajcheck report --tensorboard: every number under its tag and step, read back with TensorBoard's own reader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from plain_run_files import Outcome
from saved_reports import analysis

import trajcheck
from trajcheck.errors import OutputError, UsageError
from trajcheck.reports import extras

pytest.importorskip("tensorboard")

Cli = Callable[..., Outcome]
Points = dict[str, dict[int, float]]


def read(folder: Path) -> Points:
    """Each tag's values by step; that no step is there twice is checked."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    found = {}
    for tag in events.Tags()["scalars"]:
        points = events.Scalars(tag)
        found[tag] = {each.step: each.value for each in points}
        assert len(found[tag]) == len(points), tag
    return found


def test_every_number_is_there_and_no_empty_cell(cli: Cli, tmp_path: Path) -> None:
    gaps = np.where(np.arange(40) % 3 == 0, np.nan, np.linspace(-1, 1, 40))
    folder = analysis(tmp_path / "some", ("final", "init"), samples=("own", "probe"), change={"cos": gaps})
    done = cli("report", folder, "--tensorboard", tmp_path / "tb")
    place = tmp_path / "tb" / "some-trajcheck"
    assert done.code == 0 and done.out.startswith(f"{place}: ") and not (folder / "report.html").exists()
    found = read(place)
    expected = 0
    tables = {
        "steps": ["sample"],
        "references": ["ref", "sample"],
        "schedule": ["ref", "sample"],
        "allocation": ["sample", "tensor", "group"],
        "averages": ["average", "sample"],
        "trajectory": [],
        "losses": [],
    }
    for table, keys in tables.items():
        frame = pd.read_csv(folder / f"{table}.csv")
        for words, rows in frame.groupby(keys) if keys else [((), frame)]:
            parts = ["trajcheck", *([] if table == "references" else [table]), *map(str, words)]
            for column in set(map(str, frame)) - {*keys, "step", "until"}:
                defined = rows[rows[column].notna()]
                values = dict(zip(defined["step"], defined[column], strict=True))
                assert found["/".join([*parts, column])] == pytest.approx(values, rel=1e-6), column
                expected += 1
    assert len(found) == expected
    assert sorted(found["trajcheck/final/own/cos"]) == [step for step in range(40) if step % 3]


def test_again_it_replaces_its_own_and_the_numbers_are_those_of_the_new_report(cli: Cli, tmp_path: Path) -> None:
    place = tmp_path / "tb" / "some-trajcheck"
    for created, value in (("2026-01-01T00:00:00+00:00", 1.0), ("2026-01-02T00:00:00+00:00", 2.0)):
        folder = analysis(tmp_path / "some", rows=5, change={"cos": value}, created=created)
        for _ in range(2):
            assert cli("report", folder, "--tensorboard", tmp_path / "tb", "--quiet") == (0, "", "")
        assert len(list(place.glob("events*"))) == 1
        assert read(place)["trajcheck/final/own/cos"] == dict.fromkeys(range(5), value)


def test_nothing_of_anybody_else_is_touched(cli: Cli, tmp_path: Path) -> None:
    training = tmp_path / "tb" / "events.out.tfevents.1.of-the-training"
    other = tmp_path / "tb" / "some-trajcheck" / "notes.txt"
    other.parent.mkdir(parents=True)
    training.write_bytes(b"curves")
    other.write_text("mine")
    folder = analysis(tmp_path / "some", rows=4)
    done = cli("report", folder, "--tensorboard", tmp_path / "tb")
    assert done.code == 5 and "holds other files (notes.txt)" in done.err and "--tensorboard" in done.err
    assert "--out" not in done.err and other.read_text() == "mine" and training.read_bytes() == b"curves"
    assert sorted(path.name for path in other.parent.iterdir()) == ["notes.txt"]


def test_two_reports_of_one_name_are_not_mixed(tmp_path: Path) -> None:
    first = analysis(tmp_path / "a" / "some", rows=4, change={"cos": 0.25})
    second = analysis(tmp_path / "b" / "some", rows=4, change={"cos": 0.5})
    trajcheck.write_tensorboard(first, tmp_path / "tb")
    with pytest.raises(OutputError, match="holds the report of another"):
        trajcheck.write_tensorboard(second, tmp_path / "tb")
    assert read(tmp_path / "tb" / "some-trajcheck")["trajcheck/final/own/cos"][0] == 0.25


def test_several_reports_are_a_run_each_or_none_is_written(tmp_path: Path) -> None:
    folders = [analysis(tmp_path / name / "report", rows=4, change={"cos": k}) for k, name in ((0.5, "a"), (0.25, "b"))]
    runs = trajcheck.write_tensorboard(folders, tmp_path / "tb")
    assert [run.name for run in runs] == ["a-report-trajcheck", "b-report-trajcheck"]
    assert [read(Path(run.place))["trajcheck/final/own/cos"][3] for run in runs] == [0.5, 0.25]
    occupied = tmp_path / "other" / "b-report-trajcheck" / "mine"
    occupied.parent.mkdir(parents=True)
    occupied.write_text("")
    with pytest.raises(OutputError):
        trajcheck.write_tensorboard(folders, tmp_path / "other")
    assert not (tmp_path / "other" / "a-report-trajcheck").exists()
    with pytest.raises(UsageError, match="given twice"):
        trajcheck.write_tensorboard([folders[0], folders[0]], tmp_path / "tb")


def test_names_that_would_share_a_tag_do_not(tmp_path: Path) -> None:
    """References that are called as tables are, or that differ in what divides tags."""
    refs = ["steps", "runs/a", "runs.a", "layers"]
    folder = analysis(tmp_path / "some", refs, rows=3)
    frame = pd.read_csv(folder / "references.csv")
    found = read(Path(trajcheck.write_tensorboard(folder, tmp_path / "tb")[0].place))
    for ref, tag in zip(refs, ("steps-2", "runs.a", "runs.a-2", "layers-2"), strict=True):
        values = frame[frame["ref"] == ref]["ref_dist"].tolist()
        assert list(found[f"trajcheck/{tag}/own/ref_dist"].values()) == pytest.approx(values, rel=1e-6)
    assert "trajcheck/steps/own/ref_dist" not in found


def test_values_beyond_float32_are_left_out_and_counted(cli: Cli, tmp_path: Path) -> None:
    values = np.array([1.0, 1e300, -1e-300, 0.0])
    folder = analysis(tmp_path / "some", rows=4, only=("cos",), change={"cos": values})
    done = cli("report", folder, "--tensorboard", tmp_path / "tb")
    assert done.code == 0 and "left out   2 values beyond what TensorBoard can hold" in done.out
    assert read(tmp_path / "tb" / "some-trajcheck")["trajcheck/final/own/cos"] == {0: 1.0, 3: 0.0}


def test_what_is_missing_or_contradicts(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = analysis(tmp_path / "some", rows=4)
    for option in ("--out", "--format", "--ref"):
        done = cli("report", folder, "--tensorboard", tmp_path / "tb", option, "png")
        assert done.code == 2 and "are of figures" in done.err
    assert cli("report", tmp_path / "nowhere", "--tensorboard", tmp_path / "tb").code == 3
    steps = (folder / "steps.csv").read_text().splitlines()
    broken = analysis(tmp_path / "broken", rows=4)
    (broken / "steps.csv").write_text("\n".join([*steps[:2], "," + steps[2].partition(",")[2]]) + "\n")
    done = cli("report", broken, "--tensorboard", tmp_path / "tb")
    assert done.code == 3 and "a row has no step" in done.err and not (tmp_path / "tb").exists()
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    done = cli("report", folder, "--tensorboard", tmp_path / "tb")
    assert done.code == 2 and "--tensorboard needs tensorboard: pip install 'trajcheck[tensorboard]'" in done.err
    done = cli("report", folder, "--wandb", "project")
    assert done.code == 2 and "--wandb needs wandb: pip install 'trajcheck[wandb]'" in done.err
    assert not (tmp_path / "tb").exists()


def test_a_comparison_and_its_tensors(cli: Cli, tmp_path: Path) -> None:
    from places import SAMPLES

    runs = [SAMPLES / f"digits-sgd-seed{seed}" for seed in (0, 1)]
    out = tmp_path / "pair"
    made = trajcheck.compare(*runs, objective="none", steps="0:5", layers=True, out=out)
    found = read(Path(trajcheck.write_tensorboard(out, tmp_path / "tb")[0].place))
    (folder,) = {tag.split("/")[2] for tag in found if tag.startswith("trajcheck/compare/")}
    expected = dict(zip(made.pairs["step_a"], made.pairs["dist"], strict=True))
    assert found[f"trajcheck/compare/{folder}/dist"] == pytest.approx(expected, rel=1e-6)
    assert f"trajcheck/layers/{folder}/0.weight/dist" in found
