"""Reports in a folder that others may write into, runs from strangers, and several calls at once."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from archives import statuses, write_archive
from plain_run_files import Outcome, write_plain_step
from remains import DEAD, lease_of
from safetensors.numpy import load_file, save_file

import trajcheck
from trajcheck.commands.analyze import command
from trajcheck.files import leases
from trajcheck.files.walking import make_folders

Cli = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "UNSAID", 0.05)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    folder = tmp_path / "victim"
    folder.mkdir()
    for name in ("steps.csv", "summary.json", "cosine.png", f"mean-{'0' * 16}-{'1' * 32}.safetensors"):
        (folder / name).write_text("precious")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 64 << 30)


def plant(kind: str, place: Path, target: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if kind == "link":
        place.symlink_to(target)
    elif kind == "hard link":
        os.link(target, place)
    else:
        {"pipe": os.mkfifo, "sparse": sparse}[kind](place)


@pytest.mark.parametrize("name", ["scalars", "summary.json", "steps.csv", ".publishing", ".batch.json", "figures"])
@pytest.mark.parametrize("kind", ["link", "pipe", "sparse"])
def test_what_others_plant_in_a_report(
    plain_run: Path, tmp_path: Path, victim: Path, cli: Cli, name: str, kind: str
) -> None:
    out, before = tmp_path / "out", content(victim)
    out.mkdir()
    place, target = out / name, victim if "." not in name[1:] else victim / "steps.csv"
    {"link": lambda: place.symlink_to(target), "pipe": lambda: os.mkfifo(place), "sparse": lambda: sparse(place)}[
        kind
    ]()
    said = cli("analyze", plain_run, "--ref", "mean:3", "--out", out, "--no-plots")
    assert said.code in (0, 5) and "Traceback" not in said.err and "a bug" not in said.err
    assert content(victim) == before
    if name in ("scalars", ".publishing") and (name, kind) != (".publishing", "sparse"):  # which is no lease
        assert said.code == 5 and name in said.err


@pytest.mark.parametrize("name", [".batch.lock", "x/.batch.json", "index.csv", "archive/a/.batch.json", "archive/a"])
@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "sparse"])
def test_what_others_plant_in_a_batch(tmp_path: Path, victim: Path, cli: Cli, name: str, kind: str) -> None:
    archive, out, before = write_archive(tmp_path / "archive", ("a",)), tmp_path / "out", content(victim)
    place, target = out / name, victim if name == "archive/a" else victim / "steps.csv"
    place.parent.mkdir(parents=True)
    if kind == "hard link":
        os.link(victim / "steps.csv", place)
    else:
        {"link": lambda: place.symlink_to(target), "pipe": lambda: os.mkfifo(place), "sparse": lambda: sparse(place)}[
            kind
        ]()
    said = cli("batch", archive, "--out", out, "--no-plots")
    assert said.code in (0, 4, 5) and "Traceback" not in said.err and "a bug" not in said.err
    assert content(victim) == before
    if said.code == 0:
        assert statuses(out) == {"a": "done"}


@pytest.mark.parametrize("name", ["run.json", "step-000000003.safetensors", "probe-000.safetensors"])
@pytest.mark.parametrize("kind", ["pipe", "sparse", "link"])
def test_what_strangers_put_into_a_run(plain_run: Path, cli: Cli, name: str, kind: str) -> None:
    (plain_run / name).unlink(missing_ok=True)
    plant(kind, plain_run / name, Path("/dev/zero"))
    for words in (("analyze", plain_run, "--no-plots", "--out", plain_run.parent / "out"), ("verify", plain_run)):
        said = cli(*words)
        assert said.code in (3, 4) and "Traceback" not in said.err and "a bug" not in said.err
        assert name in said.err + said.out
        assert kind == "sparse" or "not a regular file" in said.err + said.out


def test_a_step_that_is_a_link_to_itself(plain_run: Path, cli: Cli) -> None:
    step = plain_run / "step-000000003.safetensors"
    step.unlink()
    step.symlink_to(step)
    said = cli("analyze", plain_run, "--no-plots", "--out", plain_run.parent / "out")
    assert said.code == 3 and f"{step.name}: not a regular file" in said.err


def test_a_pipe_that_takes_a_steps_place_after_its_header_was_read(
    plain_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trajcheck.measuring.portions import Measurement

    compute = Measurement.compute
    step = plain_run / "step-000000003.safetensors"

    def swapped(*arguments: object) -> None:
        step.unlink()
        os.mkfifo(step)
        compute(*arguments)  # type: ignore[arg-type]

    for kernel in ("", "numpy"):
        whole = step.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(Measurement, "compute", swapped)
            if kernel:
                patch.setenv("TRAJCHECK_KERNEL", kernel)
            with pytest.raises(trajcheck.TrajcheckError, match=f"{step.name}: cannot be read: not a regular file"):
                trajcheck.analyze(plain_run, out=plain_run.parent / "out")
        step.unlink()
        step.write_bytes(whole)


def test_deep_folders_with_a_run_in_the_last(plain_run: Path, tmp_path: Path, cli: Cli) -> None:
    """Deeper than calls may be within one another; 1,000 by Python's own setting, which takes too long."""
    archive, out = tmp_path / "archive", tmp_path / "out"
    deep, before = archive.joinpath(*["d"] * 260), sys.getrecursionlimit()
    make_folders(deep)
    plain_run.rename(deep / "r")
    words = (("batch", archive, "--out", out, "--no-plots"), ("verify", archive), ("table", out))
    assert cli("batch", deep, "--out", tmp_path / "imports", "--no-plots").code == 0
    sys.setrecursionlimit(250)
    try:
        assert [cli(*each).code for each in words] == [0, 0, 0]
    finally:
        sys.setrecursionlimit(before)
    assert list(statuses(out).values()) == ["done"]


