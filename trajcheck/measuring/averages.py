"""Losses at averages along a run: which are saved already, the rest replayed, and all of them together."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING

from trajcheck.measuring.row_needs import RowNeeds
from trajcheck.metrics.resolution import Rounding
from trajcheck.replay.plan import FIXED
from trajcheck.scalars.averages import Average, averages_of
from trajcheck.scalars.rows import Row, evenly
from trajcheck.scalars.saved.record import Need, Record
from trajcheck.tables.averages import Averaged, Pair

if TYPE_CHECKING:
    from collections.abc import Callable

    from trajcheck.replay.averages.averaged_replay import AveragedReplay, AveragedRow, Losses

FIELDS = ("loss", "loss_avg")


def samples_of(samples: Iterable[str]) -> list[str]:
    """The conventions on which averages are evaluated."""
    return [name for name in samples if name in FIXED]


class AveragesNeeds(RowNeeds):
    """The records of a request's averages, and the store that is to meet them."""

    @cached_property
    def averages(self) -> tuple[Average, ...]:
        return averages_of(self.request.options.average)

    @cached_property
    def able(self) -> list[Row]:
        """The rows that can be evaluated."""
        return [row for row in self.rows.rows if not row.no_evaluation]

    @cached_property
    def twice(self) -> frozenset[int]:
        """Places of the rows that are evaluated in the second precision too, where there is one."""
        return (
            frozenset(row.place for row in evenly(self.able, self.request.twice))
            if self.identity.second
            else frozenset()
        )

    def lacking(self) -> list[int]:
        """The places of rows that the store does not have, ascending."""
        return sorted(row.place for row in self.able if any(self.store.get(need) is None for need in self._all_of(row)))

    def compute(self, replay: AveragedReplay, progress: Callable[[float], object]) -> None:
        """Evaluate what is lacking, into the store."""
        by_place = {row.place: row for row in self.able}
        for found in replay.rows(self.lacking(), self.twice, progress):
            self.store.add(self._records(by_place[found.place], found))

    def tables(self, rounding: Rounding) -> list[Averaged]:
        """By sample and average."""
        return [
            self._table(name, average, rounding)
            for name in samples_of(self.request.options.samples)
            for average in self.averages
        ]

    def _need(self, row: Row, draw: tuple[str, int], average: Average, second: bool) -> Need:
        key = self.identity.averaged(self._key(row), *draw, average, row.place, second=second)
        return Need(key, FIELDS)

    def _draws(self, name: str) -> list[tuple[str, int]]:
        return [(name, number) for number in range(self.request.draws[name])]

    def _all_of(self, row: Row) -> list[Need]:
        draws = [draw for name in samples_of(self.request.options.samples) for draw in self._draws(name)]
        precisions = (False, True) if row.place in self.twice else (False,)
        return [
            self._need(row, draw, average, second)
            for average in self.averages
            for draw in draws
            for second in precisions
        ]

    def _records(self, row: Row, found: AveragedRow) -> dict[bytes, Record]:
        records = {}
        draws = [draw for name in samples_of(self.request.options.samples) for draw in self._draws(name)]
        parts = [(False, found.losses, found.why)]
        if row.place in self.twice:
            parts.append((True, found.second or {}, found.why or found.second_why))
        for second, losses, why in parts:
            for draw in draws:
                values: Losses = losses.get(draw, (None, None))
                need = self._need(row, draw, found.average, second)
                records[need.key] = Record(dict(zip(FIELDS, values, strict=True)), why)
        return records

    def _table(self, name: str, average: Average, rounding: Rounding) -> Averaged:
        why = {row.place: row.no_evaluation for row in self.rows.rows}
        draws: list[dict[int, Pair]] = []
        again: list[dict[int, Pair]] = []
        for draw in self._draws(name):
            for second, tables, rows in ((False, draws, self.able), (True, again, self.able)):
                found = {}
                for row in rows:
                    if second and row.place not in self.twice:
                        continue
                    record = self.store.use(self._need(row, draw, average, second))
                    found[row.place] = (record.values["loss"], record.values["loss_avg"])
                    if not second and record.word:
                        why[row.place] = record.word
                tables.append(found)
        return Averaged(average, name, self.rows, self.request.trajectory.steps, draws, again, why, rounding)
