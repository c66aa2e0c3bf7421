"""What stands in a restored batch for containers of classes that a file can only name: their fields, nothing more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class AttributeDict(dict[str, Any]):
    """For a mapping that is no plain dict (UserDict, BatchEncoding, ModelOutput): a dict whose keys are attributes too,
    and which can be moved as tokenizers' encodings can."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the batch has no {name!r}; it has {', '.join(map(repr, self))}") from None

    def to(self, *where: Any, **how: Any) -> AttributeDict:
        """Its tensors moved, as `Tensor.to` moves them; in place, and returned."""
        self.update({key: value.to(*where, **how) for key, value in self.items() if hasattr(value, "to")})
        return self


class Fields:
    """For a dataclass or another object with fields: these, as attributes and as items."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.__dict__.update(fields)

    def __getitem__(self, name: str) -> Any:
        return self.__dict__[name]

    def __contains__(self, name: object) -> bool:
        return name in self.__dict__

    def __repr__(self) -> str:
        return f"Fields({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"


class FieldTuple(tuple[Any, ...]):
    """For a named tuple: a tuple whose items are attributes too."""

    _fields: tuple[str, ...]

    def __new__(cls, fields: Sequence[str], values: Sequence[Any]) -> FieldTuple:
        made = super().__new__(cls, values)
        made._fields = tuple(fields)
        return made

    def __getnewargs__(self) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        return self._fields, tuple(self)

    def __getattr__(self, name: str) -> Any:
        if name != "_fields" and name in self._fields:
            return self[self._fields.index(name)]
        raise AttributeError(f"the batch has no {name!r}")

    def _asdict(self) -> dict[str, Any]:
        return dict(zip(self._fields, self, strict=True))
