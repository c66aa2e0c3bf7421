"""trajcheck/runners/processes.py: workers that die, results that do not fit, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import mapped_functions
import pytest
from places import HELPERS
from processes_seen import eventually, runs

from trajcheck.errors import RunnerError
from trajcheck.runners import Done, Failed, Lost
from trajcheck.runners.processes import ProcessRunner
from trajcheck.runners.processors import threads_variable, usable_processors

REST = {"name": "rest", "seconds": 60}


def runner(workers: int = 2, devices: tuple[str, ...] = ()) -> ProcessRunner:
    return ProcessRunner(workers, devices, allow=(mapped_functions.THIS,))


def mapped(name: str) -> str:
    return f"{mapped_functions.THIS}:{name}"


def children() -> set[int]:
    """Processes whose parent is this one, and that run."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == os.getpid() and state != "Z":
            found.add(int(stat.parent.name))
    return found


@pytest.fixture(autouse=True)
def no_process_is_left() -> Any:
    before = children()
    yield
    assert children() <= before


def test_a_killed_worker_costs_a_second_try_of_its_task_alone(tmp_path: Path) -> None:
    tasks = [{"name": f"t{n}", "folder": str(tmp_path), "times": 1 if n == 3 else 0} for n in range(8)]
    outcomes = {task["name"]: outcome for task, outcome in runner().map(mapped("die"), tasks)}
    assert outcomes == {f"t{n}": Done("alive") for n in range(8)}
    tries = {name: sorted(path.read_text() for path in tmp_path.glob(f"{name}-*")) for name in outcomes}
    assert {name: len(pids) for name, pids in tries.items()} == {f"t{n}": 2 if n == 3 else 1 for n in range(8)}
    assert len(set(tries["t3"])) == 2  # in a fresh process


def test_a_task_that_kills_every_worker_is_lost_after_three(tmp_path: Path) -> None:
    tasks = [{"name": f"t{n}", "folder": str(tmp_path), "times": 99 if n == 1 else 0} for n in range(5)]
    outcomes = {task["name"]: outcome for task, outcome in runner().map(mapped("die"), tasks)}
    lost = outcomes.pop("t1")
    assert lost == Lost("worker was killed by signal 9 (out of memory?) three times")
    assert len(list(tmp_path.glob("t1-*"))) == 3
    assert set(outcomes.values()) == {Done("alive")} and len(outcomes) == 4


def test_a_worker_that_exits_is_told_from_one_that_is_killed(tmp_path: Path) -> None:
    task = {"name": "t", "folder": str(tmp_path), "times": 99, "how": "exit"}
    ((_, outcome),) = runner(1).map(mapped("die"), [task])
    assert outcome == Lost("worker ended with exit code 3 three times")


def test_sys_exit_in_a_task_is_its_failure() -> None:
    ((_, outcome),) = runner(1).map(mapped("fail"), [{"name": "a", "how": "exit"}])
    assert isinstance(outcome, Failed) and (outcome.kind, outcome.exit_code) == ("SystemExit", 1)


def test_workers_killed_from_outside_at_any_moment_lose_nothing() -> None:
    tasks = [{"name": f"t{n}", "number": n % 256, "size": 200_000} for n in range(300)]
    outcomes = runner(2).map(mapped("huge"), tasks)
    seen: list[str] = []
    kills = 0
    with closing(outcomes):
        for task, outcome in outcomes:
            seen.append(task["name"])
            assert outcome == Done(bytes([task["number"]]) * 200_000)
            if len(seen) % 30 == 10:
                os.kill(max(children()), signal.SIGKILL)
                kills += 1
    assert sorted(seen) == sorted(str(task["name"]) for task in tasks) and kills == 10


def test_an_idle_worker_that_is_killed_is_not_missed() -> None:
    outcomes = runner(2).map(mapped("rest"), [{"name": "a", "seconds": 0}, {"name": "b", "seconds": 2}])
    (_, first) = next(outcomes)
    assert isinstance(first, Done)
    os.kill(first.value, signal.SIGKILL)
    assert [task["name"] for task, _ in outcomes] == ["b"]


