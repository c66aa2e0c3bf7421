"""trajcheck/commands/batch/command.py and cli/batch.py: which runs are analyzed, which are left, and what is said."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from archives import files, index, index_rows, statuses, tables, write_archive, write_walk
from plain_run_files import Outcome
from remains import DEAD, ELSEWHERE, temporary_of

import trajcheck
from trajcheck import batch
from trajcheck.commands.batch.options import Override
from trajcheck.errors import OutputError, RunError, UsageError
from trajcheck.measuring.options import Options

Cli = Callable[..., Outcome]

NAMES = ("a", "b/c", "b/d")

settings = partial(trajcheck.BatchConfig, plots=False)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "archive", NAMES)


def analyzed(archive: Path, out: Path, **config: Any) -> dict[str, int]:
    result = batch([archive], out, settings(**config))
    return {**result.analyzed, **({"unchanged": result.unchanged} if result.unchanged else {})}


def test_each_run_has_the_report_that_analyze_gives(archive: Path, tmp_path: Path) -> None:
    before = files(archive)
    options = Options(refs=("final", "init", "mean:3", str(archive / "a")))
    assert analyzed(archive, tmp_path / "out", options=options) == {"done": 3}
    for name in NAMES:
        trajcheck.analyze(archive / name, options.refs, out=tmp_path / "alone" / name)
        assert tables(tmp_path / "out/archive" / name) == tables(tmp_path / "alone" / name)
    assert files(archive) == before


def test_index_has_a_row_a_run_and_reference(archive: Path, tmp_path: Path) -> None:
    (archive / "a/step-000000003.safetensors").write_bytes(b"damaged")
    analyzed(archive, tmp_path / "out", options=Options(refs=("final", "init")))
    rows = index(tmp_path / "out")
    assert list(rows) == ["a", "c", "d"]
    assert rows["a"]["status"] == "failed" and "step-000000003" in rows["a"]["message"] and not rows["a"]["report"]
    row = rows["c"]
    assert row["run"] == str(archive / "b/c") and row["report"] == "archive/b/c" and row["id"] == "c-1"
    assert (row["recorded_steps"], row["first_step"], row["last_step"], row["left_out"]) == ("6", "0", "5", "0")
    head = json.loads((tmp_path / "out/archive/b/c/summary.json").read_text())["headline"]
    rows = {row["ref"]: row for row in index_rows(tmp_path / "out") if Path(row["run"]).name == "c"}
    assert list(rows) == ["final", "init", "x_(t-1)"] and {row["sample"] for row in rows.values()} == {"own"}
    for spec in ("final", "init"):
        assert rows[spec]["cosine"] == str(head["references"][spec]["cosine"] or "")
        assert rows[spec]["convexity_num"] == str(head["references"][spec]["convexity_num"] or "")
    assert rows["x_(t-1)"]["convexity_num"] == str(head["previous"]["convexity_num"] or "")
    assert rows["x_(t-1)"]["cosine"] == ""


def test_only_what_has_changed_is_analyzed(archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert analyzed(archive, out) == {"done": 3}
    before = files(out)
    assert analyzed(archive, out) == {"unchanged": 3}
    assert files(out) == before
    write_walk(archive / "b/c", range(5, 9), seed=1)
    assert analyzed(archive, out) == {"done": 1, "unchanged": 2}
    summary = json.loads((out / "archive/b/c/summary.json").read_text())
    assert summary["run"]["last_step"] == 8
    trajcheck.analyze(archive / "b/c", out=tmp_path / "alone")
    assert tables(out / "archive/b/c") == tables(tmp_path / "alone")


def test_a_run_that_has_grown_adds_what_is_missing(archive: Path, tmp_path: Path) -> None:
    config = {"options": Options(refs=("init",)), "include": ("a",)}
    analyzed(archive, tmp_path / "out", **config)
    write_walk(archive / "a", range(6, 12), seed=0)
    analyzed(archive, tmp_path / "out", **config)
    summary = json.loads((tmp_path / "out/archive/a/summary.json").read_text())
    assert summary["scalars"] == {"computed": 7, "reused": 5}


@pytest.mark.parametrize(
    "change", ["options", "table gone", "table other", "state gone", "state other", "other reference"]
)
def test_what_makes_a_report_outdated(archive: Path, tmp_path: Path, change: str) -> None:
    out, options = tmp_path / "out", Options(refs=("final", str(archive / "a")))
    analyzed(archive, out, options=options)
    report = out / "archive/b/c"
    before = tables(report)
    left = 2
    if change == "options":
        options, left = Options(refs=("init",)), 0
    elif change == "table gone":
        (report / "undefined.csv").unlink()
    elif change == "table other":
        (report / "steps.csv").write_bytes(before["steps.csv"][:-2] + b"7\n")
    elif change == "state gone":
        (report / ".batch.json").unlink()
    elif change == "state other":
        text = (report / ".batch.json").read_text()
        (report / ".batch.json").write_text(text.replace('"left_out": 0', '"left_out": 4'))
    else:
        os.utime(archive / "a/step-000000002.safetensors", (1, 1))
        left = 0
    assert analyzed(archive, out, options=options) == {"done": 3 - left, **({"unchanged": left} if left else {})}
    assert change == "options" or tables(report) == before
    assert analyzed(archive, out, options=options) == {"unchanged": 3}


def test_tables_that_were_only_touched_stay(archive: Path, tmp_path: Path) -> None:
    analyzed(archive, tmp_path / "out")
    for path in (tmp_path / "out").rglob("*.csv"):
        os.utime(path, (1, 1))
    assert analyzed(archive, tmp_path / "out") == {"unchanged": 3}


def test_deep_knows_files_by_their_bytes(archive: Path, tmp_path: Path) -> None:
    step = archive / "a/step-000000002.safetensors"
    analyzed(archive, tmp_path / "out", deep=True)
    os.utime(step, (1, 1))
    assert analyzed(archive, tmp_path / "out", deep=True) == {"unchanged": 3}
    data, time_ = bytearray(step.read_bytes()), step.stat().st_mtime_ns
    data[-3] ^= 1
    step.write_bytes(data)
    os.utime(step, ns=(time_, time_))
    assert analyzed(archive, tmp_path / "out", deep=True) == {"done": 1, "unchanged": 2}
    trajcheck.analyze(archive / "a", out=tmp_path / "alone")
    assert tables(tmp_path / "out/archive/a") == tables(tmp_path / "alone")


def test_failed_runs_are_tried_again_and_keep_their_reports(archive: Path, tmp_path: Path) -> None:
    out, step = tmp_path / "out", archive / "a/step-000000002.safetensors"
    analyzed(archive, out)
    whole, before = step.read_bytes(), tables(out / "archive/a")
    step.write_bytes(whole[:100])
    for _ in range(2):
        assert analyzed(archive, out) == {"failed": 1, "unchanged": 2}
        assert statuses(out) == {"a": "failed", "c": "done", "d": "done"}
        assert tables(out / "archive/a") == before
    step.write_bytes(whole)
    assert analyzed(archive, out) == {"done": 1, "unchanged": 2}
    assert tables(out / "archive/a") == before


def test_a_run_that_has_gone_keeps_its_row(archive: Path, tmp_path: Path) -> None:
    analyzed(archive, tmp_path / "out")
    shutil.rmtree(archive / "a")
    assert analyzed(archive, tmp_path / "out") == {"unchanged": 2}
    assert statuses(tmp_path / "out") == {"a": "gone", "c": "done", "d": "done"}


def test_runs_may_be_called_as_parts_of_reports_are(tmp_path: Path) -> None:
    write_archive(tmp_path / "archive", ("figures/scalars", "scalars"))
    analyzed(tmp_path / "archive", tmp_path / "out")
    assert len(index(tmp_path / "out")) == 1 and len(index_rows(tmp_path / "out")) == 4


def test_max_runs_leaves_the_others_for_the_next_call(archive: Path, tmp_path: Path) -> None:
    result = batch([archive], tmp_path / "out", settings(max_runs=2))
    assert (result.analyzed["done"], result.remaining) == (2, 1)
    result = batch([archive], tmp_path / "out", settings(max_runs=2))
    assert (result.analyzed["done"], result.unchanged, result.remaining) == (1, 2, 0)


def test_the_time_is_up(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: Any, **__: Any) -> None:
        time.sleep(60)

    monkeypatch.setattr("trajcheck.commands.analyze.command.report_of", slow)
    began = time.monotonic()
    result = batch([archive], tmp_path / "out", settings(timeout=0.2))
    assert time.monotonic() - began < 30
    assert (result.remaining, result.stopped) == (3, None)
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL


def test_options_by_pattern(archive: Path, tmp_path: Path, objective_file: Path) -> None:
    overrides = (Override("b/*", {"objective": f"{objective_file}:good"}), Override("*d", {"refs": ("init",)}))
    analyzed(archive, tmp_path / "out", overrides=overrides)
    heads = {
        name: json.loads((tmp_path / "out/archive" / name / "summary.json").read_text())["headline"]["references"]
        for name in NAMES
    }
    assert [list(heads[name]) for name in NAMES] == [["final"], ["final"], ["init"]]
    assert heads["a"]["final"]["shares"] is None and heads["b/c"]["final"]["shares"] is not None


def test_long_runs_by_chunks_give_the_same_bytes(
    tmp_path: Path, objective_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two long runs among the workers, one of them damaged."""
    for seed, name in enumerate(("one", "two")):
        write_walk(tmp_path / "archive" / name, range(70), seed)
    (tmp_path / "archive/two/step-000000050.safetensors").write_bytes(b"x")
    options = Options(refs=("final", "mean:3"), objective=f"{objective_file}:good", memory_lags=(1,))
    result = batch([tmp_path / "archive"], tmp_path / "out", settings(workers=2, options=options))
    assert result.analyzed == {"done": 1, "failed": 1}
    assert "step-000000050" in index(tmp_path / "out")["two"]["message"]
    trajcheck.analyze(
        tmp_path / "archive/one",
        options.refs,
        options.objective,
        memory_lags=options.memory_lags,
        out=tmp_path / "alone",
    )
    assert tables(tmp_path / "out/archive/one") == tables(tmp_path / "alone")
    summary = json.loads((tmp_path / "out/archive/one/summary.json").read_text())
    assert summary["scalars"] == {"computed": 0, "reused": 70}
    (tmp_path / "archive/two/step-000000050.safetensors").unlink()
    again = settings(workers=2, options=options, include=("one",))
    assert batch([tmp_path / "archive"], tmp_path / "out", again).unchanged == 1


