"""The items of a checkpoint's files: each is a file of torch.save, in which a tensor lies.

The steps of a run are written alike. What was read of a tensor's item at one step holds at another where all of the
item but the numbers is the same: the bytes before them and behind them, apart from the checksums of the numbers and a
number that torch draws for each file. So each is looked at, but few are interpreted.
"""

from __future__ import annotations

import os
import re
from typing import Any, NamedTuple

from trajcheck.errors import StepFileError
from trajcheck.files.extent_reader import unreadable
from trajcheck.files.extents import Extent
from trajcheck.files.opening import open_regular
from trajcheck.files.pickles.tensors import StoredTensor
from trajcheck.files.pickles.torch_file import read_torch_file

#: Checksums in descriptors and in the list of entries, and the 40 digits of the file's own number.
_VARYING = re.compile(rb"(?<=PK\x07\x08).{4}|(?<=PK\x01\x02.{12}).{4}|(?<=Z)\d{40}(?=PK\x07\x08)", re.DOTALL)
#: Bytes around the numbers of a tensor at the most; of an item that has more, all is interpreted.
_MOST_AROUND = 16_384


class Item(NamedTuple):
    """A file of torch.save that lies in a file of the checkpoint, by its name there."""

    file: str
    offset: int
    length: int


class _Known(NamedTuple):
    """An item that was interpreted: where its numbers lie in it, what is around them, and where of that the bytes are
    that vary, which are 0 there."""

    length: int
    begin: int
    extent: Extent
    around: bytes
    varying: tuple[slice, ...]


class Items:
    """The items of all steps of a run; those of one `key` are expected to be alike."""

    def __init__(self) -> None:
        self._known: dict[object, _Known] = {}
        self._values: dict[bytes, Any] = {}

    def tensor(self, key: object, folder: str, item: Item, name: str) -> Extent:
        """Where the numbers of a tensor lie; `name` is for messages. Raises StepFileError for an item that is none."""
        path = os.path.join(folder, item.file)
        known = self._known.get(key)
        if known is not None and known.length == item.length:
            end = known.begin + known.extent.length
            if _without(self._around(path, item, known.begin, end), known.varying) == known.around:
                return known.extent._replace(path=path, offset=item.offset + known.begin)
        found = read_torch_file(path, item.offset, item.length).value
        if not isinstance(found, StoredTensor):
            raise StepFileError(f"{path}: holds at byte {item.offset:,} no tensor, where a chunk of {name!r:.200} is.")
        extent = found.extent(name)
        begin = extent.offset - item.offset
        if not extent.parts and item.length - extent.length <= _MOST_AROUND:
            around = self._around(path, item, begin, begin + extent.length)
            varying = tuple(slice(*match.span()) for match in _VARYING.finditer(around, begin))
            self._known[key] = _Known(item.length, begin, extent, _without(around, varying), varying)
        return extent

    def value(self, folder: str, item: Item) -> Any:
        """A pickled value. Raises StepFileError."""
        path = os.path.join(folder, item.file)
        content = b""
        if item.length <= _MOST_AROUND:
            content = _VARYING.sub(b"", self._around(path, item, 0, 0))
            if content in self._values:
                return self._values[content]
        value = read_torch_file(path, item.offset, item.length).value
        if content and not isinstance(value, StoredTensor):
            self._values[content] = value
        return value

    @staticmethod
    def _around(path: str, item: Item, begin: int, end: int) -> bytes:
        try:
            descriptor = open_regular(path)
        except OSError as error:
            raise unreadable(path, error) from error
        try:
            before = os.pread(descriptor, begin, item.offset)
            behind = os.pread(descriptor, item.length - end, item.offset + end)
        except OSError as error:
            raise unreadable(path, error) from error
        finally:
            os.close(descriptor)
        if len(before) + len(behind) < item.length - (end - begin):
            raise StepFileError(f"{path}: ends before byte {item.offset + item.length:,}, where an item of it should.")
        return before + behind


def _without(around: bytes, varying: tuple[slice, ...]) -> bytes:
    bare = bytearray(around)
    for each in varying:
        bare[each] = bytes(each.stop - each.start)
    return bytes(bare)
