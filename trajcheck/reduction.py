"""Inner products on the replay's device: the same scalar rows as the numpy pass, from whole vectors as dictionaries.

Differences, products and sums are in float64, slice by slice, so that no float64 copy of a model is ever made; the
numbers of a row are copied to the host once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from trajcheck.products import inner_products

#: Elements per slice: large enough to occupy a device, 8 MB a vector in float64.
SLICE = 1 << 20

Vector = Mapping[str, Tensor]


Products = tuple[dict[str, Tensor], list[dict[str, Tensor]]]


def reduce_row(
    names: Sequence[str],
    vectors: Mapping[str, Vector],
    references: Sequence[Mapping[str, Vector]],
    step_products: Collection[str],
    reference_products: Collection[str],
) -> dict[str, Products]:
    """The products of one row (products.py), of each of the tensors `names` that is not empty: for the step and for
    each reference, as float64 scalars that stay on the device."""
    rows: dict[str, Products] = {}
    for name in names:
        if not next(iter(vectors.values()))[name].numel():
            continue
        row: Products = ({}, [{} for _ in references])
        for part in _slices(next(iter(vectors.values()))[name].numel()):
            found, each = inner_products(
                {key: vector[name].reshape(-1)[part].double() for key, vector in vectors.items()},
                [
                    {key: vector[name].reshape(-1)[part].double() for key, vector in reference.items()}
                    for reference in references
                ],
                step_products,
                reference_products,
                torch.sub,
                torch.dot,
            )
            add(row, (found, each))
        rows[name] = row
    return rows


def total(rows: Mapping[str, Products]) -> Products:
    """The sum over the tensors."""
    result: Products = ({}, [{} for _ in next(iter(rows.values()))[1]])
    for row in rows.values():
        add(result, row)
    return result


def add(target: Products, products: Products) -> None:
    """Add products into others, term by term."""
    for known, found in zip([target[0], *target[1]], [products[0], *products[1]], strict=True):
        for product, value in found.items():
            known[product] = known[product] + value if product in known else value


def _slices(numel: int) -> Iterator[slice]:
    return (slice(start, min(start + SLICE, numel)) for start in range(0, numel, SLICE))


def to_host(rows: Sequence[Mapping[str, Tensor]]) -> list[dict[str, float]]:
    """Float64 scalars from the device, in one copy."""
    flat = [value for row in rows for value in row.values()]
    numbers = iter(torch.stack(flat).tolist() if flat else [])
    return [{name: next(numbers) for name in row} for row in rows]
