"""The container of torch.save since 1.6: a zip archive whose entries lie in it as they are, one after the other.

Nothing is unpacked. Of each entry the central directory and its own header must say the same, and its bytes lie within
the file and in no other entry's. Names are looked up, never opened. Format: PKWARE's APPNOTE 6.3, with zip64.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from trajcheck.files.pickles.budget import PickleError

MOST_ENTRIES = 400_000
MOST_DIRECTORY = 100_000_000  # bytes of the central directory
_END, _END64, _LOCATOR = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_ENTRY, _LOCAL, _DESCRIPTOR = b"PK\x01\x02", b"PK\x03\x04", b"PK\x07\x08"
_ALL_32, _ALL_16 = 0xFFFFFFFF, 0xFFFF
_ENCRYPTED, _SIZES_FOLLOW = 0x1, 0x8


class Entry(NamedTuple):
    """Where the bytes of an entry lie, counted from the beginning of the archive."""

    offset: int
    length: int


class _Listed(NamedTuple):
    name: bytes
    flags: int
    method: int
    checksum: int
    packed: int
    length: int
    header: int


def is_archive(beginning: bytes) -> bool:
    """Whether a file begins as an archive does."""
    return beginning.startswith((_LOCAL, _END))


def entries(file: BinaryIO, begin: int, size: int) -> dict[str, Entry]:
    """The entries of an archive of torch.save, of `size` bytes that lie at `begin`, by name, without the folder that
    all are in. Raises PickleError, OSError."""
    found = all_entries(file, begin, size)
    folder = next(iter(found), b"").partition(b"/")[0]
    if folder + b"/constants.pkl" in found:
        raise PickleError("is a program of TorchScript, which is not read: save the state dict of its module")
    for name, entry in found.items():
        if isinstance(entry, str):
            raise PickleError(
                f"has a packed or encrypted entry {name!r:.100} ({entry}), which torch.save does not write"
            )
    return {_name(name, folder): entry for name, entry in found.items() if isinstance(entry, Entry)}


def all_entries(file: BinaryIO, begin: int, size: int) -> dict[bytes, Entry | str]:
    """The entries of any zip archive of `size` bytes that lies at `begin`, by name as it is; what of them is packed or
    encrypted says so in words. Raises PickleError, OSError."""
    found: dict[bytes, _Listed] = {}
    start, length, count = _directory(file, begin, size)
    for listed in _listed(_at(file, begin, start, length), count):
        if listed.name in found:
            raise PickleError(f"has two entries {listed.name!r:.100}")
        found[listed.name] = listed
    if len(found) != count:
        raise PickleError(f"lists {len(found):,} entries where its end says {count:,}")
    read: dict[bytes, Entry | str] = {}
    places = []
    for name, each in found.items():
        if each.flags & _ENCRYPTED or each.method or each.packed != each.length:
            read[name] = f"{'encrypted' if each.flags & _ENCRYPTED else 'packed'}, of {each.length:,} bytes"
        else:
            header, entry = _placed(file, begin, start, each)
            read[name] = entry
            places.append((header, entry))
    end = 0
    for header, entry in sorted(places):
        if header < end:
            raise PickleError("has entries that overlap")
        end = entry.offset + entry.length
    return read


def _at(file: BinaryIO, begin: int, offset: int, length: int) -> bytes:
    file.seek(begin + offset)
    data = file.read(length)
    if len(data) < length:
        raise PickleError("ends too early")
    return data


def _directory(file: BinaryIO, begin: int, size: int) -> tuple[int, int, int]:
    """Where the central directory lies, its bytes and its entries."""
    tail = _at(file, begin, size - min(size, 22 + _ALL_16), min(size, 22 + _ALL_16))
    place = tail.rfind(_END)
    if place < 0 or len(tail) - place < 22:
        raise PickleError("has no end of an archive: the file is truncated, or of another format")
    disk, of, here, count, length, start, comment = struct.unpack("<4xHHHHIIH", tail[place : place + 22])
    end = size - len(tail) + place
    if end + 22 + comment != size:
        raise PickleError("goes on behind the end of its archive, or is truncated")
    limit = end
    if end >= 20 and (locator := _at(file, begin, end - 20, 20)).startswith(_LOCATOR):
        _, limit, disks = struct.unpack("<4xIQI", locator)
        if limit + 56 > end - 20 or disks != 1:
            raise PickleError("has an end of an archive that lies beyond the file")
        record = _at(file, begin, limit, 56)
        if not record.startswith(_END64):
            raise PickleError("has a damaged end of an archive")
        disk, of, here, count, length, start = struct.unpack("<4x12xIIQQQQ", record)
    if disk or of or here != count or count > MOST_ENTRIES or length > MOST_DIRECTORY or start + length > limit:
        raise PickleError(f"has an end of an archive that does not fit it: {count:,} entries in {length:,} bytes")
    return start, length, count


def _listed(directory: bytes, count: int) -> Iterator[_Listed]:
    position = 0
    while position < len(directory):
        record = directory[position : position + 46]
        if len(record) < 46 or not record.startswith(_ENTRY):
            raise PickleError("has a damaged list of entries")
        flags, method, checksum, packed, length, names, extras, comments, disk, header = struct.unpack(
            "<8xHH4xIIIHHHH6xI", record
        )
        position += 46
        name = directory[position : position + names]
        extra = directory[position + names : position + names + extras]
        position += names + extras + comments
        if position > len(directory) or disk not in (0, _ALL_16):
            raise PickleError("has a damaged list of entries")
        wide = _wide_numbers(extra)
        numbers = [length, packed, header]
        for place, number in enumerate(numbers):
            if number == _ALL_32:
                if not wide:
                    raise PickleError(f"does not say how long entry {name!r:.100} is")
                numbers[place] = wide.pop(0)
        yield _Listed(name, flags, method, checksum, numbers[1], numbers[0], numbers[2])


def _wide_numbers(extra: bytes) -> list[int]:
    """The numbers of 64 bits that an entry's extra field 1 holds, in their order."""
    while len(extra) >= 4:
        kind, length = struct.unpack("<HH", extra[:4])
        if kind == 1:
            data = extra[4 : 4 + min(length, 24)]
            return [int.from_bytes(data[i : i + 8], "little") for i in range(0, len(data) - 7, 8)]
        extra = extra[4 + length :]
    return []


