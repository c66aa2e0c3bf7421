"""The interpreter of pickles, of protocols 0 to 5: it makes plain values and records, and does nothing.

As in Python's own there is a stack, a memo and a stack of marks. Where that would import (GLOBAL, INST, EXT), call
(REDUCE, OBJ, NEWOBJ) or set attributes (BUILD), calls.py says what becomes of it. Format: Python's pickletools.
"""

from __future__ import annotations

import codecs
import re
import struct
from collections.abc import Callable, Hashable
from typing import Any, BinaryIO, ClassVar

from trajcheck.files.pickles.budget import (
    LONGEST_LINE,
    LONGEST_NUMBER,
    MOST_MARKS,
    MOST_OPERATIONS,
    Budget,
    PickleError,
)
from trajcheck.files.pickles.calls import build, call, named
from trajcheck.files.pickles.inert import Global, Inert

#: What a reference of the pickle to something outside it means: of torch's, to a storage.
Outside = Callable[[Any], Any]
Operations = dict[int, Callable[[Any], object]]

_PLAIN_KEYS = (str, bytes, bool, float, type(None))
_ODD_ESCAPE = re.compile(rb"""\\(?:[^\\'"ntrx]|$)""")
_LONGEST_KEY = 64  # elements of a tuple that is one
_AT_ONCE = 1 << 16  # bytes that are read ahead
_SMALL, _CONTAINER, _POINTER = 32, 120, 16  # bytes of memory, about


def no_outside(_: Any) -> Any:
    """Of a pickle that stands by itself."""
    raise PickleError("refers to something outside it")


