"""A record: some scalars of one step, or of one step towards one reference, that were computed together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any, TypeVar

from trajcheck.scalars import ReferenceScalars, RowScalars, StepScalars

S = TypeVar("S", StepScalars, ReferenceScalars)

Values = Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Record:
    """`values` by field: None where the step does not have the value, absent where it was not asked for. `word` is a
    reason or a remark that belongs to them. `shares` are those of single tensors, None where these were not asked
    for; all of them have the same fields."""

    values: Values
    word: str = ""
    shares: Mapping[str, Values] | None = None

    def has(self, fields: Collection[str], by_tensor: bool) -> bool:
        """Whether all of these were computed."""
        return self.values.keys() >= set(fields) and (not by_tensor or self.share_fields >= set(fields))

    @property
    def share_fields(self) -> Set[str]:
        """The fields of single tensors' shares."""
        return next(iter(self.shares.values()), {}).keys() if self.shares is not None else set()

    def joined(self, other: Record) -> Record:
        """With what another record of the same things holds besides; where both hold something, with the other's."""
        shares = self.shares if other.shares is None else other.shares
        if self.shares is not None and other.shares is not None:
            shares = {name: {**values, **other.shares[name]} for name, values in self.shares.items()}
        return Record({**self.values, **other.values}, other.word or self.word, shares)


@dataclass(frozen=True, slots=True)
class Need:
    """A record that a row needs: its key, the fields, and whether those of single tensors are wanted too."""

    key: bytes
    fields: tuple[str, ...]
    by_tensor: bool = False


def record_of(number: int | None, row: RowScalars, need: Need, word: str = "") -> Record:
    """What a row of scalars holds of the step (None) or towards the `number`-th of its references."""
    shares = None
    if need.by_tensor:
        shares = {name: _values(_part(share, number), need.fields) for name, share in row.tensors.items()}
    return Record(_values(_part(row, number), need.fields), word, shares)


def row_of(step: int, own: tuple[Need, Record], towards: Iterable[tuple[Need, Record]]) -> RowScalars:
    """The row of scalars that the needed fields of records make."""
    parts = [own, *towards]
    row = _filled(step, [(need, record.values) for need, record in parts])
    if own[0].by_tensor:
        for name in own[1].shares or ():
            row.tensors[name] = _filled(step, [(need, (record.shares or {})[name]) for need, record in parts])
    return row


def _part(row: RowScalars, number: int | None) -> StepScalars | ReferenceScalars:
    return row.own if number is None else row.references[number]


def _values(scalars: Any, fields: Iterable[str]) -> Values:
    return {
        name: value if (value := getattr(scalars, name)) is None or type(value) is float else float(value)
        for name in fields
    }


def _filled(step: int, parts: list[tuple[Need, Values]]) -> RowScalars:
    own, *towards = parts
    return RowScalars(_made(StepScalars, step, *own), [_made(ReferenceScalars, step, *each) for each in towards])


def _made(kind: type[S], step: int, need: Need, values: Values) -> S:
    found: dict[str, Any] = {name: values[name] for name in need.fields}
    if "replayed" in found:
        found["replayed"] = bool(found["replayed"])
    return kind(step, **found)
