"""Pickles of one training, which differ in a few numbers: the second one says which, and the others are filled in.

The files of a training are saved by one program, so that their pickles have the same operations, and differ in the
step, a rate, a loss. A pickle is interpreted with a blank in the place of each number that differs from the one before.
A blank can be put into containers, and nothing else: whatever looks at one raises, and there is no template then. Where
a later pickle has the same bytes but for the numbers at the blanks, interpreting it would make the same value with
these numbers, so its containers are copied and its storages found in its own file.
"""

from __future__ import annotations

import io
import re
import struct
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Any, ClassVar, NamedTuple

from trajcheck.files.pickles.budget import PickleError
from trajcheck.files.pickles.inert import Inert
from trajcheck.files.pickles.opcodes import Operations, Outside, Pickle
from trajcheck.files.pickles.tensors import Storage, StoredTensor, storage
from trajcheck.files.pickles.walking import check_depth

#: Bytes of a pickle that is kept, pickles that are kept, bytes in which two may differ, and levels of a value.
LARGEST, KEPT, MOST_BYTES_APART, DEEPEST = 2_000_000, 4, 20_000, 100
#: Pickles of one length in a row of which no template comes, until no more are tried.
MOST_TRIED = 3
#: Operations that push a number of a fixed length, by their bytes: how it is read.
_NUMBERS: dict[int, str] = {ord("J"): "<i", ord("K"): "<B", ord("M"): "<H", ord("G"): ">d"}
#: Keys that hold nothing of a file: tuples are of plain values alone.
_KEYS = (str, bytes, int, float, tuple, type(None))
_APART = re.compile(rb"[^\0]+")

#: Finds a storage in a file. Raises PickleError.
Place = Callable[[Storage], None]


class Blank:
    """In the place of a number, the one at `at`. Everything that would look at it raises TypeError."""

    __slots__ = ("at", "kind")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, at: int, kind: str) -> None:
        self.at, self.kind = at, kind

    def _refuse(self, *_: object) -> Any:
        raise TypeError("looks at a number that others have otherwise")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = __len__ = __iter__ = _refuse
    __int__ = __float__ = __index__ = __str__ = __repr__ = __format__ = __contains__ = __getitem__ = _refuse


class _WithBlanks(Pickle):
    """Blanks stand where numbers begin in one of the bytes `apart`."""

    def __init__(self, file: io.BytesIO, size: int, outside: Outside, apart: frozenset[int]) -> None:
        super().__init__(file, size, outside)
        self._apart = apart
        self.blanks: list[Blank] = []

    def number(self, kind: str) -> None:
        at = self._before + self._at
        data = self._read(struct.calcsize(kind))
        if self._apart.isdisjoint(range(at, at + len(data))):
            self._push(struct.unpack(kind, data)[0])
        else:
            self.blanks.append(Blank(at, kind))
            self._push(self.blanks[-1])

    operations: ClassVar[Operations] = {
        **Pickle.operations,
        **{code: lambda p, kind=kind: p.number(kind) for code, kind in _NUMBERS.items()},  # type: ignore[misc]
    }


class _Template(NamedTuple):
    """`data` with zeros at the blanks; `value` holds blanks, and storages that lie nowhere."""

    data: bytes
    value: Any
    blanks: tuple[Blank, ...]
    copied: frozenset[int]  # of what in the value is of a file: ids of blanks, storages and what holds them

    def fits(self, data: bytes) -> bool:
        return _without(data, self.blanks) == self.data

    def filled(self, data: bytes, place: Place) -> Any:
        return _Filling(self.copied, data, place).of(self.value)


class AlikePickles:
    """Those that were read last, by their lengths. Any thread may ask."""

    def __init__(self) -> None:
        self._templates: OrderedDict[int, _Template] = OrderedDict()
        self._before: OrderedDict[int, bytes] = OrderedDict()
        self._tried: dict[int, int] = {}
        self._lock = Lock()

    def load(self, data: bytes, place: Place) -> Any:
        """The value of a pickle of a file of torch.save, its storages found by `place`. Raises PickleError."""
        size = len(data)
        if size > LARGEST:
            return _whole(data, place)
        with self._lock:
            template, before = self._templates.get(size), self._before.get(size)
            tries = self._tried.get(size, 0) < MOST_TRIED
        if template is not None and template.fits(data):
            return template.filled(data, place)
        if before is not None and tries and before != data:
            made = _template(data, before, template)
            with self._lock:
                self._tried[size] = self._tried.get(size, 0) + 1 if made is None else 0
                if made is not None:
                    _keep(self._templates, size, made)
            if made is not None:
                return made.filled(data, place)
        value = _whole(data, place)
        with self._lock:
            _keep(self._before, size, data)
            if len(self._tried) > 1000:
                self._tried.clear()
        return value


