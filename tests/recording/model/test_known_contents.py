"""What is known of frozen parameters and buffers from signs, samples, and whole readings in turn."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loops import read
from torch import Tensor, nn

import trajcheck
from trajcheck.errors import InvalidReferenceError
from trajcheck.recording.model import bit_samples, known_contents
from trajcheck.recording.model.known_contents import KnownContents
from trajcheck.recording.schedule.time_spent import TimeSpent
from trajcheck.runs.formats.native.contents import read_contents
from trajcheck.runs.snapshot import Contents, MissedChange
from trajcheck.runs.surroundings import sampled_steps
from trajcheck.runs.trajectory import open_trajectory

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.bool, torch.int8, torch.complex64, torch.complex128)


def values(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    stream = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2, shape, generator=stream).to(dtype)


def others(tensor: Tensor) -> Tensor:
    """1 for 0, and 0 for 1."""
    real = tensor.real if tensor.is_complex() else tensor
    return (1 - real.to(torch.int64)).to(tensor.dtype)


def one_element(tensor: Tensor) -> None:
    tensor.data[2, 3] = others(tensor[2, 3])


def one_row(tensor: Tensor) -> None:
    tensor.data[tensor.shape[0] // 3] = others(tensor[tensor.shape[0] // 3])


def a_tenth(tensor: Tensor) -> None:
    chosen = torch.rand(tensor.shape, generator=torch.Generator().manual_seed(1)) < 0.1
    tensor.data[chosen] = others(tensor[chosen])


def all_of_it(tensor: Tensor) -> None:
    tensor.data.copy_(others(tensor))


def one_element_in_place(tensor: Tensor) -> None:
    with torch.no_grad():
        tensor[1, 1] = others(tensor[1, 1])


def other_data(tensor: Tensor) -> None:
    tensor.data = others(tensor)


def known(training: float = 0.0) -> KnownContents:
    spent = TimeSpent()
    spent.training = training
    return KnownContents(spent, lambda line: None)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_each_kind_of_edit_is_seen(dtype: torch.dtype) -> None:
    """The tensors are too large to be read wholly, and there is no time for it: what was edited is, and nothing else. A
    small part that is written through .data is found when all are read."""
    seen, parts = {a_tenth, all_of_it, one_element_in_place, other_data}, {one_element, one_row}
    tensors = {edit.__name__: values((130, 96), dtype, seed) for seed, edit in enumerate([*seen, *parts])}
    tensors["transposed"] = values((96, 130), dtype, 9).T
    tensors["apart"] = values((130, 96), dtype, 10)[:, ::2]  # its bits lie apart
    contents, always = known(), {"apart"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bit_samples, "WHOLE", 0)
        first = contents.look(tensors, ())
        assert first.wholly == set(tensors)
        assert contents.look(tensors, ()).wholly == always
        for edit in seen | parts:
            edit(tensors[edit.__name__])
        look, wanted = contents.look(tensors, ()), {edit.__name__ for edit in seen}
        assert look.wholly - {"one_row"} == wanted | always
        assert {n for n in tensors if look.prints[n] != first.prints[n]} - {"one_row"} == wanted
        look = contents.look(tensors, tensors)
        assert {n for n in tensors if look.prints[n] != first.prints[n]} == {e.__name__ for e in seen | parts}
        tensors["transposed"] = tensors["transposed"].clone()  # another object of the same content
        again = contents.look(tensors, ())
        assert "transposed" in again.wholly
        assert again.prints == look.prints


def test_small_tensors_are_known_wholly_at_every_look() -> None:
    tensors = {"nan": torch.tensor([torch.nan, -0.0]), "empty": torch.empty(0), "scalar": torch.tensor(3)}
    contents = known()
    first = contents.look(tensors, ())
    assert contents.look(tensors, ()) == (first.prints, frozenset(tensors), 2)
    tensors["nan"].data[1] = 0.0  # which is equal, and has other bits
    now = contents.look(tensors, ())
    assert [name for name in tensors if now.prints[name] != first.prints[name]] == ["nan"]
    assert contents.recorded(7, now) == {}


def test_tensors_of_every_dtype_are_looked_at() -> None:
    names = [n for n in dir(torch) if isinstance(getattr(torch, n), torch.dtype) and not n.startswith(("q", "bits"))]
    tensors = {}
    for name in names:
        with suppress(RuntimeError, NotImplementedError, TypeError):
            tensors[name] = torch.zeros(64, dtype=torch.uint8).view(getattr(torch, name))
    tensors["conjugate"] = torch.zeros(8, dtype=torch.complex64).conj()
    assert {"float8_e4m3fn", "uint16", "complex128", "bool"} <= tensors.keys()
    contents = known()
    assert contents.look(tensors, ()).wholly == contents.look(tensors, ()).wholly == tensors.keys()


def test_nothing_keeps_a_tensors_memory() -> None:
    memory = np.zeros((200, 200))
    tensors, alone = {"large": torch.from_numpy(memory)}, sys.getrefcount(memory)
    contents = known()
    contents.look(tensors, ())
    contents.look(tensors, ())
    tensors["large"].data = torch.zeros(1)
    assert sys.getrefcount(memory) == alone - 1


def test_all_are_read_in_turn_within_the_share_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte takes a microsecond here; at the end enough time is left for all once more."""
    clock = [0.0]
    read_bytes: list[list[str]] = []
    true_prints = known_contents.bit_prints

    def prints(tensors: dict[str, Tensor]) -> Any:
        read_bytes.append(list(tensors))
        clock[0] += 1e-6 * sum(t.numel() * t.element_size() for t in tensors.values())
        return true_prints(tensors)

    monkeypatch.setattr(known_contents, "bit_prints", prints)
    monkeypatch.setattr(known_contents, "SHARE", 0.005)
    monkeypatch.setattr(bit_samples, "WHOLE", 0)
    tensors = {f"t{number}": torch.randn(1000 * (number + 1), 10) for number in range(4)}
    size = 4 * 10 * 1000 * (1 + 2 + 3 + 4)
    contents = known()
    contents._spent.clock = lambda: clock[0]
    share = known_contents.SHARE
    for step in range(2000):
        contents._spent.training = 0.2 * step
        contents.recorded(step, contents.look(tensors, ()))
        assert clock[0] <= max(share * contents._spent.training, 1e-6 * size) + 1e-9
    assert clock[0] + 1e-6 * size == pytest.approx(share * contents._spent.training, rel=0.15)
    counts = [sum(name in names for names in read_bytes) for name in tensors]
    assert max(counts) - min(counts) <= 1
    assert min(counts) >= 3


