"""Operators that a program may use, with arguments for which torch reads beyond a tensor, ends the process, or shares
memory without a word. What was not refused here took the whole process with it; in a fork that would be seen as such.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from trajcheck.objective.program.arguments import Misfit
from trajcheck.objective.program.bounds.elements import made
from trajcheck.objective.program.nodes import Checked
from trajcheck.objective.program.running import Program
from trajcheck.objective.program.schema import Argument, operators

WEIGHT = torch.arange(16.0).reshape(4, 4)


def at(name: str) -> dict[str, str]:
    return {"node": name}


def node(name: str, op: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    return {"name": name, "op": op, "args": list(args), "kwargs": kwargs}


def program(*nodes: dict[str, Any], kind: str = "parameter") -> Program:
    """One that takes a tensor w and gives the sum of what its last node gives."""
    first = {"name": "w", "op": kind, "of": "w"}
    last = node("sum", "aten.sum.default", at(nodes[-1]["name"]), dtype="float64")
    names: dict[str, frozenset[str]] = dict.fromkeys(["parameter", "buffer", "loss", "constant"], frozenset(["w"]))
    return Program(Checked([first, *nodes, last], at("sum"), [], 0, names), "program")


def value(*nodes: dict[str, Any], w: Tensor = WEIGHT, kind: str = "parameter") -> float:
    return float(program(*nodes, kind=kind)([], lambda *_: w))


@pytest.mark.parametrize(
    "shared",
    [
        [node("a", "aten.einsum.default", [[0, 1], [1, 0]], [at("w")])],
        [node("a", "aten._unsafe_view.default", at("w"), [-1])],
        [node("s", "aten.unsafe_chunk.default", at("w"), 2),
         {"name": "a", "op": "python.getitem", "args": [at("s"), 0]}],
    ],
)  # fmt: skip
def test_what_shares_a_parameters_memory_is_not_written_to(shared: list[dict[str, Any]]) -> None:
    with pytest.raises(Misfit, match="writes into a parameter"):
        program(*shared, node("written", "aten.mul_.Scalar", at("a"), 2))


def _guesses(argument: Argument, tensor: Tensor) -> list[Any]:
    """Some values that an argument may have: those that leave a tensor as it is, above all."""
    kind, _, several = argument.type.partition("[")
    if kind == "Tensor":
        return [[tensor]] if several else [tensor]
    if several:
        return [[0], [1], list(tensor.shape), [0] * tensor.ndim, [1] * tensor.ndim, list(range(tensor.ndim))]
    words = {"equation": ["ij->ij", "ij->ji"], "mode": ["constant"], "indexing": ["ij"]}
    values: dict[str, list[Any]] = {"str": words.get(argument.name, ["none"]), "bool": [False, True]}
    numbers = [0, 1] if kind in ("int", "SymInt", "Scalar") else [0.0, 1.0]
    return values.get(kind, [tensor.dtype] if kind == "ScalarType" else numbers)


def test_operators_that_hand_out_their_arguments_memory_are_known() -> None:
    """All that are not said to do so give memory of their own, for arguments that change nothing."""
    silent = set()
    for name, operator in operators().items():
        if operator.aliases:
            continue
        base, _, overload = name.partition(".")
        function = getattr(getattr(torch.ops.aten, base), overload)
        needed = [each for each in operator.arguments if each.needed]
        for tensor in (torch.ones(4, 4), torch.ones(1, 1, 4, 4)):
            guesses = [_guesses(each, tensor) for each in needed]
            for values in itertools.islice(itertools.product(*guesses), 40):
                arguments = dict(zip((each.name for each in needed), values, strict=True))
                try:
                    made(operator.rule, arguments)  # as a program does: without it torch may end the process
                    found = function(**arguments)
                except Exception:
                    continue
                results = found if isinstance(found, list | tuple) else [found]
                place = tensor.untyped_storage().data_ptr()
                if any(isinstance(each, Tensor) and each.untyped_storage().data_ptr() == place for each in results):
                    silent.add(name)
    assert not silent


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("op", ["div.Scalar_mode", "div_.Scalar_mode", "div.Tensor_mode", "div_.Tensor_mode"])
def test_the_smallest_integer_over_minus_one_wraps_around(op: str, dtype: str) -> None:
    least = torch.iinfo(getattr(torch, dtype)).min
    w = torch.tensor([least, 7, -7], dtype=getattr(torch, dtype))
    other: Any = -1
    nodes = [node("a", "aten.clone.default", at("w"))]
    if "Tensor" in op:
        nodes.append(node("b", "aten.full.default", [3], -1, dtype=dtype))
        other = at("b")
    found = value(*nodes, node("c", f"aten.{op}", at("a"), other, rounding_mode="trunc"), w=w, kind="buffer")
    assert found == float(least)


@pytest.mark.parametrize("mode", ["trunc", "floor"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.uint8])
def test_integers_are_divided_as_torch_does(mode: str, dtype: torch.dtype) -> None:
    w = torch.tensor([7, -7 % 256 if dtype is torch.uint8 else -7, 0, 100], dtype=dtype)
    for other in (-1, 3, -3):
        if dtype is torch.uint8 and other < 0:
            continue
        expected = torch.div(w, other, rounding_mode=mode).double().sum()
        assert value(node("c", "aten.div.Scalar_mode", at("w"), other, rounding_mode=mode), w=w) == expected
        assert value(node("c", "aten.remainder.Scalar", at("w"), other), w=w) == torch.remainder(w, other).sum()
        assert value(node("c", "aten.fmod.Scalar", at("w"), other), w=w) == torch.fmod(w, other).sum()


def test_scales_that_do_not_lead_to_the_size_are_refused() -> None:
    """Antialiased images were read beyond their end, or took memory by the inverse of the scale."""
    image = torch.ones(1, 1, 8, 8)
    for rule, names in (("antialiased", ("scales_h", "scales_w")), ("resized", ("scales_h", "scales_w"))):
        for scale in (1e-5, -1.0, float("nan"), 1e9):
            with pytest.raises(Misfit, match="and is to give 50"):
                made(rule, {"self": image, "output_size": [50, 50], **dict.fromkeys(names, scale)})
        assert made(rule, {"self": image, "output_size": [20, 20], **dict.fromkeys(names, 2.5)}) >= 400


def test_a_view_that_the_strides_do_not_allow_is_a_copy() -> None:
    """As tracing left out the call that would put it in order; it counts among what the program makes."""
    turned = [node("t", "aten.transpose.int", at("w"), 0, 1), node("v", "aten.view.default", at("t"), [2, 8])]
    second = {"name": "row", "op": "aten.select.int", "args": [at("v"), 0, 1]}
    assert value(*turned, second) == float(WEIGHT.T.reshape(2, 8)[1].sum())
    wide = node("wide", "aten.expand.default", at("w"), [2**30, 4, 4])
    with pytest.raises(Exception, match="would make more than"):
        value(wide, node("v", "aten.view.default", at("wide"), [-1]))


def test_empty_tensors_hold_nothing_of_the_process() -> None:
    calls: list[tuple[Any, ...]] = [("new_empty.default", at("w"), [1000]), ("empty.memory_format", [1000])]
    for op, *given in [*calls, ("empty_like.default", at("w"))]:
        torch.full((1000,), 7.0)  # memory that is let go of
        assert value(node("a", f"aten.{op}", *given), w=WEIGHT.repeat(10, 25)) == 0.0


def test_a_buffer_that_changes_its_shape_is_watched() -> None:
    """The second evaluation of one program would make 6,000 x 6,000 elements, the first 6,000."""
    wide = program(
        node("t", "aten.t_.default", at("w")),
        {"name": "v", "op": "aten.flatten.using_ints", "args": [at("w")]},
        node("made", "aten.mul.Tensor", at("t"), at("v")),
        kind="buffer",
    )
    buffer = torch.ones(6000, 1)
    assert float(wide([], lambda *_: buffer)) == 6000
    with pytest.raises(Exception, match="would make more than"):
        wide([], lambda *_: buffer)


@pytest.mark.parametrize(
    "wide",
    [
        [node("wide", "aten.expand.default", at("w"), [2**28, 4, 4])],
        [node("b", "aten.broadcast_to.default", at("w"), [2**20, 4, 4]),
         node("wide", "aten.unfold.default", at("b"), 0, 2**19, 1)],
    ],
)  # fmt: skip
def test_views_of_more_than_is_there_count(wide: list[dict[str, Any]]) -> None:
    """The derivative of one element of such a view is as large as all of it."""
    with pytest.raises(Exception, match="would make more than"):
        value(*wide, node("one", "aten.select.int", at("wide"), 0, 0))


def _lstm(**change: Any) -> dict[str, Any]:
    state = torch.zeros(1, 3, 4)
    given = {"input": torch.ones(3, 7, 4), "hx": [state, state], "params": [torch.ones(16, 4)] * 2}
    settings = {"has_biases": False, "num_layers": 1, "bidirectional": False, "batch_first": True}
    return {**given, **settings, **change}


@pytest.mark.parametrize(
    "change",
    [
        {"params": [torch.ones(3, 4), torch.ones(3, 4)]},
        {"params": [torch.ones(16, 1), torch.ones(16, 4)]},
        {"params": [torch.ones(16, 4)] * 2 + [torch.ones(1)] * 2, "has_biases": True},
        {"params": [torch.ones(16, 4), torch.ones(16, 4).double()]},
        {"params": [torch.ones(16, 4)] * 3},
        {"hx": [torch.zeros(1, 1, 4)] * 2},
        {"hx": [torch.zeros(1, 3, 4), torch.zeros(1, 3, 1)]},
        {"hx": [torch.zeros(1, 3, 4)]},
        {"params": [], "num_layers": 0},
    ],
)
def test_weights_and_states_that_recurrent_networks_would_read_beyond_are_refused(change: dict[str, Any]) -> None:
    """torch looks at none of them: it read other memory of the process, wrote into it, or ended."""
    assert made("lstm", _lstm()) > 0
    assert made("lstm", _lstm(params=[torch.ones(16, 4), torch.ones(16, 2), torch.ones(2, 4)],
                              hx=[torch.zeros(1, 3, 2), torch.zeros(1, 3, 4)])) > 0  # fmt: skip
    with pytest.raises(Misfit):
        made("lstm", _lstm(**change))


def test_cells_that_do_not_fit_are_refused() -> None:
    four = torch.ones(4, 4)
    for rule, gates in (("gru_cell", 3), ("rnn_cell", 1)):
        fits = {"input": four, "hx": four, "w_ih": torch.ones(4 * gates, 4), "w_hh": torch.ones(4 * gates, 4)}
        assert made(rule, fits) > 0
        for name in fits:
            with pytest.raises(Misfit):
                made(rule, {**fits, name: torch.ones(5, 4)})
        with pytest.raises(Misfit):
            made(rule, {**fits, "b_ih": torch.ones(3)})


def test_norms_of_nothing_are_refused() -> None:
    """One ended the process, the other took the memory of as many means as it was told."""
    empty = torch.ones(0, 4)
    with pytest.raises(Misfit, match="no elements"):
        made(operators()["_weight_norm.default"].rule, {"v": empty, "g": torch.ones(()), "dim": 0})
    many = {"input": empty, "N": 2**40, "C": 2, "HxW": 0, "group": 2}
    assert made(operators()["native_group_norm.default"].rule, many) >= 2**41
