"""The products that nearly every row has, as the instructions of direct.py make them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from trajcheck.inner_products.direct import Direct, Replayed, ReplayedTowards, Step, Towards
from trajcheck.inner_products.program import NOWHERE, Key

#: A vector, or the difference of two.
Value = tuple[Key, ...]
Product = tuple[Value, Value]


_NEEDED = {"gradient", "x", "first"}

#: What only a replay has, beside the products of which a program is worth it; x and g it always has.
_REPLAYED = {"gradient", "x", "gradient_previous"}

#: Vectors of this kind are not stored: the gradient plus weight decay times the iterate of the same place.
REGULARISED = "regularised"

#: Of kernel.c: references in one Towards or ReplayedTowards.
MOST_TOWARDS = 2


@dataclass(frozen=True)
class RowRequest:
    """One row: its vectors by their names in catalogue.py, and those of each reference, each as the key of a vector;
    and the products asked for. Products whose vectors are not all there are left out."""

    vectors: Mapping[str, Key]
    references: Sequence[Mapping[str, Key]]
    step_products: Sequence[str]
    reference_products: Sequence[str]


@dataclass
class Part:
    """What one instruction takes and makes: its vectors and its products, in order."""

    kind: type[Direct]
    vectors: list[Value]
    products: list[Product]


def is_usual(request: RowRequest) -> bool:
    """Whether a row has the vectors of a Step. The first row has no iterate before it, the last one none after it: with
    x in its place a Step makes what the row has, and some products that nobody asks for."""
    known = request.vectors
    if not known.keys() >= _NEEDED or not request.references:
        return False
    following = known.get("next", known["x"])
    return known.get("skip", following) == following and all("reference" in each for each in request.references)


def usual_parts(request: RowRequest) -> list[Part]:
    """The instructions for what is usual of a row; none where nothing is."""
    if is_usual(request):
        return _of_a_step(request)
    return _of_a_replay(request) if request.vectors.keys() >= _REPLAYED else []


def _of_a_step(request: RowRequest) -> list[Part]:
    """A Step, and Towards for further references."""
    known = request.vectors
    gradient, x, first = ((known[name],) for name in ("gradient", "x", "first"))
    following, before = (known.get("next", known["x"]),), (known.get("previous", known["x"]),)
    references: list[Value] = [(each["reference"],) for each in request.references]
    step, to_next, from_first = x + before, following + x, x + first

    def towards(reference: Value) -> list[Product]:
        error, next_error = x + reference, following + reference
        return [(next_error, next_error), (gradient, next_error), (gradient, error), (to_next, error)]

    next_error_sq, gradient_next_error, gradient_error, to_next_error = towards(references[0])
    products: list[Product] = [
        (following, following),
        (gradient, gradient),
        next_error_sq,
        gradient_next_error,
        (gradient, x),
        (to_next, to_next),
        (gradient, to_next),
        gradient_error,
        to_next_error,
        (gradient, step),
        (to_next, step),
        (from_first, from_first),
    ]
    own = Part(Step, [gradient, following, x, before, first, references[0]], products)
    return [own, *_several(Towards, [gradient, following, x], references[1:], towards)]


def _of_a_replay(request: RowRequest) -> list[Part]:
    """A Replayed, and ReplayedTowards for all references. In place of what a row lacks stands what it has: x, or the
    gradient at x."""
    known = request.vectors
    gradient, x = (known["gradient"],), (known["x"],)
    following, before, skip = ((known.get(name, known["x"]),) for name in ("next", "previous", "skip"))
    gradient_before, recorded = ((known.get(name, gradient[0]),) for name in ("gradient_previous", "recorded"))
    # Where a row has none of its own nobody asks for its products.
    regularised = (known.get(REGULARISED, (REGULARISED, NOWHERE)),)
    step, to_next = x + before, following + x
    change, disagreement = gradient + gradient_before, gradient + recorded

    def towards(reference: Value) -> list[Product]:
        error = x + reference
        return [(gradient, error), (regularised, error), (gradient, skip + reference)]

    products: list[Product] = [
        (gradient, gradient),
        (gradient, x),
        (gradient, to_next),
        (regularised, regularised),
        (gradient, step),
        (gradient_before, step),
        (change, change),
        (recorded, recorded),
        (disagreement, disagreement),
    ]
    references: list[Value] = [(each["reference"],) for each in request.references if "reference" in each]
    own = Part(Replayed, [gradient, gradient_before, x, before, following, recorded], products)
    return [own, *_several(ReplayedTowards, [gradient, x, skip], references, towards)]


def _several(
    kind: type[Direct], vectors: list[Value], references: Sequence[Value], towards: Callable[[Value], list[Product]]
) -> list[Part]:
    """References at most MOST_TOWARDS at a time."""
    groups = [references[start : start + MOST_TOWARDS] for start in range(0, len(references), MOST_TOWARDS)]
    return [
        Part(kind, [*vectors, *group], [product for reference in group for product in towards(reference)])
        for group in groups
    ]
