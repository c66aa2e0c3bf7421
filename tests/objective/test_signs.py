"""Whether a program's loss can be negative, told from its nodes; what is not known is not claimed."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from trajcheck.objective.program.nodes import Checked
from trajcheck.objective.program.signs import ANY, AT_MOST_0, BETWEEN, FIXED, UNIT, Range, lower_bound

X, Y = {"name": "x", "op": "input", "at": 0}, {"name": "y", "op": "input", "at": 1}
W = {"name": "w", "op": "parameter", "of": "w"}
C = {"name": "c", "op": "constant", "of": "c"}


def node(name: str, op: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """A letter stands for the node of that name."""

    def value(each: Any) -> Any:
        if isinstance(each, list):
            return [value(one) for one in each]
        return {"node": each} if isinstance(each, str) and len(each) == 1 else each

    return {"name": name, "op": op, "args": [value(each) for each in args], "kwargs": kwargs}


def lowest(*nodes: dict[str, Any], constant: Range = ANY) -> float:
    """Of the last node, after a batch of two tensors, a parameter and a constant."""
    tensors = {"parameter": frozenset("w"), "constant": frozenset("c"), "buffer": frozenset(), "loss": frozenset()}
    checked = Checked([X, Y, W, C, *nodes], {"node": nodes[-1]["name"]}, [], 2, tensors)
    return lower_bound(checked.block, lambda kind, name: constant if kind == "constant" else ANY)


CROSS = "aten.cross_entropy_loss.default"
KNOWN: dict[str, list[dict[str, Any]]] = {
    "cross entropy": [node("l", CROSS, "x", "y")],
    "smoothed": [node("l", CROSS, "x", "y", None, 1, -100, 0.1)],
    "mse": [node("l", "aten.mse_loss.default", "x", "y")],
    "l1": [node("l", "aten.l1_loss.default", "x", "y")],
    "bce": [node("l", "aten.binary_cross_entropy_with_logits.default", "x", "y")],
    "nll of log_softmax": [
        node("p", "aten.log_softmax.int", "x", 1),
        node("v", "aten.view.default", "p", [-1, 3]),
        node("l", "aten.nll_loss_nd.default", "v", "y"),
    ],
    "minus the mean of gathered log_softmax": [
        node("p", "aten.log_softmax.int", "x", 1),
        node("q", "aten.gather.default", "p", 1, "y"),
        node("m", "aten.mean.default", "q"),
        node("l", "aten.neg.default", "m"),
    ],
    "a penalty": [
        node("a", CROSS, "x", "y"),
        node("s", "aten.mul.Tensor", "w", "w"),
        node("t", "aten.sum.default", "s"),
        node("u", "aten.mul.Tensor", "t", 0.01),
        node("l", "aten.add.Tensor", "a", "u"),
    ],
    "a power": [
        node("d", "aten.sub.Tensor", "x", "y"),
        node("s", "aten.pow.Tensor_Scalar", "d", 2),
        node("m", "aten.mean.default", "s"),
        node("l", "aten.div.Tensor", "m", 2),
    ],
    "one less a cosine": [
        node("s", "aten.cosine_similarity.default", "x", "y"),
        node("r", "aten.rsub.Scalar", "s", 1),
        node("l", "aten.mean.default", "r"),
    ],
    "a sum over its count": [
        node("s", "aten.square.default", "x"),
        node("t", "aten.sum.default", "s"),
        node("n", "aten.sym_size.int", "x", 0),
        {"name": "k", "op": "python.mul", "args": [{"node": "n"}, 3]},
        node("l", "aten.div.Tensor", "t", "k"),
    ],
    "a clamp": [node("l", "aten.clamp.default", "x", 0)],
    "a block": [
        {
            "name": "b",
            "op": "autocast",
            "device": "cpu",
            "dtype": "bfloat16",
            "enabled": True,
            "cache": None,
            "args": [{"node": "x"}, {"node": "y"}],
            "inputs": ["i", "j"],
            "nodes": [node("l", CROSS, "i", "j")],
            "outputs": [{"node": "l"}],
        },
        {"name": "g", "op": "python.getitem", "args": [{"node": "b"}, 0]},
    ],
}
UNKNOWN: dict[str, list[dict[str, Any]]] = {
    "the batch": [node("l", "aten.mean.default", "x")],
    "a reward": [node("a", CROSS, "x", "y"), node("l", "aten.mul.Tensor", "a", "w")],
    "a difference": [node("a", CROSS, "x", "y"), node("l", "aten.sub.Tensor", "a", 0.5)],
    "a bonus": [node("a", CROSS, "x", "y"), node("l", "aten.sub.Tensor", "a", 0.5)],
    "nll of anything": [node("l", "aten.nll_loss_nd.default", "x", "y")],
    "weights of a parameter": [node("l", CROSS, "x", "y", "w")],
    "too much smoothing": [node("l", CROSS, "x", "y", None, 1, -100, 1.5)],
    "a matrix with itself": [node("p", "aten.matmul.default", "x", "x"), node("l", "aten.sum.default", "p")],
    "places of a largest": [
        node("p", "aten.log_softmax.int", "x", 1),
        node("m", "aten.max.dim", "p", 1),
        {"name": "i", "op": "python.getitem", "args": [{"node": "m"}, 1]},
        node("l", "aten.neg.default", "i"),
    ],
    "the larger of two": [
        node("p", "aten.log_softmax.int", "x", 1),
        node("m", "aten.max.other", "p", "y"),
        node("l", "aten.neg.default", "m"),
    ],
    "whole numbers": [
        node("p", "aten.log_softmax.int", "x", 1),
        node("q", "aten.to.dtype", "p", "bool"),
        node("l", "aten.neg.default", "q"),
    ],
    "the same bits": [node("a", "aten.abs.default", "x"), node("l", "aten.view.dtype", "a", "float32")],
    "a negative weight": [node("a", CROSS, "x", "y"), node("l", "aten.mul.Tensor", "a", -1)],
    "a softplus turned round": [node("l", "aten.softplus.default", "x", -1)],
    "an odd power": [node("l", "aten.pow.Tensor_Scalar", "x", 3)],
    "an operator that no table names": [node("l", "aten.kl_div.default", "x", "y")],
    "what is written into": [
        node("a", "aten.abs.default", "x"),
        node("b", "aten.view.default", "a", [-1]),
        node("n", "aten.neg_.default", "a"),
        node("l", "aten.sum.default", "b"),
    ],
}


@pytest.mark.parametrize("name", KNOWN)
def test_losses_that_cannot_be_negative(name: str) -> None:
    assert lowest(*KNOWN[name]) >= 0


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_may_be_negative_is_not_called_otherwise(name: str) -> None:
    assert lowest(*UNKNOWN[name]) < 0


def test_weights_of_classes_count_as_they_are() -> None:
    loss = node("l", CROSS, "x", "y", "c")
    assert lowest(loss, constant=Range(0.1, 3.0)) == 0.0
    assert lowest(loss, constant=Range(-0.1, 3.0)) == -math.inf


def test_the_fixed_ranges_hold_on_random_numbers() -> None:
    """Of operators of one tensor, by torch itself."""
    x = 5 * torch.randn(1000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    tried = 0
    for name, known in FIXED.items():
        call = getattr(torch.ops.aten, name, None)
        try:
            found = call(x) if call is not None else None
        except (RuntimeError, TypeError):
            continue
        if isinstance(found, torch.Tensor) and not found.is_complex():
            values = found.double()[~found.isnan()]
            assert ((values >= known.low) & (values <= known.high)).all(), name
            tried += 1
    assert tried > 20 and AT_MOST_0.high == 0 and UNIT.low == 0 and BETWEEN.low == -1