def test_two_analyses_into_one_report(plain_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second begins and ends while the first, which has made its average, is at work."""
    out, of_first, of_second = tmp_path / "out", tmp_path / "first", tmp_path / "second"
    second: dict[str, Any] = {"pca": 5, "layers": True}
    trajcheck.analyze(plain_run, ("mean:3",), out=of_first)
    trajcheck.analyze(plain_run, out=of_second, **second)
    measure = command.MeasuredRun.measure

    def slow(*arguments: object) -> object:
        with monkeypatch.context() as patch:
            patch.setattr(command.MeasuredRun, "measure", measure)
            trajcheck.analyze(plain_run, out=out, **second)
            assert tables(out) == tables(of_second)
            trajcheck.analyze(plain_run, out=out, fresh=True)
        return measure(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(command.MeasuredRun, "measure", slow)
        trajcheck.analyze(plain_run, ("mean:3",), out=out)
    assert tables(out) == tables(of_first)
    trajcheck.analyze(plain_run, out=out)
    assert not list((out / "scalars").glob("mean-*"))  # removed by one who is alone again


def tables(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("*.csv")}


def test_one_publishes_after_the_other(
    plain_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    from trajcheck.reports.making import folder

    monkeypatch.setattr(folder, "PATIENCE", 0.1)
    out = tmp_path / "out"
    out.mkdir()
    lease_of(out / ".publishing", os.getppid())
    said = cli("analyze", plain_run, "--out", out, "--no-plots")
    assert said.code == 5 and f"by process {os.getppid()} on node7" in said.err and not list(out.glob("*.csv"))
    lease_of(out / ".publishing", DEAD)
    assert cli("analyze", plain_run, "--out", out, "--no-plots").code == 0
    assert not (out / ".publishing").exists()


def test_two_runs_into_one_new_folder(plain_run: Path, tmp_path: Path) -> None:
    """Neither saw a report when it began; the second to end must not replace the first's."""
    from trajcheck.reports.making.folder import ReportFolder

    with ReportFolder(tmp_path / "out", "first") as first, ReportFolder(tmp_path / "out", "second") as second:
        second.publish({"summary.json": '{"run": {"id": "second"}}', "steps.csv": "2"})
        with pytest.raises(trajcheck.TrajcheckError, match="holds the report of another run"):
            first.publish({"summary.json": '{"run": {"id": "first"}}', "steps.csv": "1"})
    assert (tmp_path / "out" / "steps.csv").read_text() == "2"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("words", [("analyze", "--ref", "mean:3"), ("compare",)])
def test_a_signal_leaves_nothing_behind(
    plain_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli, number: int, words: tuple[str, ...]
) -> None:
    from trajcheck.reports.making import folder

    staged = folder.ReportFolder._staged

    def hit(*arguments: object) -> object:
        made = staged(*arguments)  # type: ignore[arg-type]
        os.kill(os.getpid(), number)
        return made

    monkeypatch.setattr(folder.ReportFolder, "_staged", staticmethod(hit))
    more = (write_archive(tmp_path / "other", ("a",)) / "a",) if words[0] == "compare" else ()
    said = cli(words[0], plain_run, *more, *words[1:], "--no-plots", "--out", tmp_path / "out")
    assert said.code == 128 + number
    left = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.parent.name != "scalars"]
    assert left == [] and signal.getsignal(number) == signal.SIG_DFL


def test_nohup_stays(plain_run: Path, tmp_path: Path, cli: Cli) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert cli("analyze", plain_run, "--out", tmp_path / "out", "--no-plots").code == 0
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_few_descriptors_suffice(tmp_path: Path) -> None:
    run, x = tmp_path / "run", np.ones(3, np.float32)
    run.mkdir()
    for step in range(300):
        write_plain_step(
            run, step, {"param/w": x * (1 + 1 / (step + 1)), "grad/w": x}, loss=1.0, lr=0.1, tau=0.1 * step
        )
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    whole = trajcheck.analyze(run, ("final", "mean:250"), pca=10, out=tmp_path / "whole").steps
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 100, before[1]))
    try:
        few = trajcheck.analyze(run, ("final", "mean:250"), pca=10, out=tmp_path / "out").steps
        assert trajcheck.verify(run).runs[0].damage == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert few.equals(whole)


