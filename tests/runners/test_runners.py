"""trajcheck/runners: what holds wherever work runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from typing import Any

import mapped_functions
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trajcheck.errors import NotFiniteError, OutputError, RunnerError, TrajcheckError, UsageError
from trajcheck.runners import Done, Failed, Runner, make_runner
from trajcheck.runners.local import LocalRunner
from trajcheck.runners.processes import ProcessRunner
from trajcheck.runners.ray_cluster import RayRunner
from trajcheck.runners.waiting import PATIENCE, Stay, Waiting

ALLOW = (mapped_functions.THIS,)


@pytest.fixture(params=["local", "processes"])
def runner(request: pytest.FixtureRequest) -> Runner:
    return LocalRunner(ALLOW) if request.param == "local" else ProcessRunner(2, allow=ALLOW)


def mapped(name: str) -> str:
    return f"{mapped_functions.THIS}:{name}"


def test_every_task_has_its_own_outcome_once(runner: Runner) -> None:
    tasks = [{"name": f"task {n}", "number": n, "group": n % 7} for n in range(2000)]
    outcomes = list(runner.map(mapped("square"), tasks))
    assert sorted(task["number"] for task, _ in outcomes) == list(range(2000))
    assert all(outcome == Done(task["number"] ** 2) for task, outcome in outcomes)
    assert all(any(task is given for given in tasks) for task, _ in outcomes[:10])


def test_no_tasks_no_outcomes(runner: Runner) -> None:
    assert list(runner.map(mapped("square"), [])) == []


def test_an_error_keeps_its_class_message_and_exit_code(runner: Runner) -> None:
    ((_, outcome),) = runner.map(mapped("fail"), [{"name": "a", "how": "trajcheck"}])
    assert isinstance(outcome, Failed) and not outcome.is_bug
    assert type(outcome.error) is NotFiniteError
    assert (str(outcome.error), outcome.exit_code) == ("step 3, tensor w holds NaN", 3)


def test_an_error_of_an_unknown_class_is_the_nearest_known_one(runner: Runner) -> None:
    ((_, outcome),) = runner.map(mapped("fail"), [{"name": "a", "how": "elsewhere"}])
    assert isinstance(outcome, Failed)
    assert (type(outcome.error), outcome.exit_code) == (OutputError, 5)


def test_a_bug_is_called_one_and_says_where(runner: Runner) -> None:
    bug, good = (outcome for _, outcome in runner.map(mapped("fail"), [{"name": n, "how": "bug"} for n in "ab"]))
    assert isinstance(bug, Failed) and isinstance(good, Failed) and bug.is_bug
    assert (bug.kind, bug.message, bug.exit_code) == ("KeyError", "'labels'", 1)
    assert "mapped_functions.py" in bug.where and "in fail" in bug.where
    assert "Traceback" in bug.trace and 'raise KeyError("labels")' in bug.trace
    assert type(bug.error) is TrajcheckError and "KeyError: 'labels'" in str(bug.error) and bug.error.exit_code == 1


def test_functions_outside_trajcheck_are_refused() -> None:
    for runner in (LocalRunner(), ProcessRunner(1), LocalRunner(ALLOW)):
        for function in ("os:getcwd", "trajcheck:analyze", "trajcheck.runners", "trajcheckx.a:b", "trajcheck.a:b.c"):
            with pytest.raises(UsageError, match="cannot run on workers"):
                runner.map(function, [])


def test_a_function_that_cannot_be_imported_is_an_error_at_once(runner: Runner) -> None:
    for function in (mapped("nothing"), "trajcheck.nowhere:nothing"):
        with pytest.raises(RunnerError, match=r"workers cannot import .*nothing"):
            list(runner.map(function, [{"name": "a"}]))


def test_functions_are_handed_what_json_holds(runner: Runner) -> None:
    ((task, outcome),) = runner.map(mapped("seen"), [{"name": "a", "references": ("final", "init")}])
    assert task["references"] == ("final", "init")
    assert isinstance(outcome, Done)
    assert outcome.value["task"]["references"] == ["final", "init"]


@pytest.mark.parametrize("task", [{"number": 1}, {"name": 3}, "task", {"name": "a", "tensor": object()}])
def test_what_is_not_a_plain_task_is_refused(runner: Runner, task: Any) -> None:
    with pytest.raises(TypeError, match="task"):
        runner.map(mapped("square"), [task])


def test_local_work_is_done_when_it_is_asked_for() -> None:
    outcomes = LocalRunner(ALLOW).map(mapped("fail"), [{"name": "a", "how": "exit"}])
    with pytest.raises(SystemExit):  # in this process, it is this process's affair
        next(outcomes)


# Waiting


@given(
    groups=st.lists(st.sampled_from("abcde"), max_size=300),
    workers=st.integers(1, 4),
    turns=st.lists(st.integers(0, 3), min_size=1),
)
@settings(max_examples=200)
def test_waiting_hands_out_everything_once(groups: list[str], workers: int, turns: list[int]) -> None:
    waiting = Waiting([{"name": "a", "group": group} for group in groups])
    stays = [Stay() for _ in range(workers)]
    taken: list[int] = []
    while waiting:
        place = waiting.take(stays[turns[len(taken) % len(turns)] % workers])
        if len(taken) % 5 == 4 and place not in taken[-1:]:
            waiting.put_back(place)
            place = waiting.take(Stay())
        taken.append(place)
    assert sorted(taken) == list(range(len(groups)))


def test_a_worker_stays_with_its_group_and_workers_spread() -> None:
    tasks = [{"name": "a", "group": group} for _ in range(PATIENCE) for group in "abc"]
    waiting = Waiting(tasks)
    first, second = Stay(), Stay()
    seen: dict[str, list[str]] = {"first": [], "second": []}
    for _ in range(PATIENCE):
        seen["first"].append(tasks[waiting.take(first)]["group"])
        seen["second"].append(tasks[waiting.take(second)]["group"])
    assert seen == {"first": ["a"] * PATIENCE, "second": ["b"] * PATIENCE}
    both = [tasks[waiting.take(stay)]["group"] for stay in (first, second)]
    assert both == ["c", "c"]  # the last group is shared


def test_a_long_group_does_not_keep_the_others_waiting() -> None:
    tasks = [{"name": "a", "group": "long"}] * (5 * PATIENCE) + [{"name": "a", "group": "short"}] * 3
    waiting, stay = Waiting(tasks), Stay()
    order = [tasks[waiting.take(stay)]["group"] for _ in range(len(tasks))]
    assert order.index("short") == PATIENCE
    assert Counter(order) == {"long": 5 * PATIENCE, "short": 3}


# make_runner


def test_options_choose_the_runner() -> None:
    assert isinstance(make_runner(), LocalRunner)
    assert isinstance(make_runner("local", workers=1), ProcessRunner)
    assert isinstance(make_runner("local", devices=["cuda:0", "cuda:1"]), ProcessRunner)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("slurm", {}, "expected local or ray"),
        ("local", {"address": "head:6379"}, "--runner ray"),
        ("local", {"workers": 0}, "at least 1"),
        ("local", {"workers": 3, "devices": ["cuda:0"]}, "one for each device"),
        ("local", {"gpus_per_task": 1}, "Ray alone"),
        ("ray", {"devices": ["cuda:0"]}, "chooses them itself"),
    ],
)
def test_options_that_contradict_each_other_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_runner(name, **options)


def test_without_ray_its_installation_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trajcheck.runners.ray_session.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'trajcheck\[ray\]'"):
        make_runner("ray")


@pytest.mark.parametrize("address", ["local", "ray://head:10001", "head", ":6379", "head:port"])
def test_an_address_is_auto_or_a_host_and_a_port(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr("trajcheck.runners.ray_session.find_spec", lambda name: object())
    with pytest.raises(UsageError, match="expected auto or HOST:PORT"):
        RayRunner(address)


def test_runners_are_imported_without_what_they_may_never_need() -> None:
    code = "import sys, trajcheck.runners; sys.exit(bool({'torch', 'pandas', 'numpy', 'ray'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], env=dict(os.environ)).returncode == 0