class Pickle:
    """One pickle that begins where `file` stands; no more than `size` bytes are read. `operations` are what each does,
    by its byte; STOP stands in `load`."""

    operations: ClassVar[Operations]

    def __init__(self, file: BinaryIO, size: int, outside: Outside = no_outside, budget: Budget | None = None) -> None:
        self._file, self._size, self._outside = file, size, outside
        self._begin = file.tell()
        self._buffer, self._before, self._at = b"", 0, 0  # what was read, how much came before it, how far it is used
        self.budget = budget or Budget()
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def load(self) -> Any:
        """The value; `file` then stands behind the pickle. Raises PickleError."""
        operations = self.operations
        try:
            for _ in range(MOST_OPERATIONS):
                if self._at < len(self._buffer):
                    code = self._buffer[self._at]
                    self._at += 1
                else:
                    code = self._read(1)[0]
                if code == 0x2E:  # STOP
                    self._file.seek(self._begin + self._before + self._at)
                    return self._stack.pop()
                operations[code](self)
        except PickleError:
            raise
        except KeyError as error:
            raise PickleError(f"has an operation or a reference that is not known ({error})") from error
        except (IndexError, ValueError, struct.error, TypeError, OverflowError, AttributeError) as error:
            raise PickleError(f"is damaged ({type(error).__name__}: {str(error)[:100]})") from error
        raise PickleError(f"has more than {MOST_OPERATIONS:,} operations")

    # -- bytes --------------------------------------------------------------------------------------------------------

    @property
    def _left(self) -> int:
        return self._size - self._before - self._at

    def _read(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._buffer):
            self._fill(count)
            end = count
        data = self._buffer[self._at : end]
        self._at = end
        return data

    def _fill(self, count: int) -> None:
        """Have `count` bytes in the buffer, and nothing that was used."""
        if count > self._left:
            raise PickleError("ends too early, or has a part that is longer than itself")
        rest = self._buffer[self._at :]
        self._before, self._at = self._before + self._at, 0
        more = min(self._size - self._before, max(count, _AT_ONCE)) - len(rest)
        self._buffer = rest + self._file.read(more)
        if len(self._buffer) < count:
            raise PickleError("ends too early")

    def _text(self, count: int) -> bytes:
        if count > self._left:
            raise PickleError("ends too early, or has a part that is longer than itself")
        self.budget.spend(5 * count + 2 * _SMALL)
        return self._read(count)

    def _line(self) -> bytes:
        if self._buffer.find(b"\n", self._at) < 0:
            self._fill(min(self._left, LONGEST_LINE + 1))
        end = self._buffer.find(b"\n", self._at, self._at + LONGEST_LINE + 1)
        if end < 0:
            raise PickleError("has a name or a number that does not end")
        return self._read(end + 1 - self._at)[:-1]

    def _byte(self) -> int:
        at = self._at
        if at < len(self._buffer):
            self._at = at + 1
            return self._buffer[at]
        return self._read(1)[0]

    def _number(self, count: int) -> int:
        return int.from_bytes(self._read(count), "little")

    # -- the stack ----------------------------------------------------------------------------------------------------

    def _push(self, value: Any, size: int = _SMALL) -> None:
        budget = self.budget
        budget.memory -= size
        if budget.memory < 0:
            budget.spend(0)
        self._stack.append(value)

    def _mark(self) -> None:
        if len(self._marks) >= MOST_MARKS:
            raise PickleError(f"has more than {MOST_MARKS:,} containers within one another")
        self._marks.append(self._stack)
        self._stack = []

    def _since_mark(self) -> list[Any]:
        found, self._stack = self._stack, self._marks.pop()
        return found

    def _tuple(self, values: list[Any]) -> None:
        self._push(tuple(values), _CONTAINER + _POINTER * len(values))

    # -- the memo -----------------------------------------------------------------------------------------------------

    def _put(self, place: int) -> None:
        budget = self.budget
        budget.memory -= _CONTAINER
        if budget.memory < 0:
            budget.spend(0)
        self._memo[place] = self._stack[-1]

    def _get(self, place: int) -> None:
        self._push(self._memo[place], _POINTER)

    # -- numbers and texts --------------------------------------------------------------------------------------------

    def _long(self, count: int) -> None:
        if count > LONGEST_NUMBER:
            raise PickleError(f"has a number of {count:,} bytes")
        self._push(int.from_bytes(self._read(count), "little", signed=True), _SMALL + count)

    def _written_number(self) -> None:
        line = self._line()
        if len(line) > LONGEST_NUMBER:
            raise PickleError(f"has a number of {len(line):,} digits")
        self._push({b"00": False, b"01": True}[line] if line in (b"00", b"01") else int(line.rstrip(b"L")), 128)

    def _string(self, data: bytes) -> None:
        """A str of Python 2, which may have been bytes or text."""
        try:
            self._stack.append(data.decode("utf-8"))
        except UnicodeDecodeError:
            self._stack.append(data)

    def _unicode(self, count: int) -> None:
        self._stack.append(self._text(count).decode("utf-8", "surrogatepass"))

    # -- containers ---------------------------------------------------------------------------------------------------

    def _key(self, key: Any) -> Hashable:
        """A key: no comparison of keys may take long."""
        if isinstance(key, tuple) and not isinstance(key, Global):
            if len(key) > _LONGEST_KEY or not all(map(_plain_key, key)):
                raise PickleError("has a tuple as key that holds more than a few plain values")
            self.budget.odd_key()
        elif isinstance(key, (list, dict, set, frozenset, complex)) or (isinstance(key, int) and not _plain_key(key)):
            raise PickleError(f"has a key of type {type(key).__name__} that is none")
        return key

    def _set(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if len(values) % 2:
            raise PickleError("has a key without a value")
        pairs = zip(values[::2], values[1::2], strict=True)
        self.budget.spend(_CONTAINER * (len(values) // 2))
        if isinstance(target, dict):
            target.update((self._key(key), value) for key, value in pairs)
        elif isinstance(target, Inert):
            target.entries.extend(pairs)
        else:
            raise PickleError(f"sets a value in a {type(target).__name__}")

    def _append(self, values: list[Any]) -> None:
        target = self._stack[-1]
        self.budget.spend(_POINTER * len(values))
        if isinstance(target, list):
            target.extend(values)
        elif isinstance(target, Inert):
            target.items.extend(values)
        else:
            raise PickleError(f"appends to a {type(target).__name__}")

    def _add(self, values: list[Any]) -> None:
        target = self._stack[-1]
        self.budget.spend(_CONTAINER * len(values))
        if isinstance(target, set):
            target.update(map(self._key, values))
        elif isinstance(target, Inert):
            target.items.extend(values)
        else:
            raise PickleError(f"adds to a {type(target).__name__}")

    def _dict(self) -> None:
        values = self._since_mark()
        self._push({}, _CONTAINER)
        self._set(values)

    def _frozen(self) -> None:
        values = self._since_mark()
        self._push(frozenset(map(self._key, values)), _CONTAINER * (1 + len(values)))

    # -- names and calls ----------------------------------------------------------------------------------------------

    def _global(self, module: Any, name: Any) -> None:
        found = named(module, name)
        self._push(found, _CONTAINER + 2 * len(found.dotted))

    def _call(self, of: Any, arguments: Any, keywords: Any = None) -> None:
        self._push(call(of, arguments, keywords, self.budget, self._key), 2 * _CONTAINER)

    def _inst(self) -> None:
        of = named(self._line().decode("ascii"), self._line().decode("ascii"))
        self._call(of, tuple(self._since_mark()))

    def _obj(self) -> None:
        of, *arguments = self._since_mark()
        self._call(of, tuple(arguments))

    def _new(self) -> None:
        arguments, of = self._stack.pop(), self._stack.pop()
        self._call(of, arguments)

    def _new_with_keywords(self) -> None:
        keywords, arguments, of = self._stack.pop(), self._stack.pop(), self._stack.pop()
        self._call(of, arguments, keywords)

    def _build(self) -> None:
        state = self._stack.pop()
        self._stack[-1] = build(self._stack[-1], state, self.budget)

    def _frame(self) -> None:
        if self._number(8) > self._left:
            raise PickleError("ends too early, or has a part that is longer than itself")

    def _protocol(self) -> None:
        if (protocol := self._read(1)[0]) > 5:
            raise PickleError(f"is of protocol {protocol}; known are 0 to 5")

    def _refuse_extension(self) -> None:
        raise PickleError("names a class by a number of copyreg's registry, which nobody knows here")

    def _refuse_buffer(self) -> None:
        raise PickleError("refers to a buffer outside it")


def _plain_key(key: Any) -> bool:
    return isinstance(key, _PLAIN_KEYS) or (isinstance(key, int) and -(2**63) <= key < 2**64)


def _quoted(line: bytes) -> bytes:
    """A str as Python 2 shows it."""
    inside = line.strip()[1:-1]
    if _ODD_ESCAPE.search(inside):
        raise PickleError("has a text with an escape that is none")
    return bytes(codecs.escape_decode(inside)[0])


def _pop(pickle: Pickle) -> None:
    if pickle._stack:
        pickle._stack.pop()
    else:
        pickle._since_mark()


def _last(pickle: Pickle, count: int) -> list[Any]:
    if len(pickle._stack) < count:
        raise PickleError("takes more from the stack than there is")
    found = pickle._stack[len(pickle._stack) - count :]
    del pickle._stack[len(pickle._stack) - count :]
    return found


Pickle.operations = {
    0x80: Pickle._protocol,
    0x95: Pickle._frame,
    ord("("): Pickle._mark,
    ord("0"): _pop,
    ord("1"): Pickle._since_mark,  # POP_MARK
    ord("2"): lambda p: p._push(p._stack[-1], _POINTER),  # DUP
    # numbers
    ord("N"): lambda p: p._push(None, _POINTER),
    0x88: lambda p: p._push(True, _POINTER),
    0x89: lambda p: p._push(False, _POINTER),
    ord("I"): Pickle._written_number,
    ord("L"): Pickle._written_number,
    ord("F"): lambda p: p._push(float(p._line())),
    ord("G"): lambda p: p._push(struct.unpack(">d", p._read(8))[0]),
    ord("J"): lambda p: p._push(struct.unpack("<i", p._read(4))[0]),
    ord("K"): lambda p: p._push(p._byte(), _POINTER),
    ord("M"): lambda p: p._push(p._number(2)),
    0x8A: lambda p: p._long(p._byte()),
    0x8B: lambda p: p._long(p._number(4)),
    # texts
    ord("S"): lambda p: p._string(_quoted(p._line())),
    ord("T"): lambda p: p._string(p._text(p._number(4))),
    ord("U"): lambda p: p._string(p._text(p._byte())),
    ord("V"): lambda p: p._push(p._line().decode("raw-unicode-escape"), 4 * LONGEST_LINE),
    ord("X"): lambda p: p._unicode(p._number(4)),
    0x8C: lambda p: p._unicode(p._byte()),
    0x8D: lambda p: p._unicode(p._number(8)),
    ord("B"): lambda p: p._stack.append(p._text(p._number(4))),
    ord("C"): lambda p: p._stack.append(p._text(p._byte())),
    0x8E: lambda p: p._stack.append(p._text(p._number(8))),
    0x96: lambda p: p._stack.append(p._text(p._number(8))),  # BYTEARRAY8
    # containers
    ord(")"): lambda p: p._push((), _POINTER),
    0x85: lambda p: p._tuple(_last(p, 1)),
    0x86: lambda p: p._tuple(_last(p, 2)),
    0x87: lambda p: p._tuple(_last(p, 3)),
    ord("t"): lambda p: p._tuple(p._since_mark()),
    ord("]"): lambda p: p._push([], _CONTAINER),
    ord("l"): lambda p: p._push(p._since_mark(), _CONTAINER),
    ord("a"): lambda p: p._append(_last(p, 1)),
    ord("e"): lambda p: p._append(p._since_mark()),
    ord("}"): lambda p: p._push({}, _CONTAINER),
    ord("d"): Pickle._dict,
    ord("s"): lambda p: p._set(_last(p, 2)),
    ord("u"): lambda p: p._set(p._since_mark()),
    0x8F: lambda p: p._push(set(), 2 * _CONTAINER),
    0x90: lambda p: p._add(p._since_mark()),
    0x91: Pickle._frozen,
    # the memo
    ord("p"): lambda p: p._put(int(p._line())),
    ord("q"): lambda p: p._put(p._byte()),
    ord("r"): lambda p: p._put(p._number(4)),
    0x94: lambda p: p._put(len(p._memo)),  # MEMOIZE
    ord("g"): lambda p: p._get(int(p._line())),
    ord("h"): lambda p: p._get(p._byte()),
    ord("j"): lambda p: p._get(p._number(4)),
    # names and calls
    ord("c"): lambda p: p._global(p._line().decode("utf-8"), p._line().decode("utf-8")),
    0x93: lambda p: p._global(*_last(p, 2)),  # STACK_GLOBAL
    ord("R"): lambda p: p._call(*_last(p, 2)),
    ord("i"): Pickle._inst,
    ord("o"): Pickle._obj,
    0x81: Pickle._new,
    0x92: Pickle._new_with_keywords,
    ord("b"): Pickle._build,
    # outside
    ord("P"): lambda p: p._push(p._outside(p._line().decode("ascii")), _CONTAINER),
    ord("Q"): lambda p: p._push(p._outside(p._stack.pop()), _CONTAINER),
    0x82: Pickle._refuse_extension,
    0x83: Pickle._refuse_extension,
    0x84: Pickle._refuse_extension,
    0x97: Pickle._refuse_buffer,
    0x98: Pickle._refuse_buffer,
}
