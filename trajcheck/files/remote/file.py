"""One file of a source. Small reads go by blocks, which are kept for a while: headers are read in many small pieces.

Files of one name in several folders are the same part of several steps: where the beginning of one is read, that of
all others is about to be, and they are asked for together.
"""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from threading import Lock
from typing import NamedTuple

from trajcheck.errors import RunError, StepFileError
from trajcheck.files.remote.address import as_address, is_remote
from trajcheck.files.remote.ranges import Source, at_once

#: What a print begins with that is a hash of the bytes.
HASHES = ("sha256:", "git:")

#: Bytes of a block, and how many are kept.
BLOCK, MOST_BLOCKS = 32_768, 2048
#: Files whose beginnings are asked for together.
_TOGETHER = MOST_BLOCKS // 2


class RemoteFile(NamedTuple):
    """`path` is its address and stands for it everywhere, `key` what its source calls it. `print` tells one content
    from another: its hash, or what the server says; `sha256` is that of its bytes, in hex, where a listing says it."""

    path: str
    key: str
    size: int
    print: str
    source: Source
    sha256: str | None = None

    def read(self, start: int, length: int) -> bytes:
        """Bytes from `start` on, fewer where the file ends. Raises StepFileError."""
        length = max(0, min(length, self.size - start))
        if length >= BLOCK:
            return self.fetch(start, length)
        if not length:
            return b""
        first, last = start // BLOCK, (start + length - 1) // BLOCK
        if first == 0 and _blocks.get(self.path, 0) is None:
            _fetch_beginnings(self)
        data = b"".join(self._block(number) for number in range(first, last + 1))
        return data[start - first * BLOCK :][:length]

    def fetch(self, start: int, length: int) -> bytes:
        """Bytes that the file has, past the blocks. Raises StepFileError."""
        return self.source.range(self.key, self.path, self.size, start, length)

    def _block(self, number: int) -> bytes:
        found = _blocks.get(self.path, number)
        if found is None:
            start = number * BLOCK
            found = self.fetch(start, min(BLOCK, self.size - start))
            _blocks.keep(self.path, number, found)
        return found


class _Blocks:
    """Those that were read last."""

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._lock = Lock()

    def get(self, path: str, number: int) -> bytes | None:
        with self._lock:
            if (path, number) in self._held:
                self._held.move_to_end((path, number))
            return self._held.get((path, number))

    def keep(self, path: str, number: int, data: bytes) -> None:
        with self._lock:
            self._held[path, number] = data
            while len(self._held) > MOST_BLOCKS:
                self._held.popitem(last=False)

    def forget(self) -> None:
        with self._lock:
            self._held.clear()


_blocks = _Blocks()
_known: dict[str, RemoteFile] = {}
_beside: dict[str, list[RemoteFile]] = {}  # those of one source and one name
_begun: set[str] = set()  # whose beginnings were asked for


def know(files: Iterable[RemoteFile]) -> None:
    """From now on these files are read by their addresses. Raises StepFileError for one that was another before."""
    for each in files:
        known = _known.get(each.path)
        if known is not None and (known.size, known.print) != (each.size, each.print):
            raise StepFileError(f"{each.path}: was changed during the analysis. Begin again.")
        if known is None:
            _known[each.path] = each
            _beside.setdefault(_beside_key(each), []).append(each)


def forget() -> None:
    """As if nothing had been listed or read yet."""
    _known.clear()
    _beside.clear()
    _begun.clear()
    _blocks.forget()


def remote_file(path: str | os.PathLike[str]) -> RemoteFile | None:
    """The file at an address that was listed; None for a path of this machine. Raises FileNotFoundError."""
    if not is_remote(path):
        return None
    found = _known.get(as_address(path))
    if found is None:
        raise FileNotFoundError(2, "not in a listing that was read", os.fspath(path))
    return found


def fetch_pieces(pieces: Sequence[tuple[str, int, int]]) -> None:
    """Bring pieces (address, start, length) into the blocks, as many at once as fit: whoever reads them next finds them
    there. Larger ones, and paths of this machine, are left out. Raises RunError."""
    wanted: dict[tuple[str, int], RemoteFile] = {}
    for path, start, length in pieces:
        if (file := remote_file(path)) is not None and 0 < length < BLOCK:
            for number in range(start // BLOCK, (start + length - 1) // BLOCK + 1):
                if _blocks.get(file.path, number) is None:
                    wanted[file.path, number] = file
    some = list(wanted.items())[: MOST_BLOCKS // 2]
    at_once(lambda each: each[1]._block(each[0][1]), some)


def _fetch_beginnings(one: RemoteFile) -> None:
    key = _beside_key(one)
    if key not in _begun:
        _begun.add(key)
        at_once(_beginning, [each for each in _beside.get(key, ()) if each.size][:_TOGETHER])


def _beginning(file: RemoteFile) -> None:
    try:
        file._block(0)
    except RunError:  # which the reading of the very file says
        return


def _beside_key(file: RemoteFile) -> str:
    return f"{id(file.source)}/{file.path.rpartition('/')[2]}"


class OpenRemote(io.RawIOBase):
    """A remote file as an open one."""

    def __init__(self, file: RemoteFile) -> None:
        self._file, self._place = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = 0) -> int:
        self._place = max(0, offset + (0, self._place, self._file.size)[whence])
        return self._place

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        view = memoryview(buffer).cast("B")
        try:
            data = self._file.read(self._place, len(view))
        except StepFileError as error:
            raise OSError(5, str(error).removeprefix(f"{self._file.path}: cannot be read: ")) from error
        view[: len(data)] = data
        self._place += len(data)
        return len(data)
