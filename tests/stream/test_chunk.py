"""trajcheck.stream.chunk, chunk_vectors, gather_sums: wherever the bytes lie, whatever else is asked for, the same."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plain_run_files import write_plain_step
from safetensors.torch import save_file

import trajcheck.inner_products.loop
import trajcheck.stream.chunk
import trajcheck.stream.cuts
from trajcheck.errors import StepFileError
from trajcheck.files.extent_reader import ExtentReader
from trajcheck.inner_products.blocks import Memory
from trajcheck.inner_products.catalogue import REFERENCE_PRODUCTS, STEP_PRODUCTS
from trajcheck.inner_products.usual_row import RowRequest
from trajcheck.runs.references import resolve_references
from trajcheck.runs.trajectory import Trajectory, open_trajectory
from trajcheck.scalars.rows import choose_rows
from trajcheck.scalars.saved.record import Need, record_of
from trajcheck.scalars.values import RowScalars
from trajcheck.stream.chunk import ChunkPass
from trajcheck.stream.cuts import PIECE
from trajcheck.stream.row_pass import gather

STEPS = 21  # more than are in memory together


def scalars(
    trajectory: Trajectory,
    specs: Collection[str] = ("final", "init"),
    by_tensor: Collection[int] = (),
    skip: int = 1,
    **how: Any,
) -> list[RowScalars]:
    references = resolve_references(list(specs), trajectory, Path(trajectory.path).parent)
    rows = choose_rows(trajectory, slice(0, None, 1), skip)
    products = STEP_PRODUCTS, REFERENCE_PRODUCTS
    return list(gather(trajectory, rows, references, *products, by_tensor=by_tensor, **how))


def write_walk(folder: Path, shapes: dict[str, int]) -> Path:
    folder.mkdir()
    stream = np.random.default_rng(0)
    for step in range(STEPS):
        tensors = {
            f"{kind}/{name}": stream.normal(size=size).astype(np.float32)
            for kind in ("param", "grad")
            for name, size in shapes.items()
        }
        write_plain_step(folder, step, tensors, lr=0.1)
    return folder


@pytest.fixture
def walk(tmp_path: Path) -> Trajectory:
    return open_trajectory(write_walk(tmp_path / "walk", {"a": 700, "b": 1, "c": 3000, "empty": 0, "d": 12}))


@pytest.fixture(params=["compiled", "numpy"])
def either_loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "numpy":
        monkeypatch.setattr(trajcheck.inner_products.loop, "_library", lambda: None)


@pytest.mark.parametrize(
    "how", [{"threads": 1}, {"threads": 3}, {"chunk": 5}, {"by_tensor": (3, 4)}, {"room": 10**6}, {"memory": 10**5}]
)
def test_how_the_work_is_shared_changes_no_bit(walk: Trajectory, how: dict[str, Any]) -> None:
    whole = scalars(walk, piece=512, room=1)
    for one, other in zip(whole, scalars(walk, piece=512, **{"room": 1, **how}), strict=True):
        assert (one.own, one.references) == (other.own, other.references)


def test_further_references_change_no_bit(walk: Trajectory) -> None:
    alone, among = scalars(walk, ["init"]), scalars(walk, ["final", "step:3", "init", "mean:4"])
    for one, other in zip(alone, among, strict=True):
        assert (one.own, one.references) == (other.own, other.references[2:3])


@pytest.mark.parametrize("skip", [1, 3])
def test_rows_in_memory_together_change_no_bit(walk: Trajectory, monkeypatch: pytest.MonkeyPatch, skip: int) -> None:
    whole = scalars(walk, skip=skip)
    for group in (1, 2, 7):
        monkeypatch.setattr(trajcheck.stream.chunk, "GROUP", group)
        assert scalars(walk, skip=skip) == whole
    monkeypatch.setattr(trajcheck.stream.chunk, "is_usual", lambda request: False)
    assert scalars(walk, skip=skip) == whole


def test_rows_of_many_references_are_in_memory_together(walk: Trajectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same bits as by themselves."""
    specs = ["final", "init", "step:3", "step:7", "mean:4"]
    whole = scalars(walk, specs)
    sizes: list[int] = []
    plain = trajcheck.stream.chunk.groups

    def watched(requests: Sequence[RowRequest]) -> list[list[RowRequest]]:
        found = plain(requests)
        sizes.extend(len(group) for group in found)
        return found

    monkeypatch.setattr(trajcheck.stream.chunk, "groups", watched)
    assert scalars(walk, specs) == whole
    assert max(sizes) == trajcheck.stream.chunk.GROUP
    monkeypatch.setattr(trajcheck.stream.chunk, "MANY_REFERENCES", 100)
    assert scalars(walk, specs) == whole