def _name(name: bytes, folder: bytes) -> str:
    """An entry's name within the folder that all are in."""
    parts = name.split(b"/")
    if parts[0] != folder or len(parts) < 2 or not {b"", b".", b".."}.isdisjoint(parts) or {0, 92} & set(name):
        raise PickleError(f"has an entry {name!r:.100}, which torch.save does not write")
    return name.decode("utf-8", "surrogateescape").partition("/")[2]


def _placed(file: BinaryIO, begin: int, directory: int, listed: _Listed) -> tuple[int, Entry]:
    """Where the header and the bytes of an entry lie, as its own header says."""
    if listed.header + 30 + len(listed.name) > directory:
        raise PickleError(f"has an entry {listed.name!r:.100} that lies beyond the file")
    record = _at(file, begin, listed.header, 30 + len(listed.name))
    flags, method, packed, length, names, extras = struct.unpack("<6xHH8xIIHH", record[:30])
    offset = listed.header + 30 + names + extras
    if not record.startswith(_LOCAL) or method or flags & _ENCRYPTED or offset + listed.length > directory:
        raise PickleError(f"has an entry {listed.name!r:.100} that lies beyond the file, or whose header is damaged")
    if names != len(listed.name) or record[30:] != listed.name:
        raise PickleError(f"calls an entry {listed.name!r:.100} otherwise in its list than where it lies")
    known = {length, packed} <= {min(listed.length, _ALL_32), _ALL_32}
    if not known and not (flags & _SIZES_FOLLOW and length == packed == 0):
        raise PickleError(f"says two lengths of entry {listed.name!r:.100}")
    return listed.header, Entry(offset, listed.length)
