"""How many elements a call makes at most, its own scratch memory included, told from the shapes of its arguments.

A rule per kind of operator, by the word that stands before the schema in operators/. It gets the call's arguments by
name, tensors as they are, and looks at shapes alone: it is asked before the call, so that a program that asks for more
than `allowed` is stopped before the memory is. Views make none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from trajcheck.objective.program.arguments import Misfit
from trajcheck.objective.program.bounds import of_layers, of_products, recurrent
from trajcheck.objective.program.bounds.shapes import Arguments, broadcast, inputs, largest, listed, together

#: Elements that any program may make: with float64 128 MB.
FLOOR = 1 << 24
#: How many times the elements of its parameters, and of an activation as wide as its widest axis.
FACTOR = 256
#: What a piece of a tensor costs, in elements, though it is a view.
PIECE = 256


def allowed(held: int, batch: int, widest: int) -> int:
    """The elements that one evaluation may make in all.

    `held` are the elements of parameters, buffers and constants, `batch` those of the batch, `widest` the longest axis
    of them all. Activations of honest models are of the order of batch x widest (a hidden layer, the logits of a
    vocabulary, the attention of a sequence), each layer making some; a penalty on the weights is of the order of held.
    """
    return FLOOR + FACTOR * (held + batch * widest)


def made(rule: str, arguments: Arguments) -> int:
    """The elements that a call makes at most. Raises Misfit for arguments of which that cannot be told."""
    return guarded(RULES[rule], arguments)


def guarded(count: Callable[[Arguments], int], arguments: Arguments) -> int:
    """What a rule counts; Misfit where arguments do not fit together."""
    try:
        return int(count(arguments))
    except (IndexError, KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        if isinstance(error, Misfit):
            raise
        raise Misfit(f"its arguments do not fit together ({type(error).__name__}: {error})") from error


def _widened(a: Arguments) -> int:
    """A view of more elements than the tensor has is made in whole by the derivative of what is taken of it."""
    if "tensors" in a:
        shapes = [each.shape for each in a["tensors"]]
        return len(shapes) * math.prod(together(shapes))
    shape = list(a["self"].shape)
    if "dimension" in a:
        axis = a["dimension"] if shape else 0
        windows = (shape[axis] if shape else 1) - a["size"]
        return math.prod(shape) // max(1, shape[axis] if shape else 1) * (windows // a["step"] + 1) * a["size"]
    wide = list(a["other"].shape) if "other" in a else a["size"]
    shape = [1] * (len(wide) - len(shape)) + shape
    count = math.prod(own if size == -1 else size for own, size in zip(shape, wide, strict=True))
    return count if count > a["self"].numel() else 0


def _pieces(a: Arguments) -> int:
    """Of a tensor that is cut: views, but each an object."""
    if "chunks" in a or "sections" in a:
        count = a.get("chunks") or a["sections"]
    elif isinstance(sizes := a.get("split_sizes", a.get("split_size")), list):
        count = len(sizes)
    else:
        size = a["self"].shape[a.get("dim", 0)]
        count = size if sizes is None else -(-size // sizes)
    return PIECE * int(count)


def _selected(a: Arguments) -> int:
    shape = list(a["self"].shape)
    if shape:
        shape[a["dim"]] = a["index"].numel()
    return math.prod(shape)


def _indexed(a: Arguments) -> int:
    shape, indices = list(a["self"].shape), a["indices"]
    taken, rest, axis = [], [], 0
    for index in indices:
        if index is None:
            rest.append(shape[axis])
            axis += 1
        elif str(index.dtype) in ("torch.bool", "torch.uint8"):
            taken.append((index.numel(),))
            axis += index.ndim
        else:
            taken.append(tuple(index.shape))
            axis += 1
    return math.prod(together(taken)) * math.prod(rest) * math.prod(shape[axis:]) + largest(a)


def _repeated(a: Arguments) -> int:
    times = a.get("repeats", a.get("dims"))
    return int(a["self"].numel()) * math.prod(max(0, each) for each in listed(times, 1))


def _diagonals(a: Arguments) -> int:
    """A square matrix for each row."""
    shape = [max(1, size) for size in a["self"].shape] or [1]
    return math.prod(shape[:-1]) * (shape[-1] + abs(a.get("offset", a.get("diagonal", 0)))) ** 2


def _padded(a: Arguments) -> int:
    shape = list(a["self"].shape)
    pads = a.get("pad", a.get("padding"))
    for axis, (left, right) in enumerate(zip(pads[::2], pads[1::2], strict=True)):
        shape[-1 - axis] = max(0, shape[-1 - axis] + left + right)
    return math.prod(shape)


def _made(a: Arguments) -> int:
    """Tensors out of nothing."""
    if "size" in a:
        return math.prod(max(0, each) for each in listed(a["size"], 1))
    if "row" in a:
        return int(2 * a["row"] * a["col"])
    if "steps" in a:
        return int(a["steps"])
    if "end" in a:
        length = (a["end"] - a.get("start", 0)) / a.get("step", 1)
        return max(0, math.ceil(length)) + 1
    if "n" in a:
        return int(a["n"])
    return broadcast(a)


def _eye(a: Arguments) -> int:
    return int(a["n"] * a.get("m", a["n"]))


def _filled(a: Arguments) -> int:
    """Of kernels that divide by a number of elements without a look at it."""
    if not all(value.numel() for value in a.values() if hasattr(value, "numel")):
        raise Misfit("it is of a tensor with no elements")
    return broadcast(a)


RECURRENT = {"lstm": recurrent.LSTM, "gru": recurrent.GRU, "rnn": recurrent.RNN}

RULES: dict[str, Callable[[Arguments], int]] = {
    "views": lambda a: 0,
    "viewed": lambda a: 0 if a["self"].is_contiguous() else largest(a),
    "widened": _widened,
    "pieces": _pieces,
    "largest": largest,
    "broadcast": broadcast,
    "inputs": inputs,
    "reshaped": largest,
    "filled": _filled,
    "group_norm": lambda a: largest(a) + 2 * a["N"] * a["group"],
    "selected": _selected,
    "gathered": broadcast,
    "indexed": _indexed,
    "nonzero": lambda a: a["self"].numel() * max(1, a["self"].ndim),
    "repeated": _repeated,
    "diagonals": _diagonals,
    "diagonal": lambda a: _diagonals(a) if a["self"].ndim == 1 else largest(a),
    "one_hot": lambda a: a["self"].numel() * a["num_classes"],
    "padded": _padded,
    "made": _made,
    "eye": _eye,
    "product": of_products.product,
    "inner": of_products.inner,
    "linear": of_products.linear,
    "bilinear": of_products.bilinear,
    "outer": of_products.outer,
    "einsum": of_products.einsum,
    "tensordot": of_products.tensordot,
    "distances": of_products.distances,
    "four": of_products.four,
    "decomposed": of_products.decomposed,
    "covariance": of_products.covariance,
    "fft": of_products.fourier,
    "convolved": of_layers.convolved,
    "transposed": of_layers.transposed,
    "pooled": of_layers.pooled,
    "adaptive": of_layers.adaptive,
    "resized": of_layers.resized,
    "antialiased": of_layers.antialiased,
    "unfolded": of_layers.unfolded,
    "sampled": lambda a: math.prod(a["input"].shape[:2]) * math.prod(a["grid"].shape[1:-1]),
    "affine": lambda a: 4 * math.prod(max(1, each) for each in a["size"]),
    "embedded": lambda a: a["indices"].numel() * math.prod(a["weight"].shape[1:]),
    **{name: partial(recurrent.recurrent, gates) for name, gates in RECURRENT.items()},
    **{f"{name}_cell": partial(recurrent.cell, gates) for name, gates in RECURRENT.items()},
    "attention": of_layers.attention,
}
