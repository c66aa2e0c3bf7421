"""trajcheck.replay with residency, read_ahead and vector_reader: how much is kept and when it is read changes no
number; what is read and evaluated is what --dry-run says."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from counted import estimate
from places import SAMPLES
from sample_cases import assert_same_values

import trajcheck
import trajcheck.replay.replay
from trajcheck.audit.audit import quick_audit
from trajcheck.errors import ObjectiveError, StepFileError, UsageError
from trajcheck.inner_products.catalogue import REFERENCE_PRODUCTS, STEP_PRODUCTS
from trajcheck.measuring.measured_run import MeasuredRun
from trajcheck.measuring.options import Options
from trajcheck.objective.objective import Objective
from trajcheck.replay.batches.examples import ASKED
from trajcheck.replay.gpu_reducer import DeviceReducer
from trajcheck.replay.host_reducer import HostReducer
from trajcheck.replay.read_ahead import one_ahead
from trajcheck.replay.reducer import by_tensor, fetch
from trajcheck.replay.row_evaluation import RowEvaluation
from trajcheck.replay.row_reading import RowData
from trajcheck.replay.vector_reader import Buffers, Loaded, VectorReader
from trajcheck.runs.divergence import load_trajectory
from trajcheck.runs.references import resolve_references

RUN, OBJECTIVE = SAMPLES / "digits-sgd-seed0", f"{SAMPLES / 'objectives.py'}:digits"
REFS = ("final", "init", "mean:3", "step:4")


def options(**chosen: Any) -> dict[str, Any]:
    return {"refs": REFS, "objective": OBJECTIVE, "steps": "0:7", **chosen}


def reading_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("trajcheck")]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Losses and gradients evaluated, and bytes that Buffers did not have, since it was last cleared."""
    counts = dict.fromkeys(("loss", "loss_and_gradient", "taken"), 0)

    def count(owner: Any, name: str, key: str, size: Any) -> None:
        made = getattr(owner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            counts[key] += size(*arguments)
            return made(*arguments, **named)

        monkeypatch.setattr(owner, name, call)

    count(Objective, "loss", "loss", lambda *_: 1)
    count(Objective, "loss_and_gradient", "loss_and_gradient", lambda *_: 1)
    count(Buffers, "take", "taken", lambda self, size: 0 if self._free.get(size) else size)
    return counts


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"sample": ("own", "previous", "probe"), "skip": 3, "steps": "0:4"},
        {"ref_gradients": True, "path_integral": 3, "layers": True, "allocate": True},
        {"curvature": 3, "metrics": ("convexity", "smoothness")},
        {"replay_dtype": "float64", "sample": ("probe",), "steps": "0:4"},
    ],
    ids=["plain", "samples", "gradients", "curvature", "float64"],
)
def test_memory_changes_no_bit(
    chosen: dict[str, Any], tmp_path: Path, counted: dict[str, int], bytes_read: list[int]
) -> None:
    """Between the minimum and everything: the same numbers, and the reads and evaluations that were announced."""
    everything = estimate(RUN, Options(**options(**chosen)))
    whole = trajcheck.analyze(RUN, **options(**chosen), out=tmp_path / "whole")
    low, high = everything.device_minimum, everything.device
    assert low < high
    bytes_read.clear()
    quick_audit(load_trajectory(RUN, False))
    audited = sum(bytes_read)  # and whether the end is finite
    seen = set()
    for number, memory in enumerate((low, low + (high - low) // 3, low + 2 * (high - low) // 3, high)):
        bounded = options(**chosen, memory=f"{memory}B")
        cost = estimate(RUN, Options(**bounded))
        assert cost.device <= memory
        counted.update(dict.fromkeys(counted, 0))
        bytes_read.clear()
        report = trajcheck.analyze(RUN, **bounded, out=tmp_path / str(number))
        asked = ASKED * cost.asked  # whether the loss is a mean over examples
        assert (counted["loss"] - asked, counted["loss_and_gradient"]) == (cost.losses, cost.gradients)
        besides = sum(bytes_read) - cost.stored_bytes - cost.replay_bytes  # is the end finite, are the references
        assert 0 <= besides <= audited + 16 * size()
        # the objective's parameters, and the gradients at x_t and x_{t-1}, are not read
        assert counted["taken"] <= cost.device - (3 * size() if not chosen else 0)
        seen.add((cost.again, counted["taken"], cost.gradients))
        if "curvature" not in chosen:  # a smaller basis of Lanczos vectors rounds otherwise
            assert_same_values(whole.steps, report.steps)
        assert_same_values(whole.references, report.references)
        if whole.layers is not None:
            assert report.layers is not None
            assert_same_values(whole.layers, report.layers)
        if whole.allocation is not None:
            assert report.allocation is not None
            assert_same_values(whole.allocation, report.allocation)
    assert len(seen) > 2, "the sizes made no difference"
    assert min(again for again, _, _ in seen) == 0 < max(again for again, _, _ in seen)


def size() -> int:
    """Bytes of the run's parameters."""
    return 4 * MeasuredRun(RUN, Options(), quiet=True).trajectory.numel


def test_less_than_the_minimum_is_refused(tmp_path: Path) -> None:
    minimum = estimate(RUN, Options(**options())).device_minimum
    for act in (
        lambda: estimate(RUN, Options(**options(memory=f"{minimum - 1}B"))),
        lambda: trajcheck.analyze(RUN, **options(memory=f"{minimum - 1}B"), out=tmp_path / "report"),
    ):
        with pytest.raises(UsageError, match=f"{minimum:,}"):
            act()
    assert not (tmp_path / "report").exists()


def test_a_dry_run_says_what_a_small_memory_costs() -> None:
    everything = estimate(RUN, Options(**options()))
    text = str(estimate(RUN, Options(**options(memory=f"{everything.device_minimum}B"))))
    rows = 7
    again = rows * len(REFS) * size()
    assert f"{again:,} of them references that --memory does not hold" in text
    assert f"--memory can be {everything.device_minimum:,} or more" in text
    assert "does not hold" not in str(everything)


def test_what_never_changes_is_evaluated_once() -> None:
    """On probe batches f(x*) is one number for the run, and x_{t-1} was the x_t of the row before."""
    cost = estimate(RUN, Options(**options(sample=("probe",), refs=("final", "mean:3"))))
    probes = MeasuredRun(RUN, Options(**options()), quiet=True).trajectory.probes[0].batches
    assert probes > 1
    assert (cost.losses, cost.gradients) == (2 * probes, 7 * probes + 2)  # and two to find the precision
    gradients = estimate(
        RUN, Options(**options(sample=("own",), refs=("init", "step:1"), ref_gradients=True))
    ).gradients
    assert gradients == 2 + 7 + 6 + 2 * 7 - 4  # in rows 0 and 1 init, in rows 1 and 2 step:1, are x_t and x_{t-1}


def replay(tmp_path: Path, run: Path, **chosen: Any) -> Any:
    analysis = MeasuredRun(run, Options(**options(**chosen)), quiet=True)
    return analysis.prepare_replay(resolve_references(analysis.options.refs, analysis.trajectory, tmp_path))


def test_the_next_row_is_read_by_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readers: list[str] = []
    vector = VectorReader.vector

    def noted(self: VectorReader, *arguments: Any) -> Loaded:
        readers.append(threading.current_thread().name)
        return vector(self, *arguments)

    monkeypatch.setattr(VectorReader, "vector", noted)
    for found in replay(tmp_path, RUN).rows():
        assert found
    inside = [name for name in readers if name.startswith("trajcheck-read")]
    assert len(readers) - len(inside) == len(REFS)
    assert len(inside) == 8 + 7  # x_0 to x_7, once each, and the recorded gradients
    assert not reading_threads()


@pytest.fixture
def row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row is handed on when it was evaluated."""
    monkeypatch.setattr(trajcheck.replay.replay, "AT_ONCE", 0.0)


@pytest.mark.parametrize("seconds", [0.0, 1e9])
def test_rows_before_a_failure_are_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Whether they are evaluated one by one or all at once; and the same rows."""
    monkeypatch.setattr(trajcheck.replay.replay, "AT_ONCE", seconds)
    whole = list(replay(tmp_path, RUN).rows())
    plain, calls, found = RowEvaluation.of_row, [0], []

    def fails(self: RowEvaluation, data: RowData) -> Any:
        calls[0] += 1
        if calls[0] == 4:
            raise ObjectiveError("it fails")
        return plain(self, data)

    monkeypatch.setattr(RowEvaluation, "of_row", fails)
    rows = replay(tmp_path, RUN).rows()
    before = torch.get_rng_state()
    with pytest.raises(ObjectiveError, match="it fails"):
        for each in rows:
            found.append(each)
            assert torch.equal(torch.get_rng_state(), before)
    assert found == whole[:3] and not reading_threads()


@pytest.mark.usefixtures("row_by_row")
def test_a_read_that_fails_in_the_thread_names_step_and_tensor(tmp_path: Path) -> None:
    import shutil

    run = shutil.copytree(RUN, tmp_path / "run")
    rows = replay(tmp_path, run).rows()
    path = run / "step-000000005.safetensors"
    next(rows)
    path.write_bytes(path.read_bytes()[:-400_000] if path.stat().st_size > 800_000 else path.read_bytes()[:2000])
    with pytest.raises(StepFileError, match=r"step 5, tensor \S+: .*step-000000005") as raised:
        list(rows)
    assert "early" in str(raised.value) and not reading_threads()


@pytest.mark.usefixtures("row_by_row")
@pytest.mark.parametrize("how", ["the objective fails", "the caller stops"])
def test_no_thread_is_left_behind(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = replay(tmp_path, RUN).rows()
    next(rows)
    assert reading_threads()
    if how == "the caller stops":
        rows.close()
    else:

        def fails(*_: Any, **__: Any) -> Any:
            raise ObjectiveError("it fails")

        monkeypatch.setattr(Objective, "loss", fails)
        with pytest.raises(ObjectiveError, match="it fails") as raised:
            next(rows)
        assert raised.tb is not None  # whoever keeps the error keeps no thread
    assert not reading_threads()


def test_the_random_streams_are_as_they_were_between_rows(tmp_path: Path) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    for _ in replay(tmp_path, RUN).rows():
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.get_default_dtype() is torch.float32


@pytest.mark.parametrize("ahead", [True, False])
def test_one_ahead(ahead: bool) -> None:
    def work(item: int) -> int:
        if item == 3:
            raise ValueError("three")
        return item * item

    found: Iterator[int] = one_ahead(work, [0, 1, 2, 3, 4], ahead=ahead)
    assert [next(found), next(found), next(found)] == [0, 1, 4]
    with pytest.raises(ValueError, match="three"):
        next(found)
    assert list(one_ahead(work, [], ahead=ahead)) == []
    assert not reading_threads()


def test_one_ahead_where_no_thread_can_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    assert list(one_ahead(lambda item: 2 * item, [1, 2, 3])) == [2, 4, 6]


def vectors(
    shapes: dict[str, tuple[int, ...]], seed: int, dtype: torch.dtype = torch.float32
) -> dict[str, torch.Tensor]:
    stream = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=stream).to(dtype) for name, shape in shapes.items()}


@pytest.mark.parametrize("kind", ["host", "device"])
@pytest.mark.parametrize("numel", [70_000, 1_100_000])
def test_the_reducers_against_plain_sums(kind: str, numel: int) -> None:
    """Clipped, regularised, in several dtypes, several parts a tensor, threads; and by itself each reference has the
    same bits as together with others."""
    shapes = {"a": (numel // 10, 10), "none": (0, 3), "b": (7,)}
    decay = {"a": 0.1}
    first = {"x": vectors(shapes, 0), "gradient": vectors(shapes, 1, torch.bfloat16), "recorded": vectors(shapes, 2)}
    points = {0: {"reference": vectors(shapes, 3)}, 1: {"reference": vectors(shapes, 4, torch.float64)}}
    names = ["grad_sq", "grad_dot_param", "disagreement_sq", "recorded_sq", "regularised_sq"]
    towards = ["grad_dot_ref", "ref_sq", "regularised_dot_ref"]
    reducer: Any = (
        HostReducer(shapes)
        if kind == "host"
        else DeviceReducer(shapes, torch.device("cpu"), chunk=1 << 15, segment=1 << 10)
    )
    with reducer:
        shares = reducer.reduce(first, points, names, towards, {"recorded": 0.5}, decay)
        alone = reducer.reduce(first, {1: points[1]}, (), towards, {"recorded": 0.5}, decay)
    assert not reading_threads()
    found = by_tensor(reducer, fetch([shares.values])[0])
    table = dict(zip(shares.labels, found, strict=True))
    for label, values in zip(alone.labels, by_tensor(reducer, fetch([alone.values])[0]), strict=True):
        assert (table[label] == values).all(), label
    assert list(reducer.tensors) == ["a", "b"]
    for place, name in enumerate(reducer.tensors):
        wide = {key: vector[name].double().flatten() for key, vector in first.items()}
        wide["recorded"] = wide["recorded"] / 0.5
        wide["regularised"] = wide["gradient"] + decay.get(name, 0.0) * wide["x"]
        for (number, product), values in table.items():
            known = (
                wide if number is None else {**wide, "reference": points[number]["reference"][name].double().flatten()}
            )
            pair = (STEP_PRODUCTS if number is None else REFERENCE_PRODUCTS)[product]
            left, right = (known[key] if isinstance(key, str) else known[key[0]] - known[key[1]] for key in pair)
            expected = float((left * right).sum())
            assert values[place] == pytest.approx(expected, rel=1e-12, abs=1e-11 * numel**0.5), (number, product)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("small", [False, True])
def test_on_a_gpu(small: bool, tmp_path: Path) -> None:
    """The same numbers as on the CPU but for rounding, with everything on the device and with the least."""
    chosen = options(replay_dtype="float64", ref_gradients=True, device="cuda")
    if small:
        chosen["memory"] = f"{estimate(RUN, Options(**chosen)).device_minimum}B"
    there = trajcheck.analyze(RUN, **chosen, out=tmp_path / "cuda")
    here = trajcheck.analyze(RUN, **{**chosen, "device": "cpu", "memory": None}, out=tmp_path / "cpu")
    for name in ("grad_dot_ref", "loss_ref", "inst_smooth"):
        pairs = zip(there.references[name], here.references[name], strict=True)
        assert all(a == pytest.approx(b, rel=1e-8, nan_ok=True) for a, b in pairs)
