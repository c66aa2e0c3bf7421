"""The products of a replayed row, which the inner loop makes by instructions of their own, against long double."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from trajcheck.inner_products import loop
from trajcheck.inner_products.catalogue import REFERENCE_PRODUCTS, STEP_PRODUCTS, inner_products
from trajcheck.inner_products.direct import Direct, Replayed, ReplayedTowards
from trajcheck.replay.host_reducer import HostReducer, _program
from trajcheck.replay.plan import REFERENCE_REPLAYED, STEP_REPLAYED
from trajcheck.replay.reducer import by_tensor

SHAPES = {"w": (7, 43), "empty": (0,), "b": (5,), "long": (1031,)}
DECAY = {"w": 0.3, "long": -1.7}
ALL = ("gradient", "gradient_previous", "x", "previous", "next", "skip", "recorded")
STEP = [name for name in STEP_PRODUCTS if name in STEP_REPLAYED]
TOWARDS = [name for name in REFERENCE_PRODUCTS if name in REFERENCE_REPLAYED]


@pytest.fixture(params=["compiled", "numpy"])
def inner_loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if request.param == "numpy":
        monkeypatch.setenv("TRAJCHECK_KERNEL", "numpy")
    elif not loop.compiled():
        pytest.skip("no compiled inner loop here")
    loop.choose_again()
    yield
    monkeypatch.undo()
    loop.choose_again()


def expected(
    vectors: dict[str, dict[str, Tensor]], references: dict[int, dict[str, dict[str, Tensor]]], tensor: str, clip: float
) -> dict[tuple[int | None, str], float]:
    """One tensor's products by numpy."""

    def wide(vector: dict[str, Tensor]) -> np.ndarray:
        return vector[tensor].double().numpy().astype(np.longdouble).reshape(-1)

    known = {name: wide(vector) for name, vector in vectors.items()}
    if "recorded" in known:
        known["recorded"] = known["recorded"] / clip
    known["regularised"] = known["gradient"] + DECAY.get(tensor, 0.0) * known["x"]
    points = [{name: wide(vector) for name, vector in each.items()} for each in references.values()]
    own, towards = inner_products(known, points, STEP, TOWARDS, np.subtract, lambda a, b: float((a * b).sum()))
    found: dict[tuple[int | None, str], float] = {(None, name): value for name, value in own.items()}
    for number, each in zip(references, towards, strict=True):
        found |= {(number, name): value for name, value in each.items()}
    return found


@pytest.mark.parametrize("missing", [(), ("previous", "gradient_previous"), ("next", "skip"), ("recorded",), ("skip",)])
@pytest.mark.parametrize("iterates, gradients, clip", [("float32", "float64", 1.0), ("float16", "float32", 0.3)])
def test_products_of_a_replayed_row(
    inner_loop: None, missing: Sequence[str], iterates: str, gradients: str, clip: float
) -> None:
    stream = torch.Generator().manual_seed(0)
    names = [name for name in ALL if name not in missing]

    def vector(dtype: str) -> dict[str, Tensor]:
        kind: torch.dtype = getattr(torch, dtype)
        return {name: torch.randn(shape, generator=stream).to(kind) for name, shape in SHAPES.items()}

    vectors = {name: vector(gradients if name.startswith("gradient") else iterates) for name in names}
    # the fourth reference is an average, which is stored in double
    references = {n: {"reference": vector("float64" if n == 3 else iterates)} for n in range(4)}
    with HostReducer(SHAPES) as reducer:
        shares = reducer.reduce(vectors, references, STEP, TOWARDS, {"recorded": clip}, DECAY)
    for number, tensor in enumerate(reducer.tensors):
        wanted = expected(vectors, references, tensor, clip)
        found = dict(zip(shares.labels, by_tensor(reducer, shares.values.numpy())[:, number].tolist(), strict=True))
        assert found.keys() == wanted.keys()
        for label, value in wanted.items():
            assert found[label] == pytest.approx(value, rel=1e-12, abs=1e-11), (tensor, label)


def test_a_replayed_row_keeps_nothing() -> None:
    """All is made by three instructions that go once through their vectors."""
    known = tuple(sorted({*ALL, "regularised"}))
    references = tuple((number, ("reference",)) for number in range(3))
    _, program = _program(known, references, tuple(STEP), tuple(TOWARDS))
    kinds = [type(each) for each in program.instructions]
    assert kinds == [Replayed, ReplayedTowards, ReplayedTowards] and program.slots == 0
    numbers = [n for each in program.instructions if isinstance(each, Direct) for n in each.outputs if n >= 0]
    assert sorted(numbers) == list(range(program.outputs))  # each product once
