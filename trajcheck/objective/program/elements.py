"""How many elements a call makes at most, its own scratch memory included, told from the shapes of its arguments.

A rule per kind of operator, by the word that stands before the schema in operators/. It gets the call's arguments by
name, tensors as they are, and looks at shapes alone: it is asked before the call, so that a program that asks for more
than `allowed` is stopped before the memory is. Views make none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from trajcheck.objective.program.arguments import Misfit

Arguments = Mapping[str, Any]
Shape = Sequence[int]

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
    try:
        return int(RULES[rule](arguments))
    except (IndexError, KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        if isinstance(error, Misfit):
            raise
        raise Misfit(f"its arguments do not fit together ({type(error).__name__}: {error})") from error


def _shapes(arguments: Arguments) -> list[Shape]:
    """Of all tensors; an axis of length 0 counts as one of length 1, for what is left when it is summed over."""
    found: list[Shape] = []
    for value in arguments.values():
        for each in value if isinstance(value, list | tuple) else (value,):
            if hasattr(each, "numel"):
                found.append([max(1, size) for size in each.shape])
    return found


def together(shapes: Iterable[Shape]) -> list[int]:
    """The shape that those of several tensors are broadcast to, or more: the longest of each axis, from the right."""
    longest: list[int] = []
    for shape in shapes:
        reverse = list(shape)[::-1]
        longest += [0] * (len(reverse) - len(longest))
        for axis, size in enumerate(reverse):
            longest[axis] = max(longest[axis], size)
    return longest[::-1]


def _listed(value: Any, count: int) -> list[Any]:
    """One number for each axis, where one may stand for all."""
    values = list(value) if isinstance(value, list | tuple) else [value]
    return values * count if len(values) == 1 else values


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


def _largest(a: Arguments) -> int:
    return max(map(math.prod, _shapes(a)), default=1)


def _broadcast(a: Arguments) -> int:
    return math.prod(together(_shapes(a)))


def _inputs(a: Arguments) -> int:
    """Twice, for the indices that sorting and the largest give beside the values."""
    return 2 * sum(map(math.prod, _shapes(a)))


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
    return math.prod(together(taken)) * math.prod(rest) * math.prod(shape[axis:]) + _largest(a)


def _repeated(a: Arguments) -> int:
    times = a.get("repeats", a.get("dims"))
    return int(a["self"].numel()) * math.prod(max(0, each) for each in _listed(times, 1))


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
        return math.prod(max(0, each) for each in _listed(a["size"], 1))
    if "row" in a:
        return int(2 * a["row"] * a["col"])
    if "steps" in a:
        return int(a["steps"])
    if "end" in a:
        length = (a["end"] - a.get("start", 0)) / a.get("step", 1)
        return max(0, math.ceil(length)) + 1
    if "n" in a:
        return int(a["n"])
    return _broadcast(a)


def _eye(a: Arguments) -> int:
    return int(a["n"] * a.get("m", a["n"]))


def _product(a: Arguments) -> int:
    tensors = [value for value in a.values() if hasattr(value, "numel")]
    one, other = (list(each.shape) for each in tensors[-2:])
    inner = one[-1] if one else 1
    rows = one[-2] if len(one) > 1 else 1
    columns = other[-1] if len(other) > 1 else 1
    batch = math.prod(together([one[:-2], other[:-2]]))
    copies = inner * (rows + columns) if len(other) > 2 else 0
    return batch * (rows * columns + copies) + sum(each.numel() for each in tensors[:-2])


def _inner(a: Arguments) -> int:
    one, other = a["self"].shape, a["other"].shape
    return math.prod(one[:-1]) * math.prod(other[:-1]) if one and other else _broadcast(a)


def _filled(a: Arguments) -> int:
    """Of kernels that divide by a number of elements without a look at it."""
    if not all(value.numel() for value in a.values() if hasattr(value, "numel")):
        raise Misfit("it is of a tensor with no elements")
    return _broadcast(a)


def _linear(a: Arguments) -> int:
    weight, shape = a["weight"].shape, a["input"].shape
    return math.prod(shape[:-1]) * (weight[0] if len(weight) > 1 else 1) + math.prod(shape)


def _bilinear(a: Arguments) -> int:
    return math.prod(a["input1"].shape[:-1]) * int(a["weight"].numel())


def _outer(a: Arguments) -> int:
    return math.prod(map(math.prod, _shapes(a)))


def _einsum(a: Arguments) -> int:
    terms, _, result = a["equation"].partition("->")
    sizes: dict[str, int] = {}
    dots = [1]
    for term, tensor in zip(terms.split(","), a["tensors"], strict=True):
        before, _, after = term.partition("...")
        shape = list(tensor.shape)
        named = [*zip(before, shape, strict=False), *zip(after[::-1], shape[::-1], strict=False)]
        for label, size in named:
            sizes[label] = max(size, sizes.get(label, 1))
        if "..." in term:
            dots.append(math.prod(shape[len(before) : len(shape) - len(after)]))
    if len(a["tensors"]) > 2:  # in whatever order they are contracted
        return math.prod(sizes.values()) * math.prod(dots)
    return _inputs(a) + math.prod(sizes[label] for label in result if label in sizes) * math.prod(dots)


def _tensordot(a: Arguments) -> int:
    one, other = a["self"].shape, a["other"].shape
    left = [size for i, size in enumerate(one) if i not in {dim % len(one) for dim in a["dims_self"]}]
    right = [size for i, size in enumerate(other) if i not in {dim % len(other) for dim in a["dims_other"]}]
    return _inputs(a) + math.prod(left) * math.prod(right)


def _distances(a: Arguments) -> int:
    one, other = a["x1"].shape, a["x2"].shape
    return math.prod(together([one[:-2], other[:-2]])) * one[-2] * other[-2] + _inputs(a)


def _four(a: Arguments) -> int:
    return 4 * (_broadcast(a) + _inputs(a))


def _decomposed(a: Arguments) -> int:
    """With all columns of square factors, unless it is told to leave out those that nothing is multiplied with."""
    full = a.get("mode") == "complete" if "mode" in a else a.get("full_matrices", True)
    squares = [math.prod(shape[:-2]) * max(shape[-2:]) ** 2 for shape in _shapes(a)]
    return _four(a) + (4 * sum(squares) if full else 0)


def _covariance(a: Arguments) -> int:
    shape = a["self"].shape
    return 4 * _inputs(a) + (int(shape[0]) ** 2 if len(shape) > 1 else 1)


def _fourier(a: Arguments) -> int:
    shape = list(a["self"].shape)
    sizes = a.get("s", a.get("n"))
    lengths = _listed(sizes, 1) if sizes is not None else []
    dims = a.get("dim")
    axes = _listed(dims, 1) if dims is not None else list(range(-len(lengths), 0))
    for axis, length in zip(axes, lengths, strict=False):
        shape[axis] = max(shape[axis], length)
    return 8 * math.prod(shape)


def _length(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    return max(0, (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1)


def _convolved(a: Arguments) -> int:
    weight, shape = list(a["weight"].shape), list(a["input"].shape)
    count = len(weight) - 2
    stride, dilation = _listed(a.get("stride", 1), count), _listed(a.get("dilation", 1), count)
    padding = a.get("padding", 0)
    if isinstance(padding, str):
        padding = [d * (k - 1) for d, k in zip(dilation, weight[2:], strict=True)] if padding == "same" else 0
    window = zip(shape[-count:], weight[2:], stride, _listed(padding, count), dilation, strict=True)
    places = math.prod(shape[: -count - 1]) * math.prod(_length(*each) for each in window)
    patches = shape[-count - 1] * math.prod(weight[2:])  # as kernels that unfold the input lay them out
    return places * (weight[0] + patches)


def _transposed(a: Arguments) -> int:
    weight, shape = list(a["weight"].shape), list(a["input"].shape)
    count = len(weight) - 2
    stride, dilation = _listed(a.get("stride", 1), count), _listed(a.get("dilation", 1), count)
    more = _listed(a.get("output_padding", 0), count)
    sizes = zip(shape[-count:], weight[2:], stride, dilation, more, strict=True)
    places = math.prod((size - 1) * s + d * (k - 1) + o + 1 for size, k, s, d, o in sizes)
    rows, channels = math.prod(shape[: -count - 1]), weight[1] * a.get("groups", 1)
    return rows * channels * (places + math.prod(weight[2:]) * math.prod(shape[-count:]))


def _pooled(a: Arguments) -> int:
    shape, kernel = list(a["self"].shape), a["kernel_size"]
    count = len(kernel) if isinstance(kernel, list) and len(kernel) > 1 else len(shape) - 2
    kernel = _listed(kernel, count)
    stride = _listed(a.get("stride") or kernel, count)
    padding, dilation = _listed(a.get("padding", 0), count), _listed(a.get("dilation", 1), count)
    window = zip(shape[-count:], kernel, stride, padding, dilation, strict=True)
    return 2 * math.prod(shape[:-count]) * math.prod(_length(*each) + 1 for each in window)


def _adaptive(a: Arguments) -> int:
    sizes = a["output_size"]
    return 2 * math.prod(a["self"].shape[: -len(sizes)]) * math.prod(sizes)


def _resized(a: Arguments) -> int:
    shape = next(value for value in a.values() if hasattr(value, "numel")).shape
    return math.prod(shape[:2]) * math.prod(_sizes(a, shape))


def _sizes(a: Arguments, shape: Shape) -> list[int]:
    """To which each axis of an image is brought. Raises Misfit for a scale that does not lead there: with such a one
    kernels read beyond the image."""
    sizes = a.get("output_size")
    if sizes is None:
        return [math.ceil(size * scale) for size, scale in zip(shape[2:], a["scale_factors"], strict=True)]
    names = ("scales",) if len(sizes) == 1 else ("scales_d", "scales_h", "scales_w")[-len(sizes) :]
    for size, to, scale in zip(shape[2:], sizes, [a.get(name) for name in names], strict=True):
        if scale is not None and not abs(size * scale - to) <= 1:
            raise Misfit(f"it scales {size} by {scale}, and is to give {to}")
    return list(sizes)


def _antialiased(a: Arguments) -> int:
    """One axis after the other, each with weights for all that a place is made of."""
    shape = next(value for value in a.values() if hasattr(value, "numel")).shape
    sizes = _sizes(a, shape)
    weights = sum(8 * max(size, to) + 16 * to for size, to in zip(shape[2:], sizes, strict=True))
    return math.prod(shape[:2]) * (math.prod(sizes) + shape[2] * sizes[1]) + weights


def _unfolded(a: Arguments) -> int:
    shape, kernel = list(a["self"].shape), _listed(a["kernel_size"], 2)
    window = zip(shape[-2:], kernel, *(_listed(a[name], 2) for name in ("stride", "padding", "dilation")), strict=True)
    return math.prod(shape[:-2]) * math.prod(kernel) * math.prod(_length(*each) for each in window)


def _recurrent(a: Arguments) -> int:
    params, layers = a["params"], a["num_layers"] * (2 if a["bidirectional"] else 1)
    per = 4 if a["has_biases"] else 2
    if len(params) not in (layers * per, layers * (per + 1)):
        raise Misfit(f"it has {len(params)} weights for {layers} layers")
    steps = math.prod(a["input"].shape[:-1])
    return 2 * steps * sum(each.shape[0] for each in params) + a["input"].numel()


def _cell(a: Arguments) -> int:
    return 4 * math.prod(a["input"].shape[:-1]) * int(a["w_ih"].shape[0])


def _attention(a: Arguments) -> int:
    query, key, value = (list(a[name].shape) for name in ("query", "key", "value"))
    batch = math.prod(together([query[:-2], key[:-2]]))
    return batch * (2 * query[-2] * key[-2] + query[-2] * value[-1] + key[-2] * (key[-1] + value[-1]))


RULES: dict[str, Callable[[Arguments], int]] = {
    "views": lambda a: 0,
    "pieces": _pieces,
    "largest": _largest,
    "broadcast": _broadcast,
    "inputs": _inputs,
    "reshaped": _largest,
    "filled": _filled,
    "group_norm": lambda a: _largest(a) + 2 * a["N"] * a["group"],
    "selected": _selected,
    "gathered": _broadcast,
    "indexed": _indexed,
    "nonzero": lambda a: a["self"].numel() * max(1, a["self"].ndim),
    "repeated": _repeated,
    "diagonals": _diagonals,
    "diagonal": lambda a: _diagonals(a) if a["self"].ndim == 1 else _largest(a),
    "one_hot": lambda a: a["self"].numel() * a["num_classes"],
    "padded": _padded,
    "made": _made,
    "eye": _eye,
    "product": _product,
    "inner": _inner,
    "linear": _linear,
    "bilinear": _bilinear,
    "outer": _outer,
    "einsum": _einsum,
    "tensordot": _tensordot,
    "distances": _distances,
    "four": _four,
    "decomposed": _decomposed,
    "covariance": _covariance,
    "fft": _fourier,
    "convolved": _convolved,
    "transposed": _transposed,
    "pooled": _pooled,
    "adaptive": _adaptive,
    "resized": _resized,
    "antialiased": _antialiased,
    "unfolded": _unfolded,
    "sampled": lambda a: math.prod(a["input"].shape[:2]) * math.prod(a["grid"].shape[1:-1]),
    "affine": lambda a: 4 * math.prod(max(1, each) for each in a["size"]),
    "embedded": lambda a: a["indices"].numel() * math.prod(a["weight"].shape[1:]),
    "recurrent": _recurrent,
    "cell": _cell,
    "attention": _attention,
}
