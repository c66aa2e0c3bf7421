"""From a request to rows of scalars: which of them are saved already, what the rest takes, and all of them together.

The rest is cut into portions: rows that lack the same. A row that lacks only what it has towards one reference is
asked for nothing else. What is found goes into the store as it is found (saved_scalars/), and the rows are made from
the store alone, so that an analysis that was interrupted and one that was not end in the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from trajcheck.inner_products.catalogue import REFERENCE_PRODUCTS, STEP_PRODUCTS
from trajcheck.measuring.measured_columns import RowCounts, SecondFacts
from trajcheck.measuring.row_needs import RowNeeds
from trajcheck.replay.plan import REFERENCE_REPLAYED, STEP_REPLAYED, Plan
from trajcheck.runs.references import Reference
from trajcheck.scalars.micro_batches import MICRO
from trajcheck.scalars.rows import Row, Rows
from trajcheck.scalars.saved.record import Need, Record, TensorShares, record_of, row_of
from trajcheck.scalars.values import LAG_PRODUCTS, LagScalars, RowScalars, StepScalars
from trajcheck.stream.lag_pass import gather_lags
from trajcheck.stream.row_pass import gather

STORED, REPLAYED, SECOND, LAGGED = "stored", "replayed", "second", "lagged"

Progress = Callable[[float], object]
#: Makes the replay of some rows towards some references.
Replays = Callable[[Rows, Sequence[Reference], Plan], Any]


@dataclass(frozen=True)
class Portion:
    """Rows, by their places, that lack the same scalars of one kind: the step's `own`, and those towards the references
    of these numbers."""

    kind: str
    places: tuple[int, ...]
    own: bool
    references: tuple[int, ...]


class Measurement(RowNeeds):
    """The scalars of one request towards some references."""

    evaluations = 0

    # -- what is lacking ----------------------------------------------------------------------------------------------

    def _lacking(self, row: Row, kind: str) -> frozenset[int]:
        """The numbers of the needs of one kind that the store cannot meet; 0 is the step's own."""
        groups: list[Sequence[Need | None]]
        if kind == STORED:
            groups = [self._stored(row)]
        elif kind in (REPLAYED, SECOND):
            groups = [self._replayed(row, *each, kind == SECOND) for each in self._samples(row)]
            groups += [[need] for need in self._micro(row)] if kind == REPLAYED else []
        else:
            groups = [[None, *self._lagged(row, lag)] for lag in self.request.options.lags]
        return frozenset(
            number for needs in groups for number, need in enumerate(needs) if need and self.store.get(need) is None
        )

    @cached_property
    def portions(self) -> list[Portion]:
        """What is lacking."""
        return self.portions_of(self.rows)

    def portions_of(self, rows: Rows) -> list[Portion]:
        """What is lacking on some of the rows."""
        options = self.request.options
        replayed, second = bool(options.objective), bool(self.identity.second)
        asked = {STORED: True, REPLAYED: replayed, SECOND: replayed and second, LAGGED: bool(options.lags)}
        return [portion for kind, wanted in asked.items() if wanted for portion in self._portions(kind, rows)]

    def _portions(self, kind: str, rows: Rows) -> Iterator[Portion]:
        of_kind = [row for row in rows.rows if kind != SECOND or row.place in self.request.second]
        lacking = {row.place: self._lacking(row, kind) for row in of_kind}
        for row in rows.support if kind in (STORED, REPLAYED) else ():
            if self._lacking(row, kind):
                # with the row that it supports, as evaluations are shared
                following = lacking.get(row.place + 1, frozenset())
                lacking[row.place] = following if 0 in following else frozenset({0})
        found: dict[frozenset[int], list[int]] = {}
        for place, numbers in sorted(lacking.items()):
            if numbers:
                found.setdefault(numbers, []).append(place)
        for numbers, places in found.items():
            yield Portion(kind, tuple(places), 0 in numbers, tuple(sorted(each - 1 for each in numbers if each)))

    def counts(self) -> RowCounts:
        """How many rows were saved by an earlier call, and how many were not."""
        lacking = {place for portion in self.portions for place in portion.places}
        return RowCounts(len(lacking), len(self.rows.work) - len(lacking))

    # -- what it takes ------------------------------------------------------------------------------------------------

    def replays(self, make: Mapping[str, Replays], portions: Sequence[Portion]) -> dict[Portion, Any]:
        """The replay of each portion that needs one, checked against the run before anything long begins; `make` by the
        kind of portion."""
        replays = {}
        for portion in portions:
            if portion.kind in make:
                references = [self.references[number] for number in portion.references]
                rows = self.rows.some(portion.places)
                replays[portion] = make[portion.kind](rows, references, self._plan(portion))
        return replays

    def _plan(self, portion: Portion) -> Plan:
        plan = self.request.second_plan if portion.kind == SECOND else self.request.plan
        if portion.own:
            return plan
        return replace(
            plan,
            evaluations=frozenset(plan.evaluations) & {"loss_ref"},
            step_products=(),
            curvature=(),
            path_points=0,
        )

    def compute(self, portion: Portion, replay: Any = None, progress: Progress = lambda rows: None) -> None:
        """Measure one portion, into the store. `replay` is that of `replays`."""
        if portion.kind == STORED:
            self._gather(portion, progress)
        elif portion.kind in (REPLAYED, SECOND):
            self._replay(portion, replay, progress)
        else:
            self._gather_lags(portion, progress)

    def _gather(self, portion: Portion, progress: Progress) -> None:
        request, rows = self.request, self.rows.some(portion.places)
        found = gather(
            request.trajectory,
            rows,
            [self.references[number] for number in portion.references],
            request.step_products if portion.own else (),
            request.reference_products,
            replayed=request.replayed,
            by_tensor=request.by_tensor,
            threads=request.options.threads,
            memory=request.options.memory_bytes,
            progress=progress,
        )
        for row, scalars in zip(rows.work, found, strict=True):
            self.store.add(dict(self._taken(portion, scalars, self._stored(row))))

    def _replay(self, portion: Portion, replay: Any, progress: Progress) -> None:
        rows, second = self.rows.some(portion.places), portion.kind == SECOND
        with closing(replay.rows(progress)) as found_rows:
            for row, found in zip(rows.work, found_rows, strict=True):
                records: dict[bytes, Record] = {}
                for sample, draw in self._samples(row):
                    needs = self._replayed(row, sample, draw, second)
                    if isinstance(found, str):  # why there is nothing in the second precision
                        records.update(_nothing(portion, needs, self.request.trajectory.shapes, found))
                        continue
                    if second:
                        records.update(self._taken(portion, found[sample][draw], needs))
                        continue
                    device = str(replay.objective.device)
                    words = {"own": replay.randomness.get(row.place, ""), "full": replay.weighing}
                    word = f"{device} {words.get(sample, '')}"
                    records.update(self._taken(portion, found[sample][draw], needs, word))
                if portion.own and not second and not isinstance(found, str):
                    for number, need in enumerate(self._micro(row)):
                        records[need.key] = record_of(None, found[MICRO][number], need)
                self.store.add(records)
        self.evaluations += replay.evaluations

    def _gather_lags(self, portion: Portion, progress: Progress) -> None:
        rows, lags = self.rows.some(portion.places), self.request.options.lags
        references = [self.references[number] for number in portion.references]
        found = gather_lags(self.request.trajectory, rows, references, lags, progress)
        for place, row in enumerate(rows.rows):
            for lag in lags:
                needs = self._lagged(row, lag)
                self.store.add(
                    {needs[number].key: _of_lag(found[lag][at][place]) for at, number in enumerate(portion.references)}
                )

    @staticmethod
    def _taken(
        portion: Portion, scalars: RowScalars, needs: Sequence[Need], word: str = ""
    ) -> Iterable[tuple[bytes, Record]]:
        """The records of a portion in a row of scalars: `needs` are the step's own, then towards each reference."""
        if portion.own:
            yield needs[0].key, record_of(None, scalars, needs[0], word)
        for at, number in enumerate(portion.references[: len(scalars.references)]):
            need = needs[number + 1]
            yield need.key, record_of(at, scalars, need, word)

    # -- all of it together -------------------------------------------------------------------------------------------

    def scalars(self) -> dict[str, list[dict[int, RowScalars]]]:
        """The rows of each sample convention, one table for each of its samples: what recorded vectors gave, with what
        the replay brings."""
        stored = {row.place: self._row(row, self._stored(row)) for row in self.rows.work}
        if not self.request.options.objective:
            return {"own": [stored]}
        geometry = STEP_PRODUCTS.keys() - STEP_REPLAYED, REFERENCE_PRODUCTS.keys() - REFERENCE_REPLAYED
        tables = {
            sample: [stored]
            if sample == "own"
            else [{place: row.keep(*geometry) for place, row in stored.items()} for _ in range(count)]
            for sample, count in self.request.draws.items()
        }
        for row in self.rows.work:
            for sample, draw in self._samples(row):
                tables[sample][draw][row.place].update(self._row(row, self._replayed(row, sample, draw)))
        return tables

    def batches(self, sample: str, draws: Sequence[Mapping[int, RowScalars]]) -> dict[int, list[RowScalars]]:
        """By place, each of the batches that a row is measured on under a convention, where these are several."""
        rows = self.rows.rows
        if sample == "probe" and self.request.plan.batch_sums:
            return {row.place: [each[row.place] for each in draws] for row in rows}
        if sample != "own":
            return {}
        found = {
            row.place: [self._row(row, [need]) for need in self._micro(row)] or self._recorded(row) for row in rows
        }
        return found if any(found.values()) else {}

    def _recorded(self, row: Row) -> list[RowScalars]:
        """What was recorded of the micro-batches of a step that is not replayed."""
        found = self.request.trajectory.snapshots[row.place].micro_gradients
        if found is None:
            return []
        products = zip(found.squares, found.dots, found.units, strict=True)
        return [
            RowScalars(StepScalars(row.step, grad_sq=square, grad_dot_sum=dot, grad_dot_units=unit))
            for square, dot, unit in products
        ]

    def second(self) -> dict[str, list[dict[int, RowScalars]]]:
        """The same of the second precision: on the rows that were replayed in it."""
        tables: dict[str, list[dict[int, RowScalars]]] = {
            sample: [{} for _ in range(count)] for sample, count in self.request.draws.items()
        }
        for row in self._second_rows:
            for sample, draw in self._samples(row):
                tables[sample][draw][row.place] = self._row(row, self._replayed(row, sample, draw, True))
        return tables

    @property
    def _second_rows(self) -> list[Row]:
        return [row for row in self.rows.rows if self.identity.second and row.place in self.request.second]

    def second_facts(self, dtype: str | None) -> SecondFacts | None:
        """How the second precision was found, which is `dtype`; None where there is none, or nothing needs it."""
        if dtype is None or not self._second_rows:
            return None
        words = [
            self.store.use(self._replayed(row, *each, True)[0]).word
            for row in self._second_rows
            for each in self._samples(row)
        ]
        return SecondFacts(dtype, len(self._second_rows), next((word for word in words if word), ""))

    def _row(self, row: Row, needs: Sequence[Need]) -> RowScalars:
        own, *towards = [(need, self.store.use(need)) for need in needs]
        return row_of(row.step, own, towards)

    def randomness(self) -> dict[str, int]:
        """Where the draws of the steps' own samples came from, and on how many rows."""
        counts: dict[str, int] = {}
        for row in self.rows.work:
            if ("own", 0) in self._samples(row):
                word = self.store.use(self._replayed(row, "own", 0)[0]).word.partition(" ")[2]
                counts[word] = counts.get(word, 0) + 1
        return counts

    def weighing(self) -> str:
        """How the batches of the data set weigh; "" where it was no sample."""
        for row in self.rows.work:
            if ("full", 0) in self._samples(row):
                return self.store.use(self._replayed(row, "full", 0)[0]).word.partition(" ")[2]
        return ""

    def devices(self) -> str:
        """On which devices the losses were replayed, in words; empty where none were."""
        found = {
            self.store.use(self._replayed(row, *each)[0]).word.partition(" ")[0]
            for row in self.rows.work
            for each in self._samples(row)
        }
        return ", ".join(sorted(found))

    def lags(self) -> dict[int, list[list[LagScalars | str]]]:
        """For each lag and reference, the products on each of `rows.rows`, or why there are none."""

        def towards(lag: int) -> Iterator[list[LagScalars | str]]:
            for needs in zip(*(self._lagged(row, lag) for row in self.rows.rows), strict=True):
                yield [_lag(self.store.use(need)) for need in needs]

        return {lag: list(towards(lag)) for lag in self.request.options.lags}


def _nothing(portion: Portion, needs: Sequence[Need], tensors: Iterable[str], why: str) -> dict[bytes, Record]:
    """Records without a value."""
    found = {}
    for number in [0] * portion.own + [number + 1 for number in portion.references]:
        need = needs[number]
        values = tuple(0.0 if name == "replayed" else None for name in need.fields)
        shares = TensorShares(need.fields, dict.fromkeys(tensors, values)) if need.by_tensor else None
        found[need.key] = Record(dict(zip(need.fields, values, strict=True)), why, shares)
    return found


def _of_lag(found: LagScalars | str) -> Record:
    if isinstance(found, str):
        return Record(dict.fromkeys(LAG_PRODUCTS), found)
    return Record({name: getattr(found, name) for name in LAG_PRODUCTS})


def _lag(record: Record) -> LagScalars | str:
    values = [record.values[name] for name in LAG_PRODUCTS]
    known = [value for value in values if value is not None]
    return LagScalars(*known) if len(known) == len(values) else record.word
