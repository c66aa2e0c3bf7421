"""trajcheck.recording.run.folder: begun runs, and resumed ones."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from loops import assert_holds, batch_of, loss_of, network, read, recorded_steps, run_json, sgd, train, weights
from remains import DEAD, ELSEWHERE, temporary_of
from torch import nn

from trajcheck.errors import RecorderError
from trajcheck.recording.recorder import Recorder
from trajcheck.recording.schedule.schedules import Budget, Every, Listed


def recorded(folder: Path, model: nn.Module, steps: range, **options: Any) -> None:
    optimizer = sgd(model)
    options = {"every": 1, "strict": True, "quiet": True, **options}
    with Recorder(folder, model, optimizer, start_step=steps.start, **options) as recorder:
        train(model, optimizer, steps, recorder)


def file_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_that_holds_a_run_is_not_recorded_into(tmp_path: Path) -> None:
    recorded(tmp_path, network(), range(2))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RecorderError, match=r"already holds a run.*start_step="):
        recorded(tmp_path, network(), range(1))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_with_other_files_is_recorded_into(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    recorded(tmp_path, network(), range(1))
    steps = [f"step-00000000{i}.safetensors" for i in range(2)]
    assert file_names(tmp_path) == ["every-step.f64", "notes.txt", "run.json", *steps]


def test_a_resumed_run_completes_its_last_step(tmp_path: Path) -> None:
    """Recorded in two jobs, or in one: the same files."""
    whole, parts = network(), network()
    recorded(tmp_path / "whole", whole, range(6))
    torch.manual_seed(1)
    parts = network()
    recorded(tmp_path / "parts", parts, range(3))
    description = run_json(tmp_path / "parts")
    assert description.pop("ended") == {"step": 3, "reason": "closed"}
    recorded(tmp_path / "parts", parts, range(3, 6))
    assert run_json(tmp_path / "parts") == {**description, "ended": {"step": 6, "reason": "closed"}}
    assert file_names(tmp_path / "parts") == file_names(tmp_path / "whole")
    for step in range(7):
        tensors, metadata = read(tmp_path / "parts", step)
        expected, expected_metadata = read(tmp_path / "whole", step)
        assert metadata == expected_metadata
        assert tensors.keys() == expected.keys()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in tensors.items())


@pytest.mark.parametrize("schedule", [Every(5), Listed([0]), Budget()])
def test_the_step_to_resume_at_is_completed_whatever_the_schedule(schedule: Any, tmp_path: Path) -> None:
    model = network()
    recorded(tmp_path, model, range(3), every=None, schedule=schedule)
    assert "grad/0.weight" not in read(tmp_path, 3)[0]
    recorded(tmp_path, model, range(3, 4), every=None, schedule=schedule)
    assert "grad/0.weight" in read(tmp_path, 3)[0]


def test_steps_that_are_overtaken_are_set_aside(tmp_path: Path) -> None:
    model = network()
    recorded(tmp_path, model, range(2))
    checkpoint = copy.deepcopy(model)
    recorded(tmp_path, model, range(2, 5))
    overtaken = {path.name: path.read_bytes() for path in tmp_path.glob("step-*") if path.name >= "step-000000002"}
    for attempt in range(2):
        again = copy.deepcopy(checkpoint)
        recorded(tmp_path, again, range(2, 4))
        assert recorded_steps(tmp_path) == [0, 1, 2, 3, 4]
        assert_holds(read(tmp_path, 4)[0], "param", weights(again))
        aside = {path.name: path.read_bytes() for path in (tmp_path / "superseded").iterdir()}
        assert {name: aside[name] for name in overtaken} == overtaken
        assert len(aside) == 4 + 3 * attempt
    assert "step-000000002.1.safetensors" in aside
    assert read(tmp_path, 4)[1]["tau"] == [0.5]


def test_a_last_step_with_other_parameters_is_set_aside(tmp_path: Path) -> None:
    recorded(tmp_path, network(), range(2))
    before = (tmp_path / "step-000000002.safetensors").read_bytes()
    other = network(7)
    initial = weights(other)
    with pytest.warns(RuntimeWarning, match="the job before and this one, which begins at step 2: 0.weight, 0.bias, 1"):
        recorded(tmp_path, other, range(2, 3))
    assert (tmp_path / "superseded/step-000000002.safetensors").read_bytes() == before
    assert_holds(read(tmp_path, 2)[0], "param", initial)


def test_nothing_moves_before_training_goes_on(tmp_path: Path) -> None:
    model = network()
    recorded(tmp_path, model, range(4))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    recorded(tmp_path, model, range(2, 2))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_tau_is_left_out_where_it_is_not_known(tmp_path: Path) -> None:
    model = network()
    recorded(tmp_path, model, range(2))
    recorded(tmp_path, model, range(5, 7))
    assert recorded_steps(tmp_path) == [0, 1, 2, 5, 6, 7]
    for step in (5, 7):
        assert not {"tau", "tau_squares"} & read(tmp_path, step)[1].keys()
    assert read(tmp_path, 5)[1]["lr"] == [0.125]


def test_a_run_that_begins_late(tmp_path: Path) -> None:
    recorded(tmp_path, network(), range(10, 12))
    assert recorded_steps(tmp_path) == [10, 11, 12]
    assert "tau" not in read(tmp_path, 10)[1]
    assert run_json(tmp_path)["format"] == 1


def test_a_resumed_run_must_be_of_the_same_model(tmp_path: Path) -> None:
    recorded(tmp_path, network(), range(1))
    other = nn.Sequential(nn.Linear(4, 9), *network()[1:])
    with pytest.raises(RecorderError, match=r"'0.weight' there: \[8, 4\] F32.*here: \[9, 4\]"):
        Recorder(tmp_path, other, sgd(other), start_step=1)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(RecorderError, match=r"run\.json"):
        recorded(tmp_path, network(), range(1, 2))


def test_temporary_files_of_a_killed_job_are_removed(tmp_path: Path) -> None:
    model = network()
    recorded(tmp_path, model, range(1))
    ours = [(DEAD, None), (os.getppid(), None), (DEAD, ELSEWHERE)]
    left = [tmp_path / temporary_of(*each[:1], "step-000000001.safetensors", each[1]) for each in ours]
    others = [tmp_path / ".step-000000001.safetensors.123.tmp", tmp_path / ".notes.31337000.tmp"]
    for path in (*left, *others):
        path.write_bytes(b"half")
    recorded(tmp_path, model, range(1, 2))
    assert [path.exists() for path in left] == [False, True, True]  # of a dead process; one that lives; one elsewhere
    assert all(path.exists() for path in others)
    os.utime(left[2], (0, 0))
    recorded(tmp_path, model, range(2, 3))
    assert [path.exists() for path in left] == [False, True, False]


def test_a_full_batch_is_stored_once(tmp_path: Path) -> None:
    model = network()
    optimizer = sgd(model)
    for start in (0, 3):
        with Recorder(tmp_path, model, optimizer, every=1, start_step=start, strict=True, quiet=True) as recorder:
            for step in range(start, start + 3):
                batch = batch_of(0 if step != 1 else 1)
                loss = loss_of(model, batch)
                loss.backward()
                recorder.observe(batch, loss)
                optimizer.step()
                optimizer.zero_grad()
    sources = [read(tmp_path, step)[1].get("batch_from") for step in range(7)]
    assert sources == [None, None, 0, 0, 0, 0, None]
    assert [("batch/0" in read(tmp_path, step)[0]) for step in range(7)] == [True, True, *[False] * 5]


def test_frozen_parameters_of_a_resumed_run(tmp_path: Path) -> None:
    model = network()

    def go_on(steps: range) -> None:
        optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
        with Recorder(tmp_path, model, optimizer, every=1, start_step=steps.start, strict=True, quiet=True) as recorder:
            train(model, optimizer, steps, recorder)

    go_on(range(2))
    go_on(range(2, 4))
    with torch.no_grad():
        model[4].bias.add_(1)
    with pytest.warns(RuntimeWarning, match=r"something changed frozen parameters .* begins at step 4: 4\.bias$"):
        go_on(range(4, 6))
    assert [read(tmp_path, step)[1].get("frozen_from") for step in range(7)] == [
        *(None, 0, 0, 0, 0),
        *[{"": 0, "4.bias": 4}] * 2,  # what did not change stays where it is
    ]
    assert torch.equal(read(tmp_path, 4)[0]["param/4.bias"], model[4].bias)


def test_a_damaged_step_is_named(tmp_path: Path) -> None:
    model = network()
    recorded(tmp_path, model, range(3))
    path = tmp_path / "step-000000003.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    optimizer = sgd(model)
    with (
        pytest.raises(RecorderError, match="step-000000003"),
        Recorder(tmp_path, model, optimizer, start_step=3, every=1, strict=True, quiet=True) as recorder,
    ):
        train(model, optimizer, 1, recorder)


def test_run_json_is_strict(tmp_path: Path) -> None:
    model = network()
    optimizer = sgd(model)
    optimizer.param_groups[0]["odd"] = float("nan")
    optimizer.param_groups[0]["callback"] = print
    optimizer.param_groups[0]["names"] = ["a"]
    Recorder(tmp_path, model, optimizer, quiet=True).close()

    def refuse(value: str) -> None:
        raise AssertionError(value)

    group = json.loads((tmp_path / "run.json").read_text(), parse_constant=refuse)["optimizer"]["groups"][0]
    assert not {"odd", "callback", "names", "params"} & group.keys()
