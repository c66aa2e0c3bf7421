"""The one way to open a file for reading, whoever has put it there, and wherever it lies.

A pipe, a socket or a device at a file's name is refused, and never waited for: the file is opened without blocking,
what was opened is looked at through its descriptor, and this same descriptor is read. So nothing that takes the name's
place in between is believed to be what was looked at. A file that is read whole has a size that is known beforehand: a
sparse one of 64 GB costs nothing.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from trajcheck.files.plain_json import parse_json
from trajcheck.files.remote.file import BLOCK, OpenRemote, remote_file

#: Bytes of a text, a table or a JSON file that is read whole. The run.json of a model of 100,000 tensors has 20 MB.
MOST_TEXT = 100_000_000
#: Bytes of a file of many numbers that is read whole: a report's table, saved scalars.
MOST_NUMBERS = 4_000_000_000

_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


class NotRegularError(OSError):
    """What lies there is a pipe, a socket, a device or a folder."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(errno.EINVAL, "not a regular file", os.fspath(path))


class TooLargeError(OSError):
    """A file that is to be read whole has more bytes than any that trajcheck writes."""

    def __init__(self, path: str | os.PathLike[str], size: int, most: int) -> None:
        super().__init__(errno.EFBIG, f"{size:,} bytes, and expected are {most:,} at most", os.fspath(path))


def open_regular(path: str | bytes | os.PathLike[str], *, folder: int | None = None, follow: bool = True) -> int:
    """A descriptor of a regular file, for reading. `folder`: the descriptor of the folder that `path` is a name in.
    Raises OSError: NotRegularError for anything else, ELOOP for a link where `follow` is False."""
    flags = _FLAGS if follow else _FLAGS | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket, or a device that is not there
            raise NotRegularError(os.fsdecode(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegularError(os.fsdecode(path))
    return descriptor


@contextmanager
def opened(path: str | os.PathLike[str], *, folder: int | None = None, follow: bool = True) -> Iterator[BinaryIO]:
    """A regular file, or a remote one, open for reading while the context lasts; only the former has a descriptor.
    Raises as `open_regular`."""
    if folder is None and (remote := remote_file(path)) is not None:
        with io.BufferedReader(OpenRemote(remote), BLOCK) as there:
            yield there
        return
    with os.fdopen(open_regular(path, folder=folder, follow=follow), "rb") as file:
        yield file


def size_of(file: BinaryIO) -> int:
    """The bytes of an open file."""
    place = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(place)
    return size


def read_bytes(
    path: str | os.PathLike[str], most: int = MOST_TEXT, *, folder: int | None = None, follow: bool = True
) -> bytes:
    """The bytes of a regular file of at most `most`. Raises OSError: NotRegularError, TooLargeError."""
    with opened(path, folder=folder, follow=follow) as file:
        size = size_of(file)
        if size > most:
            raise TooLargeError(path, size, most)
        data = file.read(size + 1)
        if len(data) > size:  # it has grown meanwhile
            data += file.read(most + 1 - len(data))
    if len(data) > most:
        raise TooLargeError(path, len(data), most)
    return data


def read_text(path: str | os.PathLike[str], most: int = MOST_TEXT, *, errors: str = "strict") -> str:
    """The text of a file in UTF-8, of at most `most` bytes. Raises OSError, UnicodeDecodeError (a ValueError)."""
    return read_bytes(path, most).decode("utf-8", errors)


def read_json(path: str | os.PathLike[str], most: int = MOST_TEXT) -> Any:
    """The value of a JSON file of at most `most` bytes. Raises OSError, ValueError."""
    return parse_json(read_text(path, most))


def same_path(descriptor: int, path: str | Path) -> str:
    """A path that opens the very file of a descriptor again, for libraries that take paths alone; `path` where the
    system has none."""
    for place in (f"/proc/self/fd/{descriptor}", f"/dev/fd/{descriptor}"):
        try:
            if os.path.samestat(os.stat(place), os.fstat(descriptor)):
                return place
        except OSError:
            continue
    return str(path)
