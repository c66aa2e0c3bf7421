"""The products that nearly every row has, as the instructions Step and Towards (program.py) make them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trajcheck.inner_products.program import Key

#: A vector, or the difference of two.
Value = tuple[Key, ...]
Product = tuple[Value, Value]


_NEEDED = {"gradient", "x", "first"}


@dataclass(frozen=True)
class RowRequest:
    """One row: its vectors by their names in catalogue.py, and those of each reference, each as the key of a vector;
    and the products asked for. Products whose vectors are not all there are left out."""

    vectors: Mapping[str, Key]
    references: Sequence[Mapping[str, Key]]
    step_products: Sequence[str]
    reference_products: Sequence[str]


@dataclass
class UsualProducts:
    """What a Step is made of, its products in order, and those of the Towards for each reference but the first."""

    next: Value
    gradient: Value
    x: Value
    before: Value
    first: Value
    references: list[Value]
    products: list[Product]
    towards: list[list[Product]]


def is_usual(request: RowRequest) -> bool:
    """Whether a row has the vectors of a Step. The first row has no iterate before it, the last one none after it: with
    x in its place a Step makes what the row has, and some products that nobody asks for."""
    known = request.vectors
    if not known.keys() >= _NEEDED or not request.references:
        return False
    following = known.get("next", known["x"])
    return known.get("skip", following) == following and all("reference" in each for each in request.references)


def usual_products(request: RowRequest) -> UsualProducts | None:
    """The Step for a row, where it is usual."""
    if not is_usual(request):
        return None
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
    further = [towards(reference) for reference in references[1:]]
    return UsualProducts(following, gradient, x, before, first, references, products, further)