@pytest.mark.usefixtures("either_loop")
@pytest.mark.parametrize("memory", [None, 1, 10**6])
def test_a_pass_may_need_no_vectors(tmp_path: Path, memory: int | None) -> None:
    """As where only gradients matter and none were recorded: all is undefined, of tensors too."""
    (tmp_path / "run").mkdir()
    for step in range(3):
        write_plain_step(tmp_path / "run", step, {"param/w": np.ones(5, np.float32)}, lr=0.1)
    run = open_trajectory(tmp_path / "run")
    rows = choose_rows(run, slice(0, None, 1), 1)
    references = resolve_references(["final"], run, tmp_path)
    for row in gather(run, rows, references, ["grad_sq"], ["grad_dot_ref"], by_tensor=(1,), memory=memory):
        assert (row.own.grad_sq, row.references[0].grad_dot_ref) == (None, None)
        if row.own.step == 1:
            shares = record_of(None, row, Need(b"", ("grad_sq",), by_tensor=True)).shares
            assert shares is not None and shares.tensors == {"w": (None,)}


def test_shares_of_tensors_are_those_of_their_rows(walk: Trajectory) -> None:
    """What goes to the saved records directly, against the rows that are made when somebody looks."""
    fields = "path_integral", "grad_sq", "step_dot_next", "param_sq"
    for row in scalars(walk, by_tensor=range(STEPS)):
        shares = record_of(None, row, Need(b"", fields, by_tensor=True)).shares
        towards = record_of(1, row, Need(b"", ("ref_sq",), by_tensor=True)).shares
        assert shares is not None and towards is not None
        for name, part in row.tensors.items():
            assert shares.tensors[name] == tuple(getattr(part.own, field) for field in fields)
            assert towards.tensors[name] == (part.references[1].ref_sq,)


def test_tensors_add_up(walk: Trajectory) -> None:
    for row in scalars(walk, by_tensor=range(STEPS), piece=512, room=1):
        assert list(row.tensors) == ["a", "b", "c", "d"]
        for name in STEP_PRODUCTS:
            shares = [getattr(part.own, name) for part in row.tensors.values()]
            whole = getattr(row.own, name)
            assert shares == [None] * 4 if whole is None else sum(shares) == pytest.approx(whole, rel=1e-12, abs=1e-11)


def test_many_tensors_are_cut_into_blocks_of_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = open_trajectory(write_walk(tmp_path / "many", {f"w{number:03d}": 1 + number % 7 for number in range(300)}))
    found = scalars(run, by_tensor=range(STEPS))
    monkeypatch.setattr(trajcheck.stream.cuts, "MOST_PIECES", 1000)
    assert scalars(run, by_tensor=range(STEPS)) == found


