"""A record: some scalars of one step, or of one step towards one reference, that were computed together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

from trajcheck.scalars.values import ReferenceScalars, RowScalars, StepScalars, TensorSums

Values = Mapping[str, float | None]


class TensorShares(NamedTuple):
    """The shares of single tensors: by tensor the values of some fields, in their order."""

    fields: tuple[str, ...]
    tensors: Mapping[str, tuple[float | None, ...]]

    def joined(self, other: TensorShares) -> TensorShares:
        """With the fields of other shares of the same tensors besides; where both have one, with the other's."""
        own = [place for place, name in enumerate(self.fields) if name not in other.fields]
        tensors = {
            name: (*(values[place] for place in own), *other.tensors[name]) for name, values in self.tensors.items()
        }
        return TensorShares((*(self.fields[place] for place in own), *other.fields), tensors)

    def of(self, fields: tuple[str, ...]) -> TensorShares:
        """Some of the fields."""
        if fields == self.fields:
            return self
        places = [self.fields.index(name) for name in fields]
        return TensorShares(fields, {name: tuple([each[at] for at in places]) for name, each in self.tensors.items()})


@dataclass(frozen=True, slots=True)
class Record:
    """`values` by field: None where the step does not have the value, absent where it was not asked for. `word` is a
    reason or a remark that belongs to them. `shares` are those of single tensors, None where these were not asked
    for."""

    values: Values
    word: str = ""
    shares: TensorShares | None = None

    def has(self, fields: Collection[str], by_tensor: bool) -> bool:
        """Whether all of these were computed."""
        return self.values.keys() >= set(fields) and (not by_tensor or self.share_fields >= set(fields))

    @property
    def share_fields(self) -> Set[str]:
        """The fields of single tensors' shares."""
        return set() if self.shares is None or not self.shares.tensors else set(self.shares.fields)

    def joined(self, other: Record) -> Record:
        """With what another record of the same things holds besides; where both hold something, with the other's."""
        shares = other.shares or self.shares
        if self.shares and other.shares and self.shares.tensors.keys() == other.shares.tensors.keys():
            shares = self.shares.joined(other.shares)
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
        if isinstance(row.tensors, TensorSums):
            shares = TensorShares(need.fields, row.tensors.values_of(number, need.fields))
        else:
            values = _getter(need.fields)
            shares = TensorShares(
                need.fields, {name: values(_part(share, number)) for name, share in row.tensors.items()}
            )
    return Record(_values(_part(row, number), need.fields), word, shares)


def _getter(fields: tuple[str, ...]) -> Callable[[object], tuple[float | None, ...]]:
    """The values of some fields, in order."""
    if len(fields) > 1:
        return attrgetter(*fields)
    return lambda scalars: tuple([getattr(scalars, name) for name in fields])


def row_of(step: int, own: tuple[Need, Record], towards: Iterable[tuple[Need, Record]]) -> RowScalars:
    """The row of scalars that the needed fields of records make."""
    parts = [own, *towards]
    values = [tuple([record.values[name] for name in need.fields]) for need, record in parts]
    fields = [need.fields for need, _ in parts]
    row = _row(step, fields, values)
    if own[0].by_tensor and own[1].shares is not None:
        tables = [record.shares.of(need.fields).tensors for need, record in parts if record.shares is not None]
        row.tensors = {name: _row(step, fields, [table[name] for table in tables]) for name in own[1].shares.tensors}
    return row


def _row(step: int, fields: Sequence[tuple[str, ...]], values: Sequence[tuple[float | None, ...]]) -> RowScalars:
    """A row of the step's own values, and of those towards each reference."""
    parts: list[dict[str, Any]] = [dict(zip(*each, strict=True)) for each in zip(fields, values, strict=True)]
    own, *towards = parts
    if "replayed" in own:
        own["replayed"] = bool(own["replayed"])
    return RowScalars(StepScalars(step, **own), [ReferenceScalars(step, **each) for each in towards])


def _part(row: RowScalars, number: int | None) -> StepScalars | ReferenceScalars:
    return row.own if number is None else row.references[number]


def _values(scalars: Any, fields: Iterable[str]) -> Values:
    return {
        name: value if (value := getattr(scalars, name)) is None or type(value) is float else float(value)
        for name in fields
    }