def _keep(known: OrderedDict[int, Any], size: int, value: Any) -> None:
    known[size] = value
    known.move_to_end(size)
    if len(known) > KEPT:
        known.popitem(last=False)


def _whole(data: bytes, place: Place) -> Any:
    def outside(given: Any) -> Storage:
        made = storage(given)
        place(made)
        return made

    value = _ended(Pickle(file := io.BytesIO(data), len(data), outside), file)
    check_depth(value)
    return value


def _ended(described: Pickle, file: io.BytesIO) -> Any:
    value = described.load()
    if file.read(1):
        raise PickleError("goes on behind the value of its description")
    return value


def _template(data: bytes, before: bytes, known: _Template | None) -> _Template | None:
    """None where the two differ in something else than numbers, or where something depends on those."""
    places = [place for match in _APART.finditer(_apart(data, before)) for place in range(*match.span())]
    if len(places) > MOST_BYTES_APART:
        return None
    every = frozenset(places) | {blank.at for blank in (known.blanks if known is not None else ())}
    pickle = _WithBlanks(file := io.BytesIO(data), len(data), storage, every)
    try:
        value = _ended(pickle, file)
        covered = {place for each in pickle.blanks for place in range(each.at, each.at + struct.calcsize(each.kind))}
        if not covered.issuperset(places):
            return None
        blanks = tuple(pickle.blanks)
        return _Template(_without(data, blanks), value, blanks, frozenset(_Own().found(value)))
    except (PickleError, _NoTemplateError):
        return None


def _apart(one: bytes, other: bytes) -> bytes:
    """Zeros where two texts of one length agree."""
    return (int.from_bytes(one, "little") ^ int.from_bytes(other, "little")).to_bytes(len(one), "little")


def _without(data: bytes, blanks: tuple[Blank, ...]) -> bytes:
    bare = bytearray(data)
    for blank in blanks:
        size = struct.calcsize(blank.kind)
        bare[blank.at : blank.at + size] = bytes(size)
    return bytes(bare)


class _NoTemplateError(ValueError):
    pass


def _inside(value: Any) -> tuple[Any, ...] | list[Any]:
    """What a container holds; nothing of what is none."""
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, Inert):
        return list(value.children())
    if isinstance(value, StoredTensor):
        return (value.storage,)
    return value if isinstance(value, (list, tuple)) else ()


class _Own:
    """What in a value is of a file, and not of all alike."""

    def __init__(self) -> None:
        self._known: dict[int, bool | None] = {}  # None while what it holds is looked at

    def found(self, value: Any) -> set[int]:
        """Ids. Raises _NoTemplateError for a value that is deep or holds itself, or keys that may be of a file."""
        self._is_own(value, DEEPEST)
        return {each for each, own in self._known.items() if own}

    def _is_own(self, value: Any, levels: int) -> bool:
        if isinstance(value, (Blank, Storage)):
            self._known[id(value)] = True
            return True
        if id(value) in self._known:
            if (known := self._known[id(value)]) is None:  # it holds itself
                raise _NoTemplateError
            return known
        if isinstance(value, (dict, set, frozenset)) and not all(isinstance(key, _KEYS) for key in value):
            raise _NoTemplateError
        if not isinstance(value, (dict, list, tuple, Inert, StoredTensor)):
            return False
        if not levels:
            raise _NoTemplateError
        self._known[id(value)] = None
        own = any([self._is_own(each, levels - 1) for each in _inside(value)])
        self._known[id(value)] = own
        return own


class _Filling:
    """Copies of what is of a file; the rest is the template's own, which nobody changes."""

    def __init__(self, copied: frozenset[int], data: bytes, place: Place) -> None:
        self._copied, self._data, self._place = copied, data, place
        self._made: dict[int, Any] = {}

    def of(self, value: Any) -> Any:
        if id(value) not in self._copied:
            return value
        found = self._made.get(id(value))
        if found is None:
            found = self._made[id(value)] = self._copy(value)
        return found

    def _copy(self, value: Any) -> Any:
        of = self.of
        if isinstance(value, StoredTensor):
            return value.in_storage(of(value.storage))
        if isinstance(value, Storage):
            made = Storage(value.key, value.dtype, value.numel)
            self._place(made)
            return made
        if isinstance(value, dict):
            return {key: of(each) for key, each in value.items()}
        if isinstance(value, Blank):
            return struct.unpack_from(value.kind, self._data, value.at)[0]
        if isinstance(value, Inert):
            inert = Inert(value.of, tuple(map(of, value.arguments)))
            inert.state = of(value.state)
            inert.items = list(map(of, value.items))
            inert.entries = [(of(key), of(each)) for key, each in value.entries]
            return inert
        return list(map(of, value)) if isinstance(value, list) else tuple(map(of, value))
