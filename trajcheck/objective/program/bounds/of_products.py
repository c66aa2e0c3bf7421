"""Elements that products of matrices make, decompositions, and Fourier transforms."""

from __future__ import annotations

import math

from trajcheck.objective.program.bounds.shapes import Arguments, broadcast, inputs, listed, shapes_of, together


def product(a: Arguments) -> int:
    tensors = [value for value in a.values() if hasattr(value, "numel")]
    one, other = (list(each.shape) for each in tensors[-2:])
    inner = one[-1] if one else 1
    rows = one[-2] if len(one) > 1 else 1
    columns = other[-1] if len(other) > 1 else 1
    batch = math.prod(together([one[:-2], other[:-2]]))
    copies = inner * (rows + columns) if len(other) > 2 else 0
    return batch * (rows * columns + copies) + sum(each.numel() for each in tensors[:-2])


def inner(a: Arguments) -> int:
    one, other = a["self"].shape, a["other"].shape
    return math.prod(one[:-1]) * math.prod(other[:-1]) if one and other else broadcast(a)


def linear(a: Arguments) -> int:
    weight, shape = a["weight"].shape, a["input"].shape
    return math.prod(shape[:-1]) * (weight[0] if len(weight) > 1 else 1) + math.prod(shape)


def bilinear(a: Arguments) -> int:
    return math.prod(a["input1"].shape[:-1]) * int(a["weight"].numel())


def outer(a: Arguments) -> int:
    return math.prod(map(math.prod, shapes_of(a)))


def einsum(a: Arguments) -> int:
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
    return inputs(a) + math.prod(sizes[label] for label in result if label in sizes) * math.prod(dots)


def tensordot(a: Arguments) -> int:
    one, other = a["self"].shape, a["other"].shape
    left = [size for i, size in enumerate(one) if i not in {dim % len(one) for dim in a["dims_self"]}]
    right = [size for i, size in enumerate(other) if i not in {dim % len(other) for dim in a["dims_other"]}]
    return inputs(a) + math.prod(left) * math.prod(right)


def distances(a: Arguments) -> int:
    one, other = a["x1"].shape, a["x2"].shape
    return math.prod(together([one[:-2], other[:-2]])) * one[-2] * other[-2] + inputs(a)


def four(a: Arguments) -> int:
    return 4 * (broadcast(a) + inputs(a))


def decomposed(a: Arguments) -> int:
    """With all columns of square factors, unless it is told to leave out those that nothing is multiplied with."""
    full = a.get("mode") == "complete" if "mode" in a else a.get("full_matrices", True)
    squares = [math.prod(shape[:-2]) * max(shape[-2:]) ** 2 for shape in shapes_of(a)]
    return four(a) + (4 * sum(squares) if full else 0)


def covariance(a: Arguments) -> int:
    shape = a["self"].shape
    return 4 * inputs(a) + (int(shape[0]) ** 2 if len(shape) > 1 else 1)


def fourier(a: Arguments) -> int:
    shape = list(a["self"].shape)
    sizes = a.get("s", a.get("n"))
    lengths = listed(sizes, 1) if sizes is not None else []
    dims = a.get("dim")
    axes = listed(dims, 1) if dims is not None else list(range(-len(lengths), 0))
    for axis, length in zip(axes, lengths, strict=False):
        shape[axis] = max(shape[axis], length)
    return 8 * math.prod(shape)
