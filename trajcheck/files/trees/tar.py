"""Tar files as trees: ustar with GNU's and pax's long names. Nothing is unpacked; headers alone are read.

Each header's checksum is verified, each entry lies within the file. Sparse entries, and links that lead out, are named
when somebody asks for them. Formats: POSIX.1-2001, and GNU tar's manual.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from trajcheck.errors import RunError
from trajcheck.files.opening import opened, size_of
from trajcheck.files.trees.members import MembersTree
from trajcheck.files.trees.tree import Member, is_plain

BLOCK = 512
MOST_ENTRIES, MOST_NAMES = 500_000, 20_000_000  # bytes of all names together
MOST_DESCRIBED = 1_000_000  # bytes of one entry that describes the next
_LONG_NAME, _LONG_LINK, _OF_NEXT, _OF_ALL = b"L", b"K", b"x", b"g"
_DESCRIBING = (_LONG_NAME, _LONG_LINK, _OF_NEXT, _OF_ALL)
_FILE, _LINK, _SYMLINK, _FOLDER, _SPARSE = (b"0", b"\0", b"7"), b"1", b"2", b"5", b"S"


class TarError(ValueError):
    """A tar file that is damaged, or made to do harm."""


class _Entry(NamedTuple):
    name: str
    kind: bytes
    offset: int
    size: int
    target: str  # of a link
    sparse: bool


def is_tar(beginning: bytes) -> bool:
    """Whether a file begins as a tar file does."""
    return len(beginning) >= BLOCK and beginning[257:262] == b"ustar" and _checksum_fits(beginning[:BLOCK])


def tar_tree(path: Path) -> MembersTree:
    """The files in a tar file. Raises RunError, OSError."""
    try:
        with opened(path) as file:
            entries = list(_entries(file, size_of(file)))
        return _tree(str(path), entries)
    except TarError as error:
        raise RunError(f"{path}: {error}.") from error


def _tree(path: str, entries: list[_Entry]) -> MembersTree:
    members: dict[str, Member] = {}
    refused: dict[str, str] = {}
    symlinks: dict[str, str] = {}
    for entry in entries:
        if entry.kind == _FOLDER:
            continue
        if entry.name in members or entry.name in refused or entry.name in symlinks:
            raise TarError(f"has two entries {entry.name!r:.200}: which is meant cannot be told. Make it anew")
        if entry.sparse or entry.kind == _SPARSE:
            refused[entry.name] = "is stored as a sparse file, without its zeros; make the tar file without --sparse"
        elif entry.kind in _FILE:
            members[entry.name] = Member(entry.name, entry.size, path, entry.offset)
        elif entry.kind == _LINK and entry.target in members:  # always to an entry before it
            members[entry.name] = members[entry.target]._replace(name=entry.name)
        elif entry.kind == _SYMLINK:
            symlinks[entry.name] = posixpath.normpath(posixpath.join(posixpath.dirname(entry.name), entry.target))
        elif entry.kind == _LINK:
            refused[entry.name] = f"is a link to {entry.target!r:.200}, which is not before it in the tar file"
        else:
            refused[entry.name] = "is no regular file"
    for name, target in symlinks.items():
        for _ in range(40):
            target = symlinks.get(target, target)
        if target in members:
            members[name] = members[target]._replace(name=name)
        else:
            refused[name] = f"is a link out of the archive, or to nothing in it ({target!r:.200})"
    folders = [entry.name for entry in entries if entry.kind == _FOLDER]
    return MembersTree(path, members.values(), refused, folders)


def _entries(file: BinaryIO, size: int) -> Iterator[_Entry]:
    position = names = count = 0
    name, target = "", ""
    common: dict[str, str] = {}
    own: dict[str, str] = {}
    while position + BLOCK <= size:
        header = _at(file, position, BLOCK)
        if header == bytes(BLOCK):
            return
        if not _checksum_fits(header):
            raise TarError(f"is damaged at byte {position:,}: a header without its checksum")
        kind, length = header[156:157], _number(header[124:136])
        known = {**common, **own}
        if kind in (_LINK, _SYMLINK, _FOLDER):
            length = 0  # whatever it says
        elif kind not in _DESCRIBING and "size" in known:
            length = _decimal(known["size"])
        position += BLOCK
        if length > size - position:
            raise TarError(
                f"is truncated: an entry of {length:,} bytes begins at byte {position:,} of {size:,}. Copy it again"
            )
        if kind in _DESCRIBING:
            if length > MOST_DESCRIBED:
                raise TarError(f"describes an entry in {length:,} bytes; expected {MOST_DESCRIBED:,} at most")
            data = _at(file, position, length)
            if kind == _LONG_NAME:
                name = _text(data)
            elif kind == _LONG_LINK:
                target = _text(data)
            else:
                (common if kind == _OF_ALL else own).update(_records(data))
        else:
            prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
            plain = known.get("path") or name or "/".join(filter(None, (prefix, _text(header[:100]))))
            to = known.get("linkpath") or target or _text(header[157:257])
            sparse = any(key.startswith("GNU.sparse.") for key in known)
            kind = _FOLDER if plain.endswith("/") else kind
            entry = _Entry(_clean(plain), kind, position, length, _clean_link(kind, to), sparse)
            names, count = names + len(entry.name) + len(entry.target), count + 1
            if count > MOST_ENTRIES or names > MOST_NAMES:
                raise TarError(f"has more than {MOST_ENTRIES:,} entries, or {MOST_NAMES:,} bytes of names")
            if entry.name:
                yield entry
            name, target, own = "", "", {}
        position += -(-length // BLOCK) * BLOCK
    raise TarError("has no end, so it is truncated. Copy it again")


def _at(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    data = file.read(length)
    if len(data) < length:
        raise TarError("ends too early. Copy it again")
    return data


def _checksum_fits(header: bytes) -> bool:
    """Of all bytes, with blanks in its own place."""
    try:
        said = _number(header[148:156])
    except TarError:
        return False
    return said == sum(header[:148]) + 8 * 32 + sum(header[156:])


def _number(field: bytes) -> int:
    """In octal digits, or, with the first bit set, in binary. Raises TarError."""
    if field[0] & 0x80:
        if field[0] & 0x40:
            raise TarError("holds an entry of negative size")
        return int.from_bytes(bytes([field[0] & 0x3F]) + field[1:], "big")
    digits = field.strip(b" \0")
    if not digits:
        return 0
    if not digits.isdigit() or b"8" in digits or b"9" in digits:
        raise TarError(f"holds a number {digits!r:.40} that is none")
    return int(digits, 8)


def _decimal(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise TarError(f"holds a size {text!r:.40} that is none")
    return int(text)


def _records(data: bytes) -> Iterator[tuple[str, str]]:
    """Of a pax header: "LENGTH KEY=VALUE\\n", LENGTH that of the whole record."""
    position = 0
    while position < len(data) and data[position]:
        digits = data[position : position + 10].partition(b" ")[0]
        if not digits.isdigit():
            raise TarError("has a damaged pax header")
        end = position + int(digits)
        record = data[position + len(digits) + 1 : end]
        if end > len(data) or not record.endswith(b"\n"):
            raise TarError("has a damaged pax header")
        key, _, value = record[:-1].partition(b"=")
        yield key.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape")
        position = end


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _clean(name: str) -> str:
    """Without what stands for the folder itself. Raises TarError for a name that leads out of it."""
    parts = [part for part in name.split("/") if part != "."]
    while parts and parts[-1] == "":
        parts.pop()
    cleaned = "/".join(parts)
    if cleaned and not is_plain(cleaned):
        raise TarError(f"holds an entry {name!r:.200}, whose name would lead out of it, or is none")
    return cleaned


def _clean_link(kind: bytes, target: str) -> str:
    """A link to an entry by its cleaned name; one to a path as it is."""
    return _clean(target) if kind == _LINK else target
