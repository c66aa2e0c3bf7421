"""Elements that recurrent networks make, and whether their tensors fit together.

torch does not look: with weights of too few rows or a state of too few its kernels read and write beyond a tensor's
end, and what they find there gets into the result, or ends the process.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from trajcheck.objective.program.arguments import Misfit
from trajcheck.objective.program.bounds.shapes import Arguments

#: Matrices of the hidden size in each of its weights.
LSTM, GRU, RNN = 4, 3, 1


def recurrent(gates: int, a: Arguments) -> int:
    """Of input [batch, steps, n] or [steps, batch, n], from a state [layers, batch, hidden]: two states for an LSTM,
    the first of which may be a projection of the size of a weight more."""
    params, directions = a["params"], 2 if a["bidirectional"] else 1
    layers, per = a["num_layers"] * directions, 4 if a["has_biases"] else 2
    if layers < 1 or len(params) not in (layers * per, layers * (per + 1)):
        raise Misfit(f"it has {len(params)} weights for {layers} layers")
    projected = len(params) == layers * (per + 1)
    states = a["hx"] if gates == LSTM else [a["hx"]]
    if len(states) != (2 if gates == LSTM else 1) or (projected and gates != LSTM):
        raise Misfit(f"it has {len(states)} states and {len(params)} weights")
    first, _, size = a["input"].shape if a["batch_first"] else _turned(a["input"].shape)
    hidden, out = states[-1].shape[-1], states[0].shape[-1]
    if not projected and out != hidden:
        raise Misfit(f"its states have {out} and {hidden} columns")
    for state, columns in zip(states, (out, hidden), strict=False):
        _of_shape("state", state, [layers, first, columns])
    width = gates * hidden
    for layer in range(layers):
        weights = params[layer * (per + projected) : (layer + 1) * (per + projected)]
        columns = size if layer < directions else directions * out
        shapes = [[width, columns], [width, out], *[[width]] * (per - 2), *[[out, hidden]] * projected]
        for weight, shape in zip(weights, shapes, strict=True):
            _of_shape("weight", weight, shape)
    _of_one_kind(params)
    _of_one_kind(states)
    steps = math.prod(a["input"].shape[:-1])
    return 2 * steps * sum(each.shape[0] for each in params) + a["input"].numel()


def cell(gates: int, a: Arguments) -> int:
    """Of one step: input [..., n], states [..., hidden]."""
    states = a["hx"] if gates == LSTM else [a["hx"]]
    if len(states) != (2 if gates == LSTM else 1):
        raise Misfit(f"it has {len(states)} states")
    *rows, size = a["input"].shape
    hidden = states[0].shape[-1]
    width = gates * hidden
    for state in states:
        _of_shape("state", state, [*rows, hidden])
    _of_shape("weight", a["w_ih"], [width, size])
    _of_shape("weight", a["w_hh"], [width, hidden])
    biases = [a[name] for name in ("b_ih", "b_hh") if name in a]
    for bias in biases:
        _of_shape("weight", bias, [width])
    _of_one_kind([a["w_ih"], a["w_hh"], *biases])
    _of_one_kind(states)
    return 4 * math.prod(rows) * width


def _turned(shape: Sequence[int]) -> tuple[int, int, int]:
    steps, batch, size = shape
    return batch, steps, size


def _of_shape(what: str, tensor: Any, shape: list[int]) -> None:
    if list(tensor.shape) != shape:
        raise Misfit(f"a {what} of it has shape {list(tensor.shape)}, and must have {shape}")


def _of_one_kind(tensors: Sequence[Any]) -> None:
    kinds = {str(tensor.dtype) for tensor in tensors}
    if len(kinds) > 1:
        raise Misfit(f"its tensors are of {' and '.join(sorted(kinds))}")