def test_reports_never_go_into_a_run(archive: Path, tmp_path: Path) -> None:
    before = files(archive)
    for out in (archive.parent, archive / "a", archive / "a/reports"):
        with pytest.raises(OutputError, match="never written to"):
            batch([archive], out, settings())
    with pytest.raises(OutputError, match="never written to"):
        batch([archive], archive.parent, settings(include=("b/*",), exclude=("b/c",)))
    link = tmp_path / "link"
    link.symlink_to(archive.parent)
    with pytest.raises(OutputError, match="never written to"):
        batch([archive], link, settings())
    assert files(archive) == before


def test_reports_may_lie_in_the_archive(archive: Path) -> None:
    for _ in range(2):
        batch([archive], archive / "reports", settings())
    assert list(statuses(archive / "reports")) == ["a", "c", "d"]


def test_remains_of_killed_processes_are_removed(archive: Path, tmp_path: Path) -> None:
    """Of dead ones of this very place, in our own output; of nobody else, and nowhere else."""
    out = tmp_path / "out"
    analyzed(archive, out)
    report, victim = out / "archive/a", tmp_path / "victim"
    (report / temporary_of(DEAD, "work")).mkdir()
    for place, name in ((out, "index.csv"), (report, ".batch.json"), (report / "scalars", "x.safetensors")):
        (place / temporary_of(DEAD, name)).write_bytes(b"")
    shutil.copytree(archive / "a", out / "copied")
    kept = [
        *(
            out / temporary_of(process, "index.csv", place)
            for process, place in ((os.getppid(), None), (DEAD, ELSEWHERE))
        ),
        out / "notes" / ".draft.31337000.tmp",
        out / "notes" / temporary_of(DEAD, "draft"),
        out / "copied" / temporary_of(DEAD, "step-000000010.safetensors"),
        victim / temporary_of(DEAD, "index.csv"),
    ]
    for path in kept:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    (out / "linked").symlink_to(victim)
    analyzed(archive, out)
    assert sorted(path for path in [*out.rglob("*.tmp"), *victim.iterdir()]) == sorted(kept)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("last", ["summary.json", "steps.csv", "references.csv", "undefined.csv"])
