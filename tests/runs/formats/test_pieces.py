"""native/rank_pieces.py, native/step_files.py: the files of several ranks as one run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from plain_run_files import Outcome
from rank_files import changed, cut_run, rank_file, write_rank_step
from run_files import amend, metadata
from safetensors.numpy import load_file

import trajcheck
from trajcheck.errors import RunError, StepFileError, UnevenStepError
from trajcheck.files.extent_reader import BLOCK, ExtentReader, blocks
from trajcheck.files.torch_tensors import read_tensor
from trajcheck.objective.objective import Objective
from trajcheck.replay.sample_conventions import recorded_sample
from trajcheck.runs.trajectory import open_trajectory
from trajcheck.stream.flat_vector import FlatVectors


@pytest.fixture
def cut(plain_run: Path, tmp_path: Path) -> Path:
    return cut_run(plain_run, tmp_path / "cut", 2)


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_every_tensor_is_what_it_was(plain_run: Path, tmp_path: Path, ranks: int) -> None:
    whole, cut = open_trajectory(plain_run), open_trajectory(cut_run(plain_run, tmp_path / "cut", ranks))
    assert dict(cut.shapes) == dict(whole.shapes) and cut.steps == whole.steps
    with ExtentReader() as reader:
        for one, other in zip(whole.snapshots, cut.snapshots, strict=True):
            assert one.loss is None or other.loss == pytest.approx(one.loss, rel=1e-15)
            assert (one.lr, one.tau) == (other.lr, other.tau)
            for name in whole.shapes:
                assert other.parameters[name].length == one.parameters[name].length
                here, there = read_tensor(reader, one.parameters[name]), read_tensor(reader, other.parameters[name])
                assert torch.equal(here, there)


def test_parts_are_read_in_blocks_of_any_size(plain_run: Path, tmp_path: Path) -> None:
    whole, cut = open_trajectory(plain_run), open_trajectory(cut_run(plain_run, tmp_path / "cut", 3))
    numels = {"layer.bias": 2, "layer.weight": 6}
    for size in (1, 3, 4, 5, BLOCK):
        with ExtentReader() as reader:
            for pieces in blocks(numels, size):
                found = []
                for trajectory in (whole, cut):
                    gradients, raw = trajectory.snapshots[3].gradients, np.zeros(4 * 8, np.uint8)
                    begin = min(piece.start + 2 * (piece.name == "layer.weight") for piece in pieces)
                    flat = FlatVectors(numels).of(gradients)
                    end = begin + sum(piece.stop - piece.start for piece in pieces)
                    for part in flat.ranges(begin, end):
                        place, length = 4 * part.place, 4 * part.numel
                        reader.range(part.path, part.offset, raw[place : place + length].data)
                    wide = reader.wide_block(gradients, pieces, np.empty(8))
                    found.append((raw.tobytes(), flat.dtype, wide.tobytes()))
                    np.testing.assert_array_equal(raw.view(np.float32)[: len(wide)], wide)
                assert found[0] == found[1]


@pytest.mark.parametrize("ranks", [2, 3])
def test_the_tables_are_those_of_the_whole_run(plain_run: Path, tmp_path: Path, ranks: int) -> None:
    """Also with references between a run in pieces and one that is whole."""
    cut = cut_run(plain_run, tmp_path / "cut", ranks)
    other = shutil.copytree(plain_run, tmp_path / "other")
    amend(other, 0, epoch=1)  # another run, as its first file tells
    expected = trajcheck.analyze(plain_run, refs=["init", "mean:3", f"{other}@step:4"], out=tmp_path / "a")
    found = trajcheck.analyze(cut, refs=["init", "mean:3", f"{other}@step:4"], out=tmp_path / "b")
    back = trajcheck.analyze(plain_run, refs=["init", "mean:3", f"{cut}@step:4"], out=tmp_path / "c")
    for report, path in ((found, other), (back, cut)):
        pd.testing.assert_frame_equal(report.steps, expected.steps, rtol=1e-13)
        renamed = report.references.assign(ref=expected.references["ref"])
        assert set(report.references["ref"]) == {"init", "mean:3", f"{path}@step:4"}
        pd.testing.assert_frame_equal(renamed, expected.references, rtol=1e-13)


def test_the_replay_averages_over_the_ranks(plain_run: Path, objective_file: Path, tmp_path: Path) -> None:
    """Halves of a batch, each on its rank, give the mean loss over the batch."""
    cut = cut_run(plain_run, tmp_path / "cut", 2)
    spec = f"{objective_file}:good"
    expected = trajcheck.analyze(plain_run, objective=spec, replay_dtype="float64", out=tmp_path / "a")
    found = trajcheck.analyze(cut, objective=spec, replay_dtype="float64", out=tmp_path / "b")
    names = ["loss", "grad_norm", "inst_gap", "loss_change", "convexity_ratio", "inst_smooth"]
    pd.testing.assert_frame_equal(found.steps[names], expected.steps[names], rtol=1e-9)
    assert found.steps["loss"].notna().sum() == 10


def sample_of(run: Path, place: int = 0) -> tuple[Any, Any]:
    trajectory = open_trajectory(run)
    model = torch.nn.Linear(2, 1, bias=False, dtype=torch.float64)
    model.register_buffer("shift", torch.zeros(1, dtype=torch.float64))

    def loss(model: Any, batch: Any) -> Any:
        noise = torch.rand(1, dtype=torch.float64)
        value = (model(batch["x"]) * noise + model.shift).sum()
        with torch.no_grad():
            model.shift += 1000.0  # what a forward leaves behind is not seen by the next rank
        return value

    objective = Objective(model, loss)
    with ExtentReader() as reader:
        snapshot = trajectory.snapshots[place]
        read = recorded_sample(trajectory, snapshot, objective, torch.float64, lambda e: read_tensor(reader, e))
        x = {name: read_tensor(reader, extent) for name, extent in snapshot.parameters.items()}
    return objective.loss(x, read), snapshot


def two_ranks(folder: Path, step: int = 0) -> tuple[list[dict[str, np.ndarray]], float]:
    """A step whose ranks differ in batch size, micro-batches, weights, randomness and buffers; and its loss."""
    total = 0.0
    weight = np.array([[1.0, -2.0]])
    shares = []
    for rank, (sizes, weights) in enumerate([([3], [1.0]), ([2, 1], [0.25, 0.75])]):
        batches = [np.arange(2.0 * size).reshape(size, 2) + rank for size in sizes]
        shift = np.array([10.0 ** (rank + 1)])
        states = []
        value = 0.0
        for i, (batch, w) in enumerate(zip(batches, weights, strict=True)):
            torch.manual_seed(100 * rank + i)
            states.append(torch.get_rng_state().numpy())
            noise = torch.rand(1, dtype=torch.float64).item()
            value += w * float((batch @ weight.T * noise + shift + 1000.0 * i).sum())
        total += value / 2
        held = {"rng/cpu": np.stack(states), "buffer/shift": shift}
        held |= {f"batch/{i}/x" if len(batches) > 1 else "batch/x": batch for i, batch in enumerate(batches)}
        if rank == 0:
            held["param/weight"] = weight
        shares.append(held)
        meta = {"micro_batches": len(sizes), "micro_weights": weights, "loss": value}
        write_rank_step(folder, step, rank, 2, held, **meta)
    return shares, total


def test_each_rank_has_its_weights_its_randomness_and_its_buffers(tmp_path: Path) -> None:
    _, expected = two_ranks(tmp_path)
    loss, snapshot = sample_of(tmp_path)
    assert loss.item() == pytest.approx(expected, rel=1e-14)
    assert snapshot.loss == pytest.approx(expected, rel=1e-14)
    assert snapshot.micro_weights == (0.5, 0.125, 0.375)


def test_a_batch_that_is_stored_in_another_step(tmp_path: Path) -> None:
    """By all ranks, or by one of them alone."""
    shares, expected = two_ranks(tmp_path)
    counts, weights = [1, 2], [[1.0], [0.25, 0.75]]
    for step, refer in ((1, (0, 1)), (2, (1,))):
        for rank, held in enumerate(shares):
            held = {k: v for k, v in held.items() if rank not in refer or not k.startswith("batch")}
            meta = {"batch_from": 0} if rank in refer else {}
            write_rank_step(
                tmp_path, step, rank, 2, held, micro_batches=counts[rank], micro_weights=weights[rank], **meta
            )
        assert sample_of(tmp_path, step)[0].item() == pytest.approx(expected, rel=1e-14)


def test_window_sums_add_up(plain_run: Path, tmp_path: Path) -> None:
    for step in range(1, 11):
        sums = {"from": step - 1, "steps": 1, "grad_dot_offset": 3.0, "loss_sum": 2.0, "grad_sq_sum": 5.0}
        ones = {"window/layer.weight": np.ones((3, 2), np.float32), "window/layer.bias": np.ones(2, np.float32)}
        amend(plain_run, step, ones, window=sums)
    cut = open_trajectory(cut_run(plain_run, tmp_path / "cut", 2))
    window = cut.snapshots[4].window
    assert window is not None
    assert (window.grad_dot_offset, window.loss_sum, window.grad_sq_sum) == (6.0, 2.0, 10.0)
    whole = trajcheck.analyze(plain_run, out=tmp_path / "a").references["window_num"]
    changed_sums = trajcheck.analyze(tmp_path / "cut", out=tmp_path / "b").references["window_num"]
    np.testing.assert_allclose(changed_sums - whole, 3.0 * np.arange(11), atol=1e-12)


def test_the_last_step_of_a_killed_job_is_left_out(cut: Path, cli: Callable[..., Outcome], tmp_path: Path) -> None:
    (cut / rank_file(10, 1, 2)).unlink()
    (cut / rank_file(9, 0, 2)).unlink()
    trajectory = open_trajectory(cut)
    assert trajectory.steps == list(range(9))
    assert "10 was written by 2 ranks, and the file of rank 1 is not there" in trajectory.left_out[10]
    outcome = cli("analyze", cut, "--out", tmp_path / "out")
    assert outcome.code == 0
    assert "2 steps were left out" in outcome.out + outcome.err


@pytest.mark.parametrize("step", [4, 9])
def test_a_step_that_some_ranks_made_and_another_did_not(cut: Path, step: int) -> None:
    """At the end of a job it is left out, as one that a rank did not write."""
    for rank in range(2):
        (cut / rank_file(10, rank, 2)).unlink()
    path = cut / rank_file(step, 1, 2)
    tensors = {name: value for name, value in load_file(path).items() if name.startswith("param/")}
    pieces = {key: metadata(path)[key] for key in ("offset", "shape") if key in metadata(path)}
    pieces = {key: {name: box for name, box in table.items() if name in tensors} for key, table in pieces.items()}
    write_rank_step(cut, step, 1, 2, tensors, **pieces)
    if step == 4:
        with pytest.raises(UnevenStepError, match="ended its recording with step 4"):
            open_trajectory(cut)
    else:
        trajectory = open_trajectory(cut)
        assert trajectory.steps == list(range(9))
        assert "ended its recording with step 9" in trajectory.left_out[9]


def test_a_file_that_is_missing_in_the_middle(cut: Path, cli: Callable[..., Outcome], tmp_path: Path) -> None:
    (cut / rank_file(4, 1, 2)).unlink()
    outcome = cli("analyze", cut, "--out", tmp_path / "out")
    assert outcome.code == 3
    assert "step 4 was written by 2 ranks, and the file of rank 1 is not there" in outcome.err
    assert cli("analyze", cut, "--skip-bad", "--out", tmp_path / "out").code == 0
    assert 4 not in pd.read_csv(tmp_path / "out" / "steps.csv")["step"].to_list()


def test_a_job_that_thins_its_records_may_leave_such_steps_anywhere(cut: Path) -> None:
    (cut / "run.json").write_text('{"format": 1, "schedule": "Budget(bytes=None, total_steps=None)"}')
    (cut / rank_file(4, 0, 2)).unlink()
    assert open_trajectory(cut).steps == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10]


def piece(folder: Path, step: int, rank: int, begin: int, values: np.ndarray, **meta: Any) -> None:
    box = {"offset": {"param/w": [begin, 0]}, "shape": {"param/w": [4, 2]}}
    write_rank_step(folder, step, rank, 2, {"param/w": values}, **{**box, **meta})


@pytest.mark.parametrize(
    ("begins", "rows", "complaint"),
    [
        ((0, 1), (2, 3), "element 2 is in the files of rank 0 and of rank 1"),
        ((0, 3), (2, 1), "its element 4 is in no rank's file"),
        ((0, 2), (2, 1), "its element 6 is in no rank's file"),
        ((1, 2), (1, 2), "its element 0 is in no rank's file"),
        ((0, 0), (4, 4), "element 0 is in the files of rank 0 and of rank 1"),
        ((0, 3), (2, 2), r"from \[3, 0\] on, which does not lie in a tensor of shape \[4, 2\]"),
    ],
)
def test_pieces_that_do_not_fit(tmp_path: Path, begins: tuple[int, int], rows: tuple[int, int], complaint: str) -> None:
    for rank in range(2):
        piece(tmp_path, 0, rank, begins[rank], np.zeros((rows[rank], 2), np.float32))
    with pytest.raises(StepFileError, match=complaint) as raised:
        open_trajectory(tmp_path)
    assert rank_file(0, 0, 2) in str(raised.value)


def test_pieces_may_be_cut_along_the_first_dimension_that_is_longer_than_one(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float32).reshape(1, 4, 3)
    for rank, (begin, end) in enumerate([(0, 3), (3, 4)]):
        box = {"offset": {"param/w": [0, begin, 0]}, "shape": {"param/w": [1, 4, 3]}}
        write_rank_step(tmp_path, 0, rank, 2, {"param/w": values[:, begin:end]}, **box)
    extent = open_trajectory(tmp_path).snapshots[0].parameters["w"]
    with ExtentReader() as reader:
        np.testing.assert_array_equal(read_tensor(reader, extent).numpy(), values)


def test_pieces_of_several_ranges_are_refused(tmp_path: Path) -> None:
    for rank in range(2):
        box = {"offset": {"param/w": [0, rank]}, "shape": {"param/w": [4, 2]}}
        write_rank_step(tmp_path, 0, rank, 2, {"param/w": np.zeros((4, 1), np.float32)}, **box)
    with pytest.raises(StepFileError, match="not one range of its elements; expected it cut along the first"):
        open_trajectory(tmp_path)


def test_other_dtypes_and_shapes_are_refused(tmp_path: Path) -> None:
    piece(tmp_path, 0, 0, 0, np.zeros((2, 2), np.float32))
    piece(tmp_path, 0, 1, 2, np.zeros((2, 2), np.float64))
    with pytest.raises(StepFileError, match=r"param/w is F64 of shape \[4, 2\] for rank 1, and F32"):
        open_trajectory(tmp_path)
    piece(tmp_path, 0, 1, 2, np.zeros((2, 2), np.float32), shape={"param/w": [5, 2]})
    with pytest.raises(StepFileError, match=r"shape \[5, 2\] for rank 1, and F32 of shape \[4, 2\]"):
        open_trajectory(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"offset": {"param/w": [2, -1]}},
        {"offset": {"param/w": [2.0, 0]}},
        {"offset": {"param/w": [True, 0]}},
        {"offset": {"param/w": 2}},
        {"offset": [2, 0]},
        {"offset": {"param/w": [2]}},
        {"offset": {"param/v": [2, 0]}},
        {"offset": None},
        {"shape": {"param/w": [4, 10**30]}},
        {"shape": None},
        {"replicated": {"gradient": -1.0}},
        {"replicated": {"gradient": "1"}},
        {"replicated": 1.0},
    ],
)
def test_tampered_metadata(tmp_path: Path, changes: dict[str, Any]) -> None:
    for rank in range(2):
        piece(tmp_path, 0, rank, 2 * rank, np.zeros((2, 2), np.float32))
    assert open_trajectory(tmp_path).steps == [0]
    changed(tmp_path, 0, 1, 2, **changes)
    with pytest.raises(StepFileError):
        open_trajectory(tmp_path)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"lr": [0.2]}, "expected the same learning rates on all ranks"),
        ({"tau": [9.0]}, "expected the same sums of rates on all ranks"),
        ({"modes": {"": "eval"}}, "expected the same modules in evaluation on all ranks"),
        ({"frozen_from": {"w": 1}}, "expected the same frozen parameters on all ranks"),
    ],
)
def test_ranks_that_disagree(cut: Path, changes: dict[str, Any], complaint: str) -> None:
    changed(cut, 3, 0, 2, modes={}, frozen_from={"w": 0})
    changed(cut, 3, 1, 2, **changes)
    with pytest.raises(StepFileError, match=complaint) as raised:
        open_trajectory(cut)
    assert rank_file(3, 1, 2) in str(raised.value)


def test_ranks_that_trained_apart(tmp_path: Path) -> None:
    two_ranks(tmp_path)
    changed(tmp_path, 0, 0, 2, replicated={"parameter": 5.0, "gradient": 1.0})
    changed(tmp_path, 0, 1, 2, replicated={"parameter": 5.0001, "gradient": 1.0})
    open_trajectory(tmp_path)
    changed(tmp_path, 0, 1, 2, replicated={"parameter": 5.0, "gradient": 1.1})
    with pytest.raises(StepFileError, match=r"norm of the gradients that rank 0 stores for all was 1\.1 here, and 1 "):
        open_trajectory(tmp_path)


def test_two_sets_of_files_for_one_step(cut: Path, plain_run: Path) -> None:
    source = cut / rank_file(3, 0, 2)
    for name, complaint in ((rank_file(3, 0, 4), "both step 3"), (rank_file(3, 2, 2), "rank 2 of 2; expected ranks")):
        (cut / name).write_bytes(source.read_bytes())
        with pytest.raises(RunError, match=complaint):
            open_trajectory(cut)
        (cut / name).unlink()
    (cut / "step-000000003.safetensors").write_bytes((plain_run / "step-000000003.safetensors").read_bytes())
    with pytest.raises(RunError, match="both step 3"):
        open_trajectory(cut)


def test_a_file_under_another_step_s_name(cut: Path) -> None:
    (cut / rank_file(3, 1, 2)).write_bytes((cut / rank_file(4, 1, 2)).read_bytes())
    with pytest.raises(StepFileError, match="its metadata says step 4, its name 3"):
        open_trajectory(cut)


def test_a_step_whose_ranks_have_no_parameters(tmp_path: Path) -> None:
    for rank in range(2):
        write_rank_step(tmp_path, 0, rank, 2, {"batch/x": np.zeros(2)})
    with pytest.raises(StepFileError, match=r"no tensor 'param/...' in any file of step 0"):
        open_trajectory(tmp_path)
