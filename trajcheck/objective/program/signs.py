"""Whether a program's loss can be negative, told from its nodes alone: between which numbers every value lies.

Each value has the range of all its elements, from what its operator makes of the ranges of its arguments. What is not
known is everything: of a batch, of parameters, of an operator that no table below names. After an operator that writes
into a value, all values so far may be others, as views share memory. Losses count as what they are defined to be: class
probabilities and binary targets lie in [0, 1], as torch asks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from trajcheck.objective.program.arguments import Dtype, Reference
from trajcheck.objective.program.nodes import Block, Step


class Range(NamedTuple):
    """Every element lies between them."""

    low: float = -math.inf
    high: float = math.inf


ANY, AT_LEAST_0, AT_MOST_0 = Range(), Range(0.0), Range(high=0.0)
UNIT, BETWEEN = Range(0.0, 1.0), Range(-1.0, 1.0)

#: What these give, whatever they take.
FIXED: Mapping[str, Range] = {
    **dict.fromkeys(("abs", "square", "exp", "exp2", "sqrt", "rsqrt", "relu", "relu6", "cosh"), AT_LEAST_0),
    **dict.fromkeys(("norm", "linalg_vector_norm", "linalg_norm", "linalg_matrix_norm", "frobenius_norm"), AT_LEAST_0),
    **dict.fromkeys(("dist", "var", "std", "count_nonzero", "sym_size", "sym_numel", "numel"), AT_LEAST_0),
    **dict.fromkeys(("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "soft_margin_loss"), AT_LEAST_0),
    **dict.fromkeys(("margin_ranking_loss", "multilabel_margin_loss", "triplet_margin_loss"), AT_LEAST_0),
    "cosine_embedding_loss": AT_LEAST_0,
    **dict.fromkeys(("sigmoid", "softmax", "_softmax", "hardsigmoid", "one_hot", "rand", "rand_like"), UNIT),
    **dict.fromkeys(("log_softmax", "_log_softmax", "log_sigmoid"), AT_MOST_0),
    **dict.fromkeys(("tanh", "sin", "cos", "erf", "sign", "cosine_similarity"), BETWEEN),
    **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge", "logical_not", "logical_and", "logical_or"), UNIT),
    **dict.fromkeys(("isnan", "isinf", "isfinite", "ones", "ones_like"), UNIT),
    **dict.fromkeys(("zeros", "zeros_like"), Range(0.0, 0.0)),
}

#: Losses that are at least 0 where these arguments, weights, are so or are not given.
WEIGHTED: Mapping[str, tuple[str, ...]] = {
    "cross_entropy_loss": ("weight",),
    "binary_cross_entropy": ("weight",),
    "binary_cross_entropy_with_logits": ("weight", "pos_weight"),
    "multi_margin_loss": ("weight",),
}

#: The negative log-likelihood of what is at most 0.
LIKELIHOODS = frozenset(("nll_loss", "nll_loss_nd", "nll_loss2d"))

#: What gives elements, means or extremes of its first argument and nothing else.
SAME = frozenset(
    [
        *("mean", "max", "min", "amax", "amin", "median", "nanmedian", "view", "reshape", "_unsafe_view", "flatten"),
        *("squeeze", "unsqueeze", "slice", "select", "transpose", "t", "permute", "contiguous", "clone", "detach"),
        *("alias", "expand", "expand_as", "index_select", "gather", "index", "take", "diagonal", "unbind", "chunk"),
        *("split", "split_with_sizes", "to", "_to_copy", "view_as", "roll", "flip", "unflatten", "movedim", "repeat"),
        *("item", "lift_fresh", "lift_fresh_copy", "masked_select", "sort", "topk", "kthvalue"),
    ]
)

#: What keeps the sign of its first argument: sums, and elements that are left out or made larger.
SIGNED = frozenset(("sum", "nansum", "cumsum", "dropout", "feature_dropout", "trace", "log1p", "expm1"))

#: Products, sums of products of two, and those of them that are squares where both are one.
PRODUCTS = frozenset(("mul", "multiply"))
SUMS_OF_PRODUCTS = frozenset(("dot", "vdot", "mm", "matmul", "bmm", "mv", "outer", "inner"))
SQUARES = PRODUCTS | {"dot", "vdot"}

#: Arithmetic of numbers that is at least 0 where they are.
NUMBERS = frozenset(("add", "mul", "truediv", "floordiv", "mod", "max", "min", "pow"))

#: The range of what a program takes, by kind and name.
Tensors = Callable[[str, str], Range]


def lower_bound(block: Block, tensors: Tensors = lambda kind, name: ANY) -> float:
    """What no loss of the program is below; -inf where its nodes do not tell. `tensors`: the range of its constants,
    and of the tensors of a loss that is a module, which count where nothing is written."""
    if _writes(block):
        return _run(block, [], lambda kind, name: tensors(kind, name) if kind == "constant" else ANY)[0].low
    return _run(block, [], tensors)[0].low


def _writes(block: Block) -> bool:
    return any(_written(step) for step in block.steps)


def _written(step: Step) -> bool:
    """Whether a step may change a value that was there before."""
    if step.block is not None:
        return _writes(step.block)
    return step.operator is not None and any(each.written for each in step.operator.arguments)


#: A range, or a list of them of what gives several values.
Value = Any


def _run(block: Block, inputs: Sequence[Value], tensors: Tensors) -> list[Range]:
    values: list[Value] = [*inputs, *[ANY] * (block.places - len(inputs))]
    for step in block.steps:
        values[step.place] = _value(step, values, tensors)
        if _written(step):
            values = [ANY] * len(values)
    return [_one(values[place]) for place in block.outputs]


def _one(value: Value) -> Range:
    """One range of a value, that of all its parts."""
    if isinstance(value, Range):
        return value
    return _union([_one(each) for each in value]) if value else ANY


def _union(ranges: Sequence[Range]) -> Range:
    return Range(min(each.low for each in ranges), max(each.high for each in ranges))


def _value(step: Step, values: Sequence[Value], tensors: Tensors) -> Value:
    if step.block is not None:
        return _run(step.block, [values[each.place] for each in step.args], tensors)
    if step.op == "python.getitem":
        whole = values[step.args[0].place]
        return whole if isinstance(whole, Range) else whole[step.at]
    if step.of:
        return tensors(step.op, step.of)
    call = _Call(step, values)
    if step.operator is None:
        fine = step.op.removeprefix("python.") in NUMBERS and all(call.of(each).low >= 0 for each in step.args)
        return AT_LEAST_0 if fine else ANY
    found = call.range()
    kind = step.operator.result
    return [found, *[ANY] * (len(kind) - 1)] if isinstance(kind, tuple) else found


class _Call:
    """One operator, and the ranges of its arguments."""

    def __init__(self, step: Step, values: Sequence[Value]) -> None:
        self.values = values
        self.name, self.overload, self.given = "", "", dict[str, Any]()
        if step.operator is not None:
            self.name, _, self.overload = step.operator.name.partition(".")
            names = (each.name for each in step.operator.positional)
            self.given = {
                **{each.name: each.default for each in step.operator.arguments},
                **dict(zip(names, step.args, strict=False)),
                **step.kwargs,
            }

    def of(self, argument: Any) -> Range:
        if isinstance(argument, Reference):
            return _one(self.values[argument.place])
        if isinstance(argument, list):
            return _union([self.of(each) for each in argument]) if argument else ANY
        known = isinstance(argument, int | float) and not math.isnan(argument)
        return Range(float(argument), float(argument)) if known else ANY

    def range(self) -> Range:
        """Of the result; of several results, of the first."""
        name = self.name
        taken = list(self.given.values())
        if name in FIXED:
            return FIXED[name]
        if name in WEIGHTED or name in LIKELIHOODS or name == "softplus":
            return AT_LEAST_0 if self._loss() else ANY
        first, second = (self.of(each) for each in [*taken, None, None][:2])
        if name in ("max", "min") and self.overload == "other":
            name = f"{name}imum"
        if name in SAME:
            return ANY if self.name == "to" and self.overload == "other" else self._cast(first)
        if name in SIGNED:
            return _signed(first)
        if name in ("cat", "concat", "stack"):
            return first
        if name in SQUARES and isinstance(taken[0], Reference) and taken[0] == taken[1]:
            return AT_LEAST_0
        if name in PRODUCTS | SUMS_OF_PRODUCTS:
            product = _product(first, second)
            return product if name in PRODUCTS else _signed(product)
        if name in ("add", "sub", "subtract", "rsub"):
            scale = self.of(self.given.get("alpha", 1))
            a, b = (second, _product(scale, first)) if name == "rsub" else (first, _product(scale, second))
            return _sum(a, b if name == "add" else _negative(b))
        return _others(name, first, second, self)

    def _loss(self) -> bool:
        """Whether a loss is at least 0, as its weights are."""
        if self.name == "softplus":
            return self.of(self.given["beta"]).low > 0
        if self.name in LIKELIHOODS and self.of(self.given["self"]).high > 0:
            return False
        smoothing = self.of(self.given.get("label_smoothing", 0.0))
        weights = [self.given[each] for each in WEIGHTED.get(self.name, ("weight",))]
        return (
            all(each is None or self.of(each).low >= 0 for each in weights)
            and 0 <= smoothing.low <= smoothing.high <= 1
        )

    def _cast(self, first: Range) -> Range:
        """The same elements; in a dtype of whole numbers they may be others, unless they lie in [0, 1]."""
        if self.name == "view" and self.overload == "dtype":
            return ANY  # the same bits
        dtypes = [each.name for each in self.given.values() if isinstance(each, Dtype)]
        whole = [each for each in dtypes if not each.startswith(("float", "bfloat"))]
        return first if not whole or (first.low >= 0 and first.high <= 1) else ANY


def _others(name: str, first: Range, second: Range, call: _Call) -> Range:
    given = call.given
    if name == "neg":
        return _negative(first)
    if name == "logsumexp":
        return Range(first.low)
    if name == "where" and "self" in given and "other" in given:
        return _union([call.of(given["self"]), call.of(given["other"])])
    if name == "masked_fill":
        return _union([first, call.of(given["value"])])
    if name in ("full", "full_like"):
        return call.of(given["fill_value"])
    if name == "scalar_tensor":
        return first
    if name in ("div", "divide", "true_divide"):
        return _product(first, _inverse(second)) if given.get("rounding_mode") is None else ANY
    if name == "reciprocal":
        return _inverse(first)
    if name == "pow":
        even = second.low == second.high and second.low % 2 == 0
        return AT_LEAST_0 if even or first.low >= 0 else ANY
    if name == "log":
        return AT_LEAST_0 if first.low >= 1 else AT_MOST_0 if first.low >= 0 and first.high <= 1 else ANY
    if name == "maximum":
        return Range(max(first.low, second.low), max(first.high, second.high))
    if name == "minimum":
        return Range(min(first.low, second.low), min(first.high, second.high))
    if name in ("clamp", "clip", "clamp_min"):
        low, high = (given.get(end) for end in ("min", "max"))
        above = first if low is None else Range(max(first.low, call.of(low).low), max(first.high, call.of(low).high))
        most = Range(math.inf, math.inf) if high is None else call.of(high)
        return Range(min(above.low, most.low), min(above.high, most.high))
    return ANY


def _signed(found: Range) -> Range:
    """Of what sums elements of such a range, or takes some away: its sign."""
    return AT_LEAST_0 if found.low >= 0 else AT_MOST_0 if found.high <= 0 else ANY


def _negative(a: Range) -> Range:
    return Range(-a.high, -a.low)


def _product(a: Range, b: Range) -> Range:
    """0 times an end that is infinite is 0: the elements themselves are finite."""
    ends = [0.0 if 0.0 in (x, y) else x * y for x in a for y in b]
    return Range(min(ends), max(ends))


def _inverse(a: Range) -> Range:
    """That of 0 is infinite, with the sign of the others."""
    return AT_LEAST_0 if a.low >= 0 else AT_MOST_0 if a.high < 0 else ANY


def _sum(a: Range, b: Range) -> Range:
    return Range(a.low + b.low, a.high + b.high)