def test_huge_results_arrive_whole() -> None:
    size = 50_000_000
    for task, outcome in runner().map(mapped("huge"), [{"name": "a", "number": n, "size": size} for n in (1, 2, 3)]):
        assert outcome == Done(bytes([task["number"]]) * size)


@pytest.mark.parametrize("name", ["no_json", "endless"])
def test_a_result_that_cannot_be_sent_is_a_failure(name: str) -> None:
    outcomes = [outcome for _, outcome in runner(1).map(mapped(name), [{"name": "a"}, {"name": "b"}])]
    assert len(outcomes) == 2 and all(isinstance(outcome, Failed) and outcome.is_bug for outcome in outcomes)


@pytest.mark.parametrize("deaf", ["", "to the interpreter"])
def test_closing_stops_workers_in_the_middle_of_tasks(tmp_path: Path, deaf: str) -> None:
    before = children()
    rest = {**REST, "deaf": deaf, "folder": str(tmp_path)}
    outcomes = runner(2).map(mapped("rest"), [{"name": "a", "seconds": 0}, rest, rest, rest])
    next(outcomes)
    assert eventually((tmp_path / "rest.pid").exists) and len(children() - before) == 2
    began = time.monotonic()
    outcomes.close()
    assert children() == before and time.monotonic() - began < 5


def test_an_interrupt_stops_workers_and_goes_on() -> None:
    before = children()
    old = signal.signal(signal.SIGALRM, _interrupt)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    try:
        with pytest.raises(KeyboardInterrupt):
            list(runner(2).map(mapped("rest"), [REST, REST]))
    finally:
        signal.signal(signal.SIGALRM, old)
    assert children() == before


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_interrupts_at_any_moment_of_the_start_leave_no_process() -> None:
    before, over = children(), threading.Event()
    other = threading.Thread(target=over.wait)  # the kernel may give an interrupt to any thread
    other.start()
    old = signal.signal(signal.SIGINT, _interrupt)
    try:
        for delay in range(20):
            code = f"import os, time; time.sleep({delay / 200}); os.kill({os.getpid()}, 2)"
            killer = subprocess.Popen([sys.executable, "-S", "-E", "-c", code])
            with pytest.raises(KeyboardInterrupt):
                list(runner(2).map(mapped("rest"), [REST, REST]))
            killer.wait()
            assert children() == before
    finally:
        signal.signal(signal.SIGINT, old)
        over.set()
        other.join()


def test_workers_that_are_being_started_do_not_hear_ctrl_c(capfd: pytest.CaptureFixture[str]) -> None:
    before, done = children(), threading.Event()

    def interrupt() -> None:
        while not done.is_set():
            for pid in children() - before:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        outcomes = list(runner(2).map(mapped("square"), [{"name": str(n), "number": n} for n in range(10)]))
    finally:
        done.set()
        thread.join()
    assert len(outcomes) == 10 and capfd.readouterr().err == ""


def test_workers_do_not_hear_ctrl_c(tmp_path: Path) -> None:
    task = {"name": "a", "seconds": 1, "folder": str(tmp_path)}
    outcomes = runner(2).map(mapped("rest"), [{"name": "first", "seconds": 0}, task])
    next(outcomes)
    assert eventually((tmp_path / "a.pid").exists)
    pid = int((tmp_path / "a.pid").read_text())
    os.kill(pid, signal.SIGINT)
    ((_, outcome),) = outcomes
    assert outcome == Done(pid)  # the same one, to the end


