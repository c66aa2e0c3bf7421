"""Which records the rows of a request need: by which keys, with which fields."""

from __future__ import annotations

from collections.abc import Sequence

from trajcheck.inner_products.catalogue import BATCH_PRODUCTS
from trajcheck.measuring.needs import Request
from trajcheck.runs.references import Reference
from trajcheck.scalars.micro_batches import MICRO
from trajcheck.scalars.rows import Row
from trajcheck.scalars.saved.keys import Identity
from trajcheck.scalars.saved.record import Need
from trajcheck.scalars.saved.store import ScalarStore
from trajcheck.scalars.values import LAG_PRODUCTS, OF_BATCHES


class RowNeeds:
    """The needs of one request towards some references, and the store that is to meet them."""

    def __init__(
        self, request: Request, references: Sequence[Reference], store: ScalarStore, identity: Identity
    ) -> None:
        self.request, self.references, self.store, self.identity = request, references, store, identity
        self.rows = request.rows
        self._row_keys: dict[int, bytes] = {}
        self.reference_keys = [identity.reference(each) for each in references]

    def _key(self, row: Row) -> bytes:
        if row.place not in self._row_keys:
            self._row_keys[row.place] = self.identity.row(row)
        return self._row_keys[row.place]

    def _towards(self, row: Row) -> Sequence[bytes]:
        """The references that a row looks at."""
        return self.reference_keys if row.place in self.rows.places else ()

    def _stored(self, row: Row) -> list[Need]:
        """What recorded vectors are to give: the step's, then towards each reference."""
        key, by_tensor = self._key(row), row.place in self.request.by_tensor
        return [
            Need(self.identity.stored(key, each), self.request.stored_fields(row, each is not None), by_tensor)
            for each in (None, *self._towards(row))
        ]

    def _samples(self, row: Row) -> list[tuple[str, int]]:
        """The samples of a row, each with its number under its convention."""
        is_row = row.place in self.rows.places
        names = [name for name in self.request.draws if not row.no_sample_of(name) and (is_row or name == "own")]
        return [(name, draw) for name in names for draw in range(self.request.draws[name])]

    def _replayed(self, row: Row, sample: str, draw: int, second: bool = False) -> list[Need]:
        """What the replay, or that in the second precision, is to give on one sample: the step's, then towards each
        reference."""
        plan = self.request.second_plan if second else self.request.plan
        key, by_tensor = self._key(row), row.place in plan.by_tensor
        curved = row.place in plan.curvature and row.place in self.rows.places
        eigenvalues = (plan.ends, plan.curvature_tolerance) if curved else ()
        return [
            Need(
                self.identity.replayed(
                    key, sample, draw, each, second=second, curvature=eigenvalues if each is None else ()
                ),
                self.request.replayed_fields(row, sample, each is not None, second),
                by_tensor,
            )
            for each in (None, *self._towards(row))
        ]

    def _micro(self, row: Row) -> list[Need]:
        """What each micro-batch of an accumulated step is to give."""
        key, by_tensor = self._key(row), row.place in self.request.plan.by_tensor
        fields = ("grad_sq", *BATCH_PRODUCTS, *OF_BATCHES)
        return [
            Need(self.identity.replayed(key, MICRO, number, None), fields, by_tensor)
            for number in range(self.request.micro_batches(row))
        ]

    def _lagged(self, row: Row, lag: int) -> list[Need]:
        """The products of a row and the step `lag` on, for each reference."""
        key = self._key(row)
        return [Need(self.identity.lagged(key, row.step, lag, each), LAG_PRODUCTS) for each in self.reference_keys]
