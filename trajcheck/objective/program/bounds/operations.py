"""How many operations a call takes at most, told from the shapes of its arguments: small results may take long to make.

Counted in multiply-adds of a matrix product, of which an element of any result, with its first and second derivative,
takes ELEMENT: torch adds and multiplies matrices at some 10^9 to 10^10 a second of a processor, and takes 10 to 100 ns
for an element of sin or sum with derivatives. Operators whose elements take longer stand in DEAR, as measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from trajcheck.objective.program.bounds.elements import RECURRENT, allowed, guarded
from trajcheck.objective.program.bounds.of_layers import brought_to
from trajcheck.objective.program.bounds.shapes import Arguments, listed, shapes_of, together
from trajcheck.objective.program.schema import Operator

#: What an element of a result takes, and what a call does, however small.
ELEMENT, CALL = 64, 4096

#: How often each weight of a model may meet each number of the batch: in convolutions every weight meets every place of
#: an image, in a transformer every token; images that are made from little, and layers that are used again, take more.
REUSE = 32

#: Times ELEMENT: polygamma in the second derivative, sorting, products and logarithms of sums along an axis.
DEAR = {
    **dict.fromkeys(("digamma", "special_digamma", "polygamma", "lgamma", "special_gammaln", "logcumsumexp"), 16),
    **dict.fromkeys(("isin", "prod", "sort", "argsort", "topk", "median", "nanmedian", "kthvalue"), 4),
    **dict.fromkeys(("i0", "remainder", "fmod"), 4),
}

#: A decomposition of an n x n matrix with its derivatives takes so many n^3.
DECOMPOSED = 64


def allowed_operations(held: int, batch: int, widest: int) -> int:
    """The operations that one evaluation may take; the arguments are those of `allowed`."""
    return ELEMENT * allowed(held, batch, widest) + REUSE * held * batch


def operations(operator: Operator, arguments: Arguments, elements: int) -> int:
    """What a call takes at most, `elements` being what it makes. Raises Misfit as `made` does."""
    base = operator.name.partition(".")[0].rstrip("_")
    work = WORK.get(base) or WORK.get(operator.rule)
    more = guarded(work, arguments) if work else 0
    return CALL + ELEMENT * DEAR.get(base, 1) * elements + more


def _product(a: Arguments) -> int:
    one, other = ([*value.shape] for value in [value for value in a.values() if hasattr(value, "numel")][-2:])
    rows = one[-2] if len(one) > 1 else 1
    columns = other[-1] if len(other) > 1 else 1
    return math.prod(together([one[:-2], other[:-2]])) * rows * columns * (one[-1] if one else 1)


def _inner(a: Arguments) -> int:
    one, other = a["self"].shape, a["other"].shape
    return math.prod(one) * math.prod(other[:-1])


def _linear(a: Arguments) -> int:
    return math.prod(a["input"].shape[:-1]) * int(a["weight"].numel())


def _bilinear(a: Arguments) -> int:
    return math.prod(a["input1"].shape[:-1]) * int(a["weight"].numel())


def _einsum(a: Arguments) -> int:
    """As many as there are products in the sum, whatever the letters are."""
    terms = a["equation"].partition("->")[0].split(",")
    sizes: dict[str, int] = {}
    dots = 1
    for term, tensor in zip(terms, a["tensors"], strict=True):
        before, _, after = term.partition("...")
        shape = [*tensor.shape]
        for label, size in [*zip(before, shape, strict=False), *zip(after[::-1], shape[::-1], strict=False)]:
            sizes[label] = max(size, sizes.get(label, 1))
        if "..." in term:
            dots = max(dots, math.prod(shape[len(before) : len(shape) - len(after)]))
    return math.prod(sizes.values()) * dots


def _tensordot(a: Arguments) -> int:
    one, other = a["self"].shape, a["other"].shape
    summed = {dim % len(other) for dim in a["dims_other"]}
    return math.prod(one) * math.prod(size for i, size in enumerate(other) if i not in summed)


def _distances(a: Arguments) -> int:
    one, other = a["x1"].shape, a["x2"].shape
    return ELEMENT * math.prod(together([one[:-2], other[:-2]])) * one[-2] * other[-2] * one[-1]


def _decomposed(a: Arguments) -> int:
    return DECOMPOSED * sum(math.prod(shape[:-2]) * max(shape[-2:]) ** 3 for shape in shapes_of(a) if len(shape) > 1)


def _covariance(a: Arguments) -> int:
    shape = a["self"].shape
    return int(shape[0]) * math.prod(shape)


def _kernel(a: Arguments) -> int:
    """Of every place of the result, all weights that lead there."""
    weight, shape = a["weight"].shape, a["input"].shape
    count = len(weight) - 2
    stride, dilation = listed(a.get("stride", 1), count), listed(a.get("dilation", 1), count)
    padding = a.get("padding", 0)
    if isinstance(padding, str):
        padding = [d * k for d, k in zip(dilation, weight[2:], strict=True)]
    sizes = zip(shape[-count:], stride, listed(padding, count), strict=True)
    places = math.prod((size + 2 * more) // step + 1 for size, step, more in sizes)
    return math.prod(shape[: -count - 1]) * places * math.prod(weight)


def _transposed(a: Arguments) -> int:
    weight, shape = a["weight"].shape, a["input"].shape
    return math.prod(shape[: -len(weight) + 1]) * math.prod(shape[2 - len(weight) :]) * math.prod(weight)


def _pooled(a: Arguments) -> int:
    """Each place of the image is in kernel / stride windows along an axis, as a rule; at most in the whole kernel."""
    shape, kernel = a["self"].shape, a["kernel_size"]
    count = len(kernel) if isinstance(kernel, list) and len(kernel) > 1 else len(shape) - 2
    padding = listed(a.get("padding", 0), count)
    sizes = zip(shape[-count:], padding, strict=True)
    stride = listed(a.get("stride") or kernel, count)
    places = math.prod((size + 2 * more) // step + 1 for (size, more), step in zip(sizes, stride, strict=True))
    return ELEMENT // 8 * math.prod(shape[:-count]) * places * math.prod(listed(kernel, count))


def _adaptive(a: Arguments) -> int:
    """Windows overlap by one place at most."""
    sizes = a["output_size"]
    shape = a["self"].shape
    pairs = zip(shape[-len(sizes) :], sizes, strict=True)
    return ELEMENT // 8 * math.prod(shape[: -len(sizes)]) * math.prod(size + 2 * to for size, to in pairs)


def _resized(a: Arguments) -> int:
    """Sixteen places of the image for each of the result."""
    shape = next(value for value in a.values() if hasattr(value, "numel")).shape
    return 16 * ELEMENT * math.prod(shape[:2]) * math.prod(brought_to(a, shape))


def _antialiased(a: Arguments) -> int:
    """A place is made of all within reach: along an axis some 4 (in + out)."""
    shape = next(value for value in a.values() if hasattr(value, "numel")).shape
    high, wide = brought_to(a, shape)
    return ELEMENT * math.prod(shape[:2]) * 4 * (shape[2] * (shape[3] + wide) + wide * (shape[2] + high))


def _recurrent(a: Arguments) -> int:
    return math.prod(a["input"].shape[:-1]) * sum(int(each.numel()) for each in a["params"])


def _cell(a: Arguments) -> int:
    return math.prod(a["input"].shape[:-1]) * int(a["w_ih"].numel() + a["w_hh"].numel())


def _attention(a: Arguments) -> int:
    query, key, value = (a[name].shape for name in ("query", "key", "value"))
    batch = math.prod(together([query[:-2], key[:-2], value[:-2]]))
    return batch * query[-2] * key[-2] * (query[-1] + value[-1])


def _cumulated(a: Arguments) -> int:
    """Of products along an axis: their second derivative goes through the axis for every place of it."""
    shape = a["self"].shape
    length = int(shape[a["dim"]]) if shape else 1
    return length * (8 * CALL + ELEMENT // 4 * math.prod(shape))


#: By the operator's name, or the rule of its elements.
WORK: dict[str, Callable[[Arguments], int]] = {
    "cumprod": _cumulated,
    "matrix_exp": lambda a: 16 * _decomposed(a),
    "linalg_matrix_exp": lambda a: 16 * _decomposed(a),
    "product": _product,
    "inner": _inner,
    "linear": _linear,
    "bilinear": _bilinear,
    "einsum": _einsum,
    "tensordot": _tensordot,
    "distances": _distances,
    "four": _decomposed,
    "decomposed": _decomposed,
    "covariance": _covariance,
    "convolved": _kernel,
    "transposed": _transposed,
    "pooled": _pooled,
    "adaptive": _adaptive,
    "resized": _resized,
    "antialiased": _antialiased,
    "sampled": lambda a: 16 * ELEMENT * math.prod(a["input"].shape[:2]) * math.prod(a["grid"].shape[1:-1]),
    **dict.fromkeys(RECURRENT, _recurrent),
    **{f"{name}_cell": _cell for name in RECURRENT},
    "attention": _attention,
}
