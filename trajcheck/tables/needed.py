"""What columns need, told by their declarations: inner products, and evaluations of the objective."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cached_property

from trajcheck.inner_products.catalogue import REFERENCE_PRODUCTS, STEP_PRODUCTS, vectors_needed
from trajcheck.metrics.catalogue import quantities
from trajcheck.metrics.families import CHOSEN, Family

# What is declared there is looked up here.
from trajcheck.tables import allocation_operands as allocation_operands
from trajcheck.tables import batch_operands as batch_operands
from trajcheck.tables import reference_operands as reference_operands
from trajcheck.tables import second_operands as second_operands
from trajcheck.tables import step_operands as step_operands
from trajcheck.tables import windows as windows
from trajcheck.tables.evaluated import with_own_error
from trajcheck.tables.operands import MADE


@dataclass(frozen=True)
class Needed:
    """Products by name, of the step and towards each reference, and evaluations beyond f and its gradient at x_t; each
    once, in a fixed order. `second`: (table, operand) that are needed in the second precision too."""

    step_products: dict[str, None] = field(default_factory=dict)
    reference_products: dict[str, None] = field(default_factory=dict)
    evaluations: dict[str, None] = field(default_factory=dict)
    second: dict[tuple[str, str], None] = field(default_factory=dict)

    @cached_property
    def in_second(self) -> Needed:
        """What is needed in the second precision."""
        found, seen = Needed(), set[tuple[str, str]]()
        for table, name in self.second:
            _add(table, [name], found, seen)
        return found


def needed(families: Iterable[Family], without: Collection[str] = ()) -> Needed:
    """What the columns of some families need. `without`: conditions (`Quantity.when`) that do not hold."""
    found = Needed()
    for family in families:
        for table in CHOSEN:
            chosen = [quantities(table)[name] for name in family.of(table)]
            operands = [name for one in chosen if not set(one.when) & set(without) for name in one.operands]
            _add(table, operands, found, set())
    return found


def needed_by(table: str, operands: Iterable[str], optional: Collection[str] = ()) -> Needed:
    """What some operands of a column need, but for those that it uses only where they are there."""
    found = Needed()
    _add(table, operands, found, {(table, name) for name in optional})
    return found


def _add(table: str, operands: Iterable[str], found: Needed, seen: set[tuple[str, str]]) -> None:
    for name in operands:
        _follow(table, name, found, seen)


def _follow(table: str, name: str, found: Needed, seen: set[tuple[str, str]]) -> None:
    """Add what one operand needs."""
    if (table, name) in seen:
        return
    seen.add((table, name))
    name = with_own_error(table, name) or name
    quantity, made = quantities(table).get(name), MADE.get((table, name))
    if quantity is not None and quantity.function is not None:
        names: Iterable[str] = quantity.operands
    elif made is not None:
        names = made.needs
        found.evaluations.update(dict.fromkeys(made.evaluations))
        found.second.update(dict.fromkeys((table, each) for each in made.second))
        for product in made.products:
            _place(product, found)
    else:
        names = ()
        if "gradient_previous" in vectors_needed([STEP_PRODUCTS.get(name) or REFERENCE_PRODUCTS[name]]):
            found.evaluations["gradient_previous"] = None
        _place(name, found)
    _add(table, names, found, seen)


def _place(product: str, found: Needed) -> None:
    where = found.step_products if product in STEP_PRODUCTS else found.reference_products
    where[product] = None