def planted_average(out: Path, change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> Path:
    """Another average under the name that it has by its bytes."""
    [path] = (out / "scalars").glob("mean-*")
    head = path.read_bytes()[8:]
    metadata = json.JSONDecoder().raw_decode(head.decode("latin-1"))[0]["__metadata__"]
    save_file(change(load_file(path)), path, metadata)
    name = f"{path.name[:22]}{hashlib.sha256(path.read_bytes()).hexdigest()[:32]}.safetensors"
    return path.rename(path.with_name(name))


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: {name: value + 1 for name, value in tensors.items()},
        lambda tensors: {name: np.concatenate([value, value]) for name, value in tensors.items()},
        lambda tensors: {name: value.astype(np.int64) for name, value in tensors.items()},
        lambda tensors: dict([next(iter(tensors.items()))]),
    ],
)
def test_a_planted_average_is_not_believed(
    plain_run: Path, tmp_path: Path, change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
) -> None:
    out = tmp_path / "out"
    trajcheck.analyze(plain_run, ("mean:3",), out=out)
    before = tables(out)
    planted_average(out, change)
    for path in (out / "scalars").glob("*.safetensors"):
        if not path.name.startswith("mean"):
            path.unlink()
    trajcheck.analyze(plain_run, ("mean:3",), out=out)
    assert tables(out) == before


@pytest.mark.parametrize(
    ("key", "outside"),
    [("sources", "/dev/zero"), ("sources", "/etc/hostname"), ("tables", "../../../victim/steps.csv")],
)
def test_a_forged_note_names_no_file_outside(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, key: str, outside: str
) -> None:
    from trajcheck.commands.batch import run_state

    archive, out = write_archive(tmp_path / "archive", ("a",)), tmp_path / "out"
    assert cli("batch", archive, "--out", out, "--no-plots").code == 0
    note = out / "archive/a/.batch.json"
    said = json.loads(note.read_text())
    said[key] = {outside: "x" if key == "sources" else ["x", "y"]}
    del said["check"]
    note.write_text(json.dumps({**said, "check": run_state._hash(said)}))
    hash_file = Mock(wraps=run_state.hash_file)
    monkeypatch.setattr(run_state, "hash_file", hash_file)
    assert cli("batch", archive, "--out", out, "--no-plots").code == 0
    assert statuses(out) == {"a": "done"}
    assert all("archive/a/" in str(each.args[0]) for each in hash_file.call_args_list)


def test_rights_that_were_narrowed_stay(plain_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    trajcheck.analyze(plain_run, out=out)
    for path in out.glob("*.*"):
        path.chmod(0o600)
    trajcheck.analyze(plain_run, ("init",), out=out)
    assert {stat.S_IMODE(path.stat().st_mode) for path in out.glob("*.*")} == {0o600}


def test_an_empty_file_of_a_runs_name_above_makes_no_run(plain_run: Path, tmp_path: Path) -> None:
    up = tmp_path / "up"
    (up / "a").mkdir(parents=True)
    for name in ("run.json", "step-000000001.safetensors"):
        (up / name).touch()
    trajcheck.analyze(plain_run, out=up / "a" / "b")
    with pytest.raises(trajcheck.TrajcheckError, match="lies in the recorded run"):
        trajcheck.analyze(plain_run, out=plain_run / "a" / "b")


def test_names_of_runs_and_archives(tmp_path: Path, cli: Cli) -> None:
    """Such as a file system takes for one another, hidden ones, and those of a batch's own files."""
    archive = write_archive(tmp_path / "index.csv", ("Run", "run", ".hidden/deep"))
    out = tmp_path / "out"
    assert cli("batch", archive, "--out", out, "--no-plots").code == 0
    assert statuses(out) == {"Run": "done", "run": "done", "deep": "done"}
    folders = [path.parent.relative_to(out).as_posix().casefold() for path in out.rglob("summary.json")]
    assert len(set(folders)) == 3 and (out / "index.csv").is_file()


def test_numbers_have_bounds(plain_run: Path, tmp_path: Path, cli: Cli) -> None:
    for words in (
        ("batch", tmp_path, "--workers", 10**9),
        ("batch", tmp_path, "--timeout", f"{10**12}d"),
        ("batch", tmp_path, "--include", "*a" * 5000),
        ("analyze", plain_run, "--threads", 10**9),
        ("verify", plain_run, "--threads", 10**9),
    ):
        said = cli(*words)
        assert said.code == 2 and "expected" in said.err and len(said.err) < 2000