def test_a_first_report_of_which_a_part_is_there(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    """The process was killed between two of its files: the next call must not take them for somebody else's."""
    replace = os.replace

    def killed(source: str, target: str, **folders: int) -> None:
        replace(source, target, **folders)
        if Path(target).name == last:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(os, "replace", killed)
        analyzed(archive, tmp_path / "out", include=("a",))
    assert (tmp_path / "out/archive/a" / last).exists()
    assert analyzed(archive, tmp_path / "out", include=("a",)) == {"done": 1}


def test_a_damaged_average_is_made_again(archive: Path, tmp_path: Path) -> None:
    options = Options(refs=("mean:3",))
    analyzed(archive, tmp_path / "out", options=options)
    before = tables(tmp_path / "out/archive/a")
    (mean,) = (tmp_path / "out/archive/a/scalars").glob("mean-*")
    data = bytearray(mean.read_bytes())
    data[-1] ^= 64
    for path in mean.parent.iterdir():
        path.unlink()
    mean.write_bytes(data)
    (tmp_path / "out/archive/a/.batch.json").unlink()
    assert analyzed(archive, tmp_path / "out", options=options) == {"done": 1, "unchanged": 2}
    assert tables(tmp_path / "out/archive/a") == before
    assert mean.read_bytes() != data


def test_a_run_that_changes_while_it_is_read(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was saved meanwhile is not believed, though the file comes back with its old time."""
    from trajcheck.measuring.portions import Measurement

    step, compute = archive / "a/step-000000003.safetensors", Measurement.compute
    whole, times = step.read_bytes(), (step.stat().st_atime_ns, step.stat().st_mtime_ns)

    def flipped(*arguments: Any) -> None:
        step.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        compute(*arguments)

    config = {"include": ("a",), "interval": 0.0}
    with monkeypatch.context() as patch:
        patch.setattr(Measurement, "compute", flipped)
        analyzed(archive, tmp_path / "out", **config)
    step.write_bytes(whole)
    os.utime(step, ns=times)
    os.unlink(tmp_path / "out/archive/a/.batch.json")
    analyzed(archive, tmp_path / "out", **config)
    trajcheck.analyze(archive / "a", out=tmp_path / "alone")
    assert tables(tmp_path / "out/archive/a") == tables(tmp_path / "alone")


def test_a_run_that_vanishes_is_no_bug(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trajcheck.measuring import audited as analysis

    opened = analysis.load_trajectory

    def gone(run: Path, skip_bad: bool, *more: Any) -> Any:
        shutil.rmtree(run)
        return opened(run, skip_bad, *more) if run.name == "c" else os.listdir(run)

    monkeypatch.setattr(analysis, "load_trajectory", gone)
    assert analyzed(archive, tmp_path / "out") == {"failed": 3}
    for name in ("a", "c", "d"):
        message = json.loads(next((tmp_path / "out").rglob(f"{name}/.batch.json")).read_text())["row"]["message"]
        assert str(archive) in message and "bug" not in message


def test_a_table_that_vanishes_is_made_again(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that somebody takes away before the batch has noted it: the report is not held to be whole without it."""
    from trajcheck.commands.batch import tasks

    def late(folder: Path, files: Any) -> Any:
        (folder / "steps.csv").unlink()
        return tables_of(folder, files)

    tables_of = tasks.tables_of
    with monkeypatch.context() as patched:
        patched.setattr(tasks, "tables_of", late)
        assert analyzed(archive, tmp_path / "out") == {"failed": 3}
    assert analyzed(archive, tmp_path / "out") == {"done": 3}


def test_nothing_to_analyze(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="no run below"):
        batch([tmp_path / "empty"], tmp_path / "out")
    with pytest.raises(RunError, match="no such folder"):
        batch([tmp_path / "nowhere"], tmp_path / "out")
    write_walk(tmp_path / "empty/run")
    with pytest.raises(RunError, match="patterns"):
        batch([tmp_path / "empty"], tmp_path / "out", settings(exclude=("*",)))
    with pytest.raises(UsageError):
        batch([tmp_path / "empty"], tmp_path / "out", settings(workers=0))
    assert not (tmp_path / "out").exists()


# -- the command ------------------------------------------------------------------------------------------------------


def test_exit_codes(cli: Cli, archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert cli("batch", archive, "--out", out).code == 0
    assert cli("batch", archive, "--out", out, "--timeout", "soon").code == 2
    assert cli("batch", archive, "--out", out, "--workers", 0).code == 2
    assert cli("batch", archive, "--out", out, "--ref", "final", "--config", tmp_path / "no.toml").code == 2
    assert cli("batch", tmp_path / "nowhere", "--out", out).code == 3
    (tmp_path / "file").touch()
    assert cli("batch", archive, "--out", tmp_path / "file").code == 5
    assert cli("batch", archive, "--out", out, "--log", tmp_path / "no/log").code == 5
    (archive / "a/step-000000001.safetensors").unlink()
    (archive / "a/step-000000001.safetensors").mkdir()
    failed = cli("batch", archive, "--out", out)
    assert failed.code == 4 and "step-000000001" in failed.err


def test_silence_where_no_terminal_is(cli: Cli, archive: Path, tmp_path: Path) -> None:
    assert cli("batch", archive, "--out", tmp_path / "out") == Outcome(0, "", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it(archive: Path, tmp_path: Path, number: signal.Signals) -> None:
    for seed in range(12):
        write_walk(archive / f"more/{seed}", seed=seed)
    out = tmp_path / "out"
    log = tmp_path / "log"
    started = subprocess.Popen([sys.executable, "-m", "trajcheck", "batch", archive, "--out", out, "--log", log])
    until = time.monotonic() + 120
    while not (log.exists() and log.read_text().count("done") >= 2) and time.monotonic() < until:
        time.sleep(0.01)
    started.send_signal(number)
    assert started.wait(60) == 128 + number
    assert f"{number.name}: ended" in log.read_text()
    done = sum(status == "done" for status in statuses(out).values())
    assert 2 <= done == log.read_text().count(": done")
    assert analyzed(archive, out) == {"unchanged": done, **({"done": 15 - done} if done < 15 else {})}


def test_logs(cli: Cli, archive: Path, tmp_path: Path) -> None:
    (archive / "a/step-000000001.safetensors").write_bytes(b"")
    log = tmp_path / "log"
    said = cli("batch", archive, "--out", tmp_path / "out", "--log", log)
    lines = log.read_text().splitlines()
    assert len(lines) == 3 and " WARNING " in lines[0] and lines[1].endswith("b/c: done")
    assert len(said.err.splitlines()) == 1 and said.err.startswith("trajcheck: ")
    cli("batch", archive, "--out", tmp_path / "other", "--log", log)
    assert len(log.read_text().splitlines()) == 6
    said = cli("batch", archive, "--out", tmp_path / "third", "--json-log")
    found = [json.loads(line) for line in said.err.splitlines()]
    assert [each["status"] for each in found] == ["failed", "done", "done"]
    assert found[1]["run"] == str(archive / "b/c") and found[1]["duration"] > 0 and found[1]["level"] == "info"
    cli("batch", archive, "--out", tmp_path / "fourth", "--json-log", "--log", log)
    assert [json.loads(line)["status"] for line in log.read_text().splitlines()[6:]] == ["failed", "done", "done"]


def test_a_log_may_be_rotated_meanwhile(archive: Path, tmp_path: Path) -> None:
    from trajcheck.cli.batch_log import LOGGER, batch_log

    log = tmp_path / "log"
    with batch_log(log, as_json=False, verbose=False):
        LOGGER.info("one")
        log.rename(tmp_path / "log.1")
        LOGGER.info("two")
    assert (tmp_path / "log.1").read_text().endswith("one\n") and log.read_text().endswith("two\n")
    assert logging.getLogger("trajcheck.batch").propagate