# Whole recordings


SOURCE = """
import torch
from torch import nn
from torch.nn import functional as F

class Tabled(nn.Module):
    '''A trained layer, and a large frozen table of which each sample reads a few rows.'''

    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.layer, self.table = nn.Linear(96, 2), nn.Embedding(260, 96)
        self.table.weight.requires_grad_(False)

    def forward(self, places):
        return self.layer(self.table(places))

def loss_of(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])

def objective():
    return Tabled(), loss_of
"""
MADE: dict[str, Any] = {}
exec(SOURCE, MADE)


def train(folder: Path, edit: Callable[[int, nn.Module], None], steps: range, *, close: bool = True) -> nn.Module:
    """`edit(step, model)` before each step; without `close`, the run is left as by a job that is killed."""
    model: nn.Module = MADE["Tabled"]()
    if steps.start:
        held = read(folder, steps.start)[0]
        model.load_state_dict({name: held.get(f"param/{name}", p) for name, p in model.named_parameters()})
    optimizer = torch.optim.SGD(model.get_submodule("layer").parameters(), lr=0.3)
    recorder = trajcheck.Recorder(folder, model, optimizer, every=1, start_step=steps.start, quiet=True, overhead=None)
    for step in steps:
        edit(step, model)
        stream = torch.Generator().manual_seed(step)
        batch = (torch.tensor([7, 20 + step, 100]), torch.randint(2, (3,), generator=stream))
        loss = MADE["loss_of"](model, batch)
        loss.backward()
        recorder.observe(batch, loss)
        optimizer.step()
        optimizer.zero_grad()
    if close:
        recorder.close()
    else:
        recorder._steps._of.writer.flush()  # type: ignore[union-attr]
        recorder._finish = False
        recorder.guard.active = False
        recorder.close()
    return model


def unsampled(model: nn.Module) -> tuple[int, int]:
    """An element of row 7, which every batch reads, that no sample has."""
    before, weight = known(), model.get_parameter("table.weight")
    for column in range(96):
        clone = {"w": weight.detach().clone()}
        samples = bit_samples.BitSamples(clone)
        sample = samples.read(clone)
        clone["w"][7, column] += 1.0
        if not samples.differing(sample, samples.read(clone)):
            return 7, column
    raise AssertionError(before)


def edited_before(when: int) -> Callable[[int, nn.Module], None]:
    def edit(step: int, model: nn.Module) -> None:
        if step == when:
            row, column = unsampled(model)
            model.get_parameter("table.weight").data[row, column] += 3.0

    return edit


def nothing(step: int, model: nn.Module) -> None:
    pass


@pytest.fixture
def no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_contents, "SHARE", 0.0)


