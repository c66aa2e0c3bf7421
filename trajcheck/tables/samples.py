"""The tables on one kind of sample: of one sample a row, or means over probe batches with their standard errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from trajcheck.metrics.catalogue import quantities
from trajcheck.metrics.columns import Column, constant, lift
from trajcheck.metrics.families import Family
from trajcheck.metrics.formulas.choice_of_rows import convexity_ratio_rows_se
from trajcheck.metrics.formulas.control_variate import convexity_ratio_controlled_rows_se
from trajcheck.metrics.formulas.convexity import DEN_ROWS_BOUND
from trajcheck.metrics.quantity import REFERENCES, STEPS
from trajcheck.metrics.uncertainty import jackknife_error, mean_over_batches, standard_error
from trajcheck.runs.references import Reference
from trajcheck.tables.evaluated import SE
from trajcheck.tables.operands import Operands, columns_of
from trajcheck.tables.source import Source

ZERO = "it is 0"
#: Endings of bounds: their means over batches have no error worth a column.
BOUNDS = ("_resolution", "_bound")
#: Ending of the columns of errors for the choice of rows, which have none over batches.
ROWS_SE = "_rows_se"


@dataclass(frozen=True)
class Measured:
    """What was measured under one sample convention: a source for each of its samples of a row.

    Of all tensors together, or, `of_tensor`, of one or some of them.
    """

    sample: str
    sources: tuple[Source, ...]
    references: tuple[Reference, ...]
    of_tensor: bool = False

    @cached_property
    def own(self) -> dict[str, Column]:
        """The columns of steps.csv."""
        return self._joined(STEPS, [columns_of(Operands(each), of_tensor=self.of_tensor) for each in self.sources])

    @cached_property
    def towards(self) -> dict[str, dict[str, Column]]:
        """Those of references.csv, by the reference as it was given."""
        return {each.spec: self._joined(REFERENCES, self.each_towards[each.spec]) for each in self.references}

    @cached_property
    def each_towards(self) -> dict[str, list[dict[str, Column]]]:
        """Those of references.csv on each sample by itself."""
        return {
            reference.spec: [
                columns_of(Operands(source, number, reference), of_tensor=self.of_tensor) for source in self.sources
            ]
            for number, reference in enumerate(self.references)
        }

    def _joined(self, table: str, each: Sequence[Mapping[str, Column]]) -> dict[str, Column]:
        return over_batches(table, each) if self.sample == "probe" else dict(each[0])


def over_batches(table: str, each: Sequence[Mapping[str, Column]]) -> dict[str, Column]:
    """Columns of one table over probe batches: the mean, and beside it `<name>_se`.

    Quotients alone (`Quantity.of_means`) are those of the means of their operands, with a jackknife error or, where num
    has an error of its own, one that is at most the sum of both relative errors; undefined where |den| is not above its
    own standard error, and where they are on one sample, as it is not above its resolution.
    """
    result: dict[str, Column] = {}
    declared = quantities(table)
    for name in each[0]:
        one = declared.get(name, declared.get(name.removesuffix(SE)))
        if one is not None and (one.of_batches or not one.of_sample):
            result[name] = each[0][name]
            continue
        batches = [columns[name] for columns in each]
        result[name] = mean_over_batches(batches)
        if not name.endswith((*BOUNDS, ROWS_SE)):
            result[name + SE] = standard_error(batches)
    for name in [name for name in each[0] if name in declared]:
        if (one := declared[name]).of_means is not None and one.function is not None:
            num, den = one.of_means
            ratio = one.function(*(result[operand] for operand in one.operands)).finite()
            within = np.abs(result[den].values) <= result[den + SE].values
            result[name] = ratio = ratio.except_where(within, "the denominator is within its error")
            if declared[num].of_batches:
                spread = abs(ratio) * (_relative(num, result) + _relative(den, result))
            else:
                spread = jackknife_error([columns[num] for columns in each], [columns[den] for columns in each])
            result[name + SE] = lift(lambda _, error: error, ratio, spread)
            if name + ROWS_SE in result:
                result[name + ROWS_SE] = _rows_error(name, num, den, result)
    return result


def _relative(name: str, means: Mapping[str, Column]) -> Column:
    """The standard error of a column over its size."""
    return means[name + SE].over(abs(means[name]), ZERO)


def _rows_error(name: str, num: str, den: str, means: Mapping[str, Column]) -> Column:
    """Its error for the choice of rows: that of the mean terms."""
    if name == "convexity_ratio":
        terms, of_den, weights, bound = (
            means[each] for each in ("num_terms", "den_terms", "terms_weights", DEN_ROWS_BOUND)
        )
        missed = means.get("change_missed", constant(0.0, len(means[name])))
        return convexity_ratio_rows_se(means[name], means[den], terms, of_den, weights, bound, missed)
    return convexity_ratio_controlled_rows_se(means[name], means[num + ROWS_SE], means[den])


def chosen(
    table: str, columns: Mapping[str, Column], families: Mapping[str, Family], *beside: str
) -> dict[str, Column]:
    """Those of the columns of a table that some families give, those that every report has, and some `beside`."""
    wanted = set(beside) | {name for family in families.values() for name in family.of(table)}
    wanted |= {name for name, each in quantities(table).items() if not each.families and not each.hidden}
    return {name: each for name, each in columns.items() if _declared(table, name) in wanted}


def _declared(table: str, column: str) -> str:
    """The name under which a column was declared: without `_se`, and without what a declaration of several adds."""
    name = column if column in quantities(table) else column.removesuffix(SE)
    if name in quantities(table):
        return name
    return max((each for each in quantities(table) if name.startswith(each)), key=len, default=name)