@pytest.mark.usefixtures("either_loop")
def test_tensors_of_several_dtypes(tmp_path: Path) -> None:
    """As those that are all of the widest one; also where they lie one after the other, and cut into blocks."""
    kinds = {"a": torch.float64, "b": torch.float32, "c": torch.bfloat16, "d": torch.float16, "e": torch.float32}
    runs = [tmp_path / "several", tmp_path / "wide"]
    stream = torch.Generator().manual_seed(0)
    for run in runs:
        run.mkdir()
    for step in range(5):
        tensors = {
            f"{part}/{name}": torch.randn(5000, generator=stream).to(kind)
            for part in ("param", "grad")
            for name, kind in kinds.items()
        }
        metadata = {"trajcheck": f'{{"format": 1, "step": {step}, "clip": 0.5}}'}
        save_file(tensors, runs[0] / f"step-{step:09d}.safetensors", metadata)
        wide = {name: tensor.double() for name, tensor in tensors.items()}
        save_file(wide, runs[1] / f"step-{step:09d}.safetensors", metadata)
    several, expected = (scalars(open_trajectory(run), piece=3001, room=1, by_tensor=[2]) for run in runs)
    for one, other in zip(several, expected, strict=True):
        for name in STEP_PRODUCTS:
            found, wanted = getattr(one.own, name), getattr(other.own, name)
            assert (found is None) == (wanted is None)
            assert found is None or found == pytest.approx(wanted, rel=1e-12, abs=1e-10), name
    assert several[2].tensors.keys() == kinds.keys()
    trajectory = open_trajectory(runs[0])
    os.truncate(trajectory.snapshots[3].path, os.path.getsize(trajectory.snapshots[3].path) - 7000)
    with pytest.raises(StepFileError, match="ended 7,000 bytes early"):
        scalars(trajectory, threads=1)


@pytest.mark.usefixtures("either_loop")
def test_more_files_than_may_be_open(walk: Trajectory, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = scalars(walk)
    given: list[int] = []
    share = ExtentReader.share

    def noted(reader: ExtentReader, path: str) -> int:
        given.append(share(reader, path))
        return given[-1]

    monkeypatch.setattr(ExtentReader, "share", noted)
    monkeypatch.setattr(trajcheck.stream.chunk, "most_open", lambda: 3)
    assert scalars(walk) == whole
    assert -1 in given and len(set(given)) == 4


def shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


@pytest.mark.usefixtures("either_loop")
@pytest.mark.parametrize("capacity", [3, 200])
@pytest.mark.parametrize(
    ("harm", "says"), [(shorten, "ended 100 bytes early"), (Path.unlink, "cannot be read: No such")]
)
def test_files_that_change_during_the_pass(
    walk: Trajectory, monkeypatch: pytest.MonkeyPatch, capacity: int, harm: Callable[[Path], None], says: str
) -> None:
    path = Path(walk.snapshots[13].path)
    harm(path)
    monkeypatch.setattr(trajcheck.stream.chunk, "most_open", lambda: capacity)
    several: dict[str, Any] = {"piece": 300, "room": 1}
    for how in ({}, several):  # in the only block, and in the last of many
        with pytest.raises(StepFileError, match=says) as error:
            scalars(walk, **how)
        assert str(path) in str(error.value)


def test_no_file_stays_open(walk: Trajectory) -> None:
    before = os.listdir("/proc/self/fd") if Path("/proc/self/fd").exists() else []
    passing = gather(
        walk, choose_rows(walk, slice(0, None, 1), 1), [], STEP_PRODUCTS, REFERENCE_PRODUCTS, chunk=4, threads=2
    )
    assert math.isfinite(next(passing).own.param_sq or 0.0)
    passing.close()  # type: ignore[attr-defined]
    assert not before or os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("memory", [1, 500_000, 3_000_000, 10**9])
def test_memory_bounds_the_vectors_that_are_held(tmp_path: Path, memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer threads, and smaller blocks, but never less than a piece; which changes no bit."""
    held: list[int] = []
    bind = ChunkPass.bind

    def watched(self: ChunkPass, memory: Memory) -> Any:
        held.append(self.vectors.size)
        return bind(self, memory)

    trajectory = open_trajectory(write_walk(tmp_path / "large", {"a": 70_000, "b": 9_000}))
    unbounded = scalars(trajectory, threads=2)
    monkeypatch.setattr(ChunkPass, "bind", watched)
    assert scalars(trajectory, threads=2, memory=memory) == unbounded
    assert sum(held) <= max(memory, PIECE * 200)
