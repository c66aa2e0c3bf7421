"""trajcheck.stream.row_pass and replay.reducer: chunks and blocks change nothing; the device reducer says the same."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from handwritten import wide_run
from safetensors.numpy import load_file
from safetensors.torch import save_file as save_torch

import trajcheck.inner_products.loop
from trajcheck.errors import StepFileError
from trajcheck.files.extent_reader import ExtentReader, blocks
from trajcheck.files.safetensors_header import read_header
from trajcheck.inner_products.catalogue import REFERENCE_PRODUCTS, STEP_PRODUCTS
from trajcheck.replay.gpu_reducer import DeviceReducer
from trajcheck.replay.host_reducer import HostReducer
from trajcheck.replay.reducer import Reducer, by_tensor, fetch
from trajcheck.runs.formats.native import reading as native
from trajcheck.runs.references import resolve_references
from trajcheck.runs.trajectory import open_trajectory
from trajcheck.scalars.rows import choose_rows
from trajcheck.scalars.values import RowScalars
from trajcheck.stream.row_pass import CHUNK, available_threads, gather


def scalars(run: Path, tmp_path: Path, skip: int = 3, steps: slice = slice(0, None, 1), **how: int) -> list[RowScalars]:
    trajectory = open_trajectory(run)
    references = resolve_references(["final", "step:4"], trajectory, tmp_path)
    rows = choose_rows(trajectory, steps, skip)
    return list(gather(trajectory, rows, references, STEP_PRODUCTS, REFERENCE_PRODUCTS, **how))  # type: ignore[arg-type]


def close(a: RowScalars, b: RowScalars) -> None:
    rows = [(asdict(a.own), asdict(b.own))]
    rows += [(asdict(one), asdict(other)) for one, other in zip(a.references, b.references, strict=True)]
    for one_row, other_row in rows:
        assert {name for name in one_row if one_row[name] is None} == {n for n in other_row if other_row[n] is None}
        for name, value in one_row.items():
            if value is not None:
                assert value == pytest.approx(other_row[name], rel=1e-12, abs=1e-14), name


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
@pytest.mark.parametrize("piece", [1, 3, 7, 1000])
def test_chunks_and_pieces_change_nothing(plain_run: Path, tmp_path: Path, chunk: int, piece: int) -> None:
    whole = scalars(plain_run, tmp_path)
    for a, b in zip(whole, scalars(plain_run, tmp_path, chunk=chunk, piece=piece, room=1), strict=True):
        close(a, b)


def test_chunks_alone_change_no_bit(plain_run: Path, tmp_path: Path) -> None:
    assert scalars(plain_run, tmp_path, chunk=2) == scalars(plain_run, tmp_path, chunk=5)


def test_a_row_does_not_depend_on_which_others_are_chosen(plain_run: Path, tmp_path: Path) -> None:
    whole = {row.own.step: row for row in scalars(plain_run, tmp_path)}
    for row in scalars(plain_run, tmp_path, steps=slice(2, None, 4)):
        if row.references:
            assert row == whole[row.own.step]


def test_blocks_tile_the_vector() -> None:
    numels = {"a": 5, "empty": 0, "b": 1, "c": 12}
    seen: dict[str, list[int]] = {name: [] for name in numels}
    for pieces in blocks(numels, 4):
        assert pieces[0].offset == 0
        assert sum(piece.stop - piece.start for piece in pieces) <= 4
        for piece in pieces:
            seen[piece.name] += range(piece.start, piece.stop)
    assert seen == {name: list(range(count)) for name, count in numels.items()}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_every_floating_dtype_is_widened_exactly(tmp_path: Path, dtype: torch.dtype) -> None:
    values = torch.randn(7, generator=torch.Generator().manual_seed(0)).to(dtype)
    values[:3] = torch.tensor([0.0, -0.0, 1e-7]).to(dtype)  # 1e-7: subnormal in float16
    save_torch({"x": values}, tmp_path / "x.safetensors")
    extent = read_header(str(tmp_path / "x.safetensors")).extents({"x": "x"})["x"]
    out = np.empty(5)
    with ExtentReader() as reader:
        reader.widen(extent, 1, out)
    assert out.tolist() == values[1:6].double().tolist()


def test_a_file_that_shrinks_during_the_analysis_is_an_error(plain_run: Path) -> None:
    path = plain_run / "step-000000000.safetensors"
    extent = native.read_snapshot(path).parameters["layer.weight"]
    path.write_bytes(path.read_bytes()[: extent.offset + 4])
    with ExtentReader() as reader, pytest.raises(StepFileError, match="early"):
        reader.widen(extent, 0, np.empty(6))


def test_few_files_stay_open(plain_run: Path) -> None:
    snapshots = open_trajectory(plain_run).snapshots
    with ExtentReader(capacity=2) as reader:
        for snapshot in (*snapshots, *reversed(snapshots)):
            reader.widen(snapshot.parameters["layer.bias"], 0, np.empty(2))
            assert len(reader._open) <= 2


def test_the_reducer_may_be_asked_for_nothing() -> None:
    vector = {"w": torch.ones(3), "empty": torch.ones(0)}
    with HostReducer({"w": (3,), "empty": (0,)}) as reducer:
        assert reducer.reduce({"x": vector}, {}, (), ()).values.shape == (0, 1)
        assert reducer.reduce({"x": vector}, {}, ("param_sq",), ()).values.tolist() == [[3.0]]
    with HostReducer({"empty": (0,)}) as reducer:
        assert reducer.reduce({"x": vector}, {}, ("param_sq",), ()).values.shape == (1, 0)


@pytest.mark.parametrize("kind", ["host", "host, in numpy", "device", "device, small chunks"])
def test_the_reducers_say_what_the_pass_says(
    plain_run: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trajectory = open_trajectory(plain_run)
    reducer: Reducer
    if kind == "host, in numpy":
        monkeypatch.setattr(trajcheck.inner_products.loop, "_library", lambda: None)
    if kind.startswith("host"):
        reducer = HostReducer(trajectory.shapes)
    else:
        small = {"chunk": 4, "segment": 2} if kind.endswith("chunks") else {}
        reducer = DeviceReducer(trajectory.shapes, torch.device("cpu"), **small)

    def load(step: int, kind: str = "param") -> dict[str, torch.Tensor]:
        tensors = load_file(plain_run / f"step-{step:09d}.safetensors")
        return {name: torch.from_numpy(tensors[f"{kind}/{name}"]) for name in trajectory.shapes}

    for row in scalars(plain_run, tmp_path, skip=2)[1:9]:
        step = row.own.step
        vectors: Mapping[str, Mapping[str, torch.Tensor]] = {
            "x": load(step), "previous": load(step - 1), "next": load(step + 1), "skip": load(step + 2),
            "first": load(0), "gradient": load(step, "grad"),
        }  # fmt: skip
        references = {0: {"reference": load(10)}, 1: {"reference": load(4)}}
        with reducer:
            shares = reducer.reduce(vectors, references, list(STEP_PRODUCTS), list(REFERENCE_PRODUCTS))
        found = by_tensor(reducer, fetch([shares.values])[0]).sum(axis=1)
        assert {number for number, _ in shares.labels} == {None, 0, 1} and len(shares.labels) >= 15
        for (number, name), value in zip(shares.labels, found, strict=True):
            expected = getattr(row.own if number is None else row.references[number], name)
            assert value == pytest.approx(expected, rel=1e-12, abs=1e-14), name


def peak_of_the_pass(run: Path, tmp_path: Path) -> int:
    scalars(run, tmp_path, skip=1)  # imports and caches are paid for
    tracemalloc.start()
    scalars(run, tmp_path, skip=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_does_not_depend_on_the_model(tmp_path: Path) -> None:
    small, wide = (
        peak_of_the_pass(wide_run(tmp_path / str(numel), 40, numel), tmp_path) for numel in (150_000, 600_000)
    )
    assert wide < 1.1 * small
    assert wide < 20_000_000 * available_threads()  # a handful of blocks of one megabyte each


def test_memory_grows_with_the_rows_of_scalars_alone(tmp_path: Path) -> None:
    """What a chunk's steps need, some 15 kB each, is let go of when the next chunk's is there."""
    two, four = (
        peak_of_the_pass(wide_run(tmp_path / str(chunks), chunks * CHUNK, 20_000), tmp_path) for chunks in (2, 4)
    )
    assert four < two + 2 * CHUNK * 6000


def test_opening_a_long_run_reads_headers_only(tmp_path: Path, bytes_read: list[int]) -> None:
    run = wide_run(tmp_path / "run", 40, 1000)
    trajectory = open_trajectory(run)
    assert not bytes_read
    assert len(trajectory.snapshots) == 40
    # one layout is shared by all steps with the same header
    assert len({id(snapshot.parameters._specs) for snapshot in trajectory.snapshots}) == 1  # type: ignore[attr-defined]


def test_a_run_description_is_read(plain_run: Path) -> None:
    parameters = [
        {"name": "layer.bias", "shape": [2], "dtype": "float32", "group": 0, "trainable": True},
        {"name": "layer.weight", "shape": [3, 2], "dtype": "float32", "group": 0, "trainable": True},
    ]
    (plain_run / "run.json").write_text(json.dumps({"format": 1, "id": "me", "parameters": parameters}))
    trajectory = open_trajectory(plain_run)
    assert trajectory.id == "me"
    assert list(trajectory.shapes) == ["layer.bias", "layer.weight"]  # the run's own order