def test_a_part_that_changed_unseen_is_refused_by_name_where_it_may_be_wrong(tmp_path: Path, no_time: None) -> None:
    (tmp_path / "objective.py").write_text(SOURCE)
    with pytest.warns(RuntimeWarning, match=r"frozen parameter table.weight changed .* step 0, .* at that of step 6"):
        end = train(tmp_path / "run", edited_before(3), range(6))
    assert [read(tmp_path / "run", step)[1].get("contents") for step in range(6)] == [None, *([{"sure": 0}] * 5)]
    missed = {"after": 0, "until": 6, "tensors": ["param/table.weight"], "changed": 1}
    assert read(tmp_path / "run", 6)[1]["contents"] == {"missed": [missed]}
    assert torch.equal(read(tmp_path / "run", 6)[0]["param/table.weight"], end.get_parameter("table.weight"))
    trajectory = open_trajectory(tmp_path / "run")
    reason = MissedChange(0, 6, ("param/table.weight",), 1).sentence
    assert [snapshot.unsure for snapshot in trajectory.snapshots] == ["", *([reason] * 5), ""]
    report = trajcheck.analyze(
        tmp_path / "run", ("final",), f"{tmp_path / 'objective.py'}:objective", out=tmp_path / "out"
    )
    steps = report.steps[report.steps["sample"] == "own"]
    assert steps["replay_loss_error"].notna().tolist() == [True, *([False] * 6)]
    assert any(
        "5 steps cannot be evaluated again: frozen parameter table.weight" in w for w in report.summary["warnings"]
    )
    undefined = (tmp_path / "out" / "undefined.csv").read_text()
    assert "frozen parameter table.weight changed behind torch's back" in undefined
    with pytest.raises(InvalidReferenceError, match=r"step 2: frozen parameter table\.weight changed"):
        trajcheck.analyze(tmp_path / "run", ("step:2",), out=tmp_path / "other")


def test_with_time_enough_it_is_found_at_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_contents, "SHARE", 1e9)
    train(tmp_path, edited_before(4), range(6))
    assert all("contents" not in read(tmp_path, step)[1] for step in [0, 3, 4, 5, 6])
    assert [step for step in range(7) if "param/table.weight" in read(tmp_path, step)[0]] == [0, 4]


def test_what_is_stored_does_not_depend_on_the_time_there_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def seen(step: int, model: nn.Module) -> None:
        if step == 2:
            model.get_parameter("table.weight").data.mul_(1.5)
        if step == 4:
            with torch.no_grad():
                model.get_parameter("table.weight")[7] += 1.0

    for name, share in (("none", 0.0), ("all", 1e9)):
        monkeypatch.setattr(known_contents, "SHARE", share)
        train(tmp_path / name, seen, range(6))
    assert read(tmp_path / "none", 3)[1]["contents"] == {"sampled": [[0, 2]]}
    for step in range(7):
        (one, said), (other, told) = (read(tmp_path / name, step) for name in ("none", "all"))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
        assert said.get("frozen_from") == told.get("frozen_from")


def test_a_recording_that_was_cut_off_says_which_steps_are_known_by_samples(tmp_path: Path, no_time: None) -> None:
    run = tmp_path / "run"
    train(run, nothing, range(4), close=False)
    assert sampled_steps(open_trajectory(run).snapshots) == [1, 2, 3]
    warnings = trajcheck.analyze(run, ("init",), out=tmp_path / "out").summary["warnings"]
    assert any("at 3 steps, from 1 to 3, frozen parameters and buffers are known by" in each for each in warnings)
    train(run, nothing, range(3, 6))  # a job that goes on reads what is there then, not what was
    assert sampled_steps(open_trajectory(run).snapshots) == [1, 2]
    assert read(run, 6)[1]["contents"] == {"sampled": [[0, 3]]}


def test_a_job_that_goes_on_keeps_what_is_said_of_the_records_before(tmp_path: Path, no_time: None) -> None:
    with pytest.warns(RuntimeWarning, match="table.weight"):
        train(tmp_path, edited_before(3), range(6))
    train(tmp_path, nothing, range(4, 6))
    snapshots = open_trajectory(tmp_path).snapshots
    assert [bool(snapshot.unsure) for snapshot in snapshots] == [False, True, True, True, False, False, False]


@pytest.mark.parametrize(
    "wrong",
    [
        3,
        {"sure": -1},
        {"missed": {}},
        {"missed": [{"after": 3, "until": 3, "tensors": ["x"]}]},
        {"missed": [{"after": 1, "until": 3, "tensors": []}]},
        {"missed": [{"after": 1, "until": 3, "tensors": ["x"]}] * 1001},
        {"sampled": [[3, 1]]},
        {"sampled": [[1]]},
    ],
)
def test_what_a_file_says_of_contents_is_checked(wrong: Any) -> None:
    with pytest.raises(ValueError, match="contents"):
        read_contents({"contents": wrong})
    assert read_contents({}) == Contents()


def test_often_missed_changes_are_said_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_contents, "TIMES", 2)
    monkeypatch.setattr(bit_samples, "WHOLE", 0)
    tensors = {f"param/{number}": torch.zeros(1200, 4) for number in range(5)}
    contents = known()
    contents.recorded(0, contents.look(tensors, ()))
    contents.recorded(1, contents.look(tensors, ()))
    told: dict[str, Any] = {}
    for number, tensor in enumerate(tensors.values()):
        tensor.data.view(-1)[1] = 1.0
        contents.recorded(3 * number + 2, contents.look(tensors, ()))
        told = contents.recorded(3 * number + 3, contents.look(tensors, tensors.keys()))
    missed = told["contents"]["missed"]
    assert [(each["after"], each["until"], each["changed"]) for each in missed] == [(0, 12, 4), (12, 15, 1)]