@pytest.mark.parametrize("deaf", ["", "to the kernel", "to the interpreter"])
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc, and switches off Linux's signal to orphans")
def test_a_killed_parent_leaves_no_worker(tmp_path: Path, deaf: str) -> None:
    code = f"""
import sys; sys.path.insert(0, {str(HELPERS)!r})
from trajcheck.runners.processes import ProcessRunner
tasks = [{{"name": name, "seconds": 60, "folder": {str(tmp_path)!r}, "deaf": {deaf!r}}} for name in "ab"]
list(ProcessRunner(2, allow=["mapped_functions"]).map("mapped_functions:rest", tasks))
"""
    parent = subprocess.Popen([sys.executable, "-c", code])
    assert eventually(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
    workers = [int(path.read_text()) for path in tmp_path.glob("*.pid")]
    assert all(runs(pid) for pid in workers)
    parent.kill()
    parent.wait()
    assert eventually(lambda: not any(runs(pid) for pid in workers), 5.0)


def test_a_script_without_a_guard_is_not_run_again(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"""
import sys; sys.path.insert(0, {str(HELPERS)!r})
print("begins")
from trajcheck.runners.processes import ProcessRunner
runner = ProcessRunner(2, allow=["mapped_functions"])
print([outcome.value for _, outcome in runner.map("mapped_functions:square", [{{"name": "a", "number": 3}}])])
"""
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("begins\n[9]\n", "")


def test_workers_that_never_start_are_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    broken = tmp_path / "python"
    broken.write_text(f"#!/bin/sh\necho >> {starts}\nkill -9 $$\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    with pytest.raises(RunnerError, match=r"worker was killed by signal 9 \(out of memory\?\) three times") as raised:
        list(runner(2).map(mapped("square"), [{"name": "a", "number": 1}, {"name": "b", "number": 1}]))
    assert raised.value.exit_code == 4
    assert starts.read_text().count("\n") == 6  # three for each worker

    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    with pytest.raises(RunnerError, match=r"could not be started .*No such file"):
        list(runner(1).map(mapped("square"), [{"name": "a", "number": 1}]))


def test_a_seat_in_which_no_worker_starts_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One of two workers never comes to life; the other does all the work."""
    broken = tmp_path / "python"
    broken.write_text(f'#!/bin/sh\nmkdir {tmp_path}/first 2>/dev/null || exit 1\nexec {sys.executable} "$@"\n')
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    tasks = [{"name": str(n), "number": n} for n in range(50)]
    assert len(list(runner(2).map(mapped("square"), tasks))) == 50


def test_a_map_may_be_advanced_by_threads_that_end() -> None:
    """Linux ends a process with the thread that started it."""
    outcomes = runner(2).map(mapped("rest"), [{"name": str(n), "seconds": 0.2} for n in range(6)])
    pids = set()
    for _ in range(6):
        with ThreadPoolExecutor(1) as pool:
            _, outcome = pool.submit(next, outcomes).result()
        assert isinstance(outcome, Done)
        pids.add(outcome.value)
    assert len(pids) <= 2 and list(outcomes) == []


def test_each_worker_has_its_share_of_the_processors_and_its_device() -> None:
    tasks = [{"name": str(n), "seconds": 0.1} for n in range(20)]
    values: list[Any] = []
    for _, outcome in runner(2, ("cuda:0", "cuda:1")).map(mapped("seen"), tasks):
        assert isinstance(outcome, Done)
        values.append(outcome.value)
    devices = {value["pid"]: value["task"]["device"] for value in values}
    assert sorted(devices.values()) == sorted(set(devices.values()) & {"cuda:0", "cuda:1"})
    assert all(value["task"]["device"] == devices[value["pid"]] for value in values)
    assert {value["task"]["threads"] for value in values} == {max(1, usable_processors() // 2)}


def test_a_worker_keeps_to_a_run() -> None:
    tasks = [{"name": f"{group}.{n}", "group": f"run {group}"} for n in range(20) for group in range(10)]
    pairs = set()
    for task, outcome in runner(2).map(mapped("seen"), tasks):
        assert isinstance(outcome, Done)
        pairs.add((outcome.value["pid"], task["group"]))
    assert 10 <= len(pairs) <= 11  # the last run may be shared


def test_threads_are_the_share_or_less(monkeypatch: pytest.MonkeyPatch) -> None:
    for given, expected in [("", "4"), ("2", "2"), ("16", "4"), ("0", "4"), ("4,2", "4")]:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
        assert threads_variable(4) == expected
