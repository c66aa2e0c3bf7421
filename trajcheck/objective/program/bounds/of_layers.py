"""Elements that layers make: convolution, pooling, resizing, attention."""

from __future__ import annotations

import math

from trajcheck.objective.program.arguments import Misfit
from trajcheck.objective.program.bounds.shapes import Arguments, Shape, listed, together, windows


def convolved(a: Arguments) -> int:
    weight, shape = list(a["weight"].shape), list(a["input"].shape)
    count = len(weight) - 2
    stride, dilation = listed(a.get("stride", 1), count), listed(a.get("dilation", 1), count)
    padding = a.get("padding", 0)
    if isinstance(padding, str):
        padding = [d * (k - 1) for d, k in zip(dilation, weight[2:], strict=True)] if padding == "same" else 0
    window = zip(shape[-count:], weight[2:], stride, listed(padding, count), dilation, strict=True)
    places = math.prod(shape[: -count - 1]) * math.prod(windows(*each) for each in window)
    patches = shape[-count - 1] * math.prod(weight[2:])  # as kernels that unfold the input lay them out
    return places * (weight[0] + patches)


def transposed(a: Arguments) -> int:
    weight, shape = list(a["weight"].shape), list(a["input"].shape)
    count = len(weight) - 2
    stride, dilation = listed(a.get("stride", 1), count), listed(a.get("dilation", 1), count)
    more = listed(a.get("output_padding", 0), count)
    sizes = zip(shape[-count:], weight[2:], stride, dilation, more, strict=True)
    places = math.prod((size - 1) * s + d * (k - 1) + o + 1 for size, k, s, d, o in sizes)
    rows, channels = math.prod(shape[: -count - 1]), weight[1] * a.get("groups", 1)
    return rows * channels * (places + math.prod(weight[2:]) * math.prod(shape[-count:]))


def pooled(a: Arguments) -> int:
    shape, kernel = list(a["self"].shape), a["kernel_size"]
    count = len(kernel) if isinstance(kernel, list) and len(kernel) > 1 else len(shape) - 2
    kernel = listed(kernel, count)
    stride = listed(a.get("stride") or kernel, count)
    padding, dilation = listed(a.get("padding", 0), count), listed(a.get("dilation", 1), count)
    window = zip(shape[-count:], kernel, stride, padding, dilation, strict=True)
    return 2 * math.prod(shape[:-count]) * math.prod(windows(*each) + 1 for each in window)


def adaptive(a: Arguments) -> int:
    sizes = a["output_size"]
    return 2 * math.prod(a["self"].shape[: -len(sizes)]) * math.prod(sizes)


def resized(a: Arguments) -> int:
    shape = next(value for value in a.values() if hasattr(value, "numel")).shape
    return math.prod(shape[:2]) * math.prod(brought_to(a, shape))


def brought_to(a: Arguments, shape: Shape) -> list[int]:
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


def antialiased(a: Arguments) -> int:
    """One axis after the other, each with weights for all that a place is made of."""
    shape = next(value for value in a.values() if hasattr(value, "numel")).shape
    sizes = brought_to(a, shape)
    weights = sum(8 * max(size, to) + 16 * to for size, to in zip(shape[2:], sizes, strict=True))
    return math.prod(shape[:2]) * (math.prod(sizes) + shape[2] * sizes[1]) + weights


def unfolded(a: Arguments) -> int:
    shape, kernel = list(a["self"].shape), listed(a["kernel_size"], 2)
    window = zip(shape[-2:], kernel, *(listed(a[name], 2) for name in ("stride", "padding", "dilation")), strict=True)
    return math.prod(shape[:-2]) * math.prod(kernel) * math.prod(windows(*each) for each in window)


def attention(a: Arguments) -> int:
    query, key, value = (list(a[name].shape) for name in ("query", "key", "value"))
    batch = math.prod(together([query[:-2], key[:-2]]))
    return batch * (2 * query[-2] * key[-2] + query[-2] * value[-1] + key[-2] * (key[-1] + value[-1]))
