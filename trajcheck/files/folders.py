"""A folder that is written into, by its descriptor: no name in it is followed to another place.

Files are there whole or not at all: written beside their place under a name that nobody can tell beforehand, made
anew (O_EXCL, never through a link), synced, and renamed. Nothing that stands is opened for writing or truncated. A file
that replaces another has its rights, a new one those of its folder, as far as the umask leaves them. A link in the
place of a folder is refused.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TextIO

from trajcheck.files.leftovers import SILENT, WORK, is_leftover, meant_name, temporary_name
from trajcheck.files.opening import MOST_TEXT, NotRegularError, read_bytes
from trajcheck.files.walking import make_folders

Block = bytes | memoryview


class LinkError(OSError):
    """A link lies where a folder, or a file of ours, should."""

    def __init__(self, path: str) -> None:
        super().__init__(errno.ELOOP, "is a link, which is not followed when something is written", path)


class OpenFolder:
    """`path` is for messages, and for those who only read. A context, which closes it."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self.descriptor, self.path = descriptor, path

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> OpenFolder:
        """The folder that somebody has named, through whatever links. Raises OSError."""
        return cls(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), Path(path))

    @classmethod
    def within(cls, path: Path, *, make: bool = False) -> OpenFolder:
        """A folder that is part of what trajcheck writes, in one that somebody has named: itself it may be no link.
        `make`: it and those above it where they are not there. Raises OSError as `inner`."""
        if make:
            make_folders(path.parent)
        with cls.at(path.parent) as above:
            return above.inner(path.name, make=make)

    def inner(self, name: str, *, make: bool = False) -> OpenFolder:
        """A folder in this one. `make`: with the rights of this one where it is not there. Raises OSError: LinkError,
        FileNotFoundError, NotADirectoryError."""
        if make:
            with suppress(FileExistsError):
                os.mkdir(name, stat.S_IMODE(os.fstat(self.descriptor).st_mode) & 0o777, dir_fd=self.descriptor)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return OpenFolder(os.open(name, flags, dir_fd=self.descriptor), self.path / name)
        except OSError as error:
            found = self.status(name)
            if found is not None and stat.S_ISLNK(found.st_mode):
                raise LinkError(str(self.path / name)) from error
            raise

    def __enter__(self) -> OpenFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    # -- what is in it ------------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """What is in it, in order. Raises OSError."""
        return sorted(os.listdir(self.descriptor))

    def status(self, name: str) -> os.stat_result | None:
        """Of an entry itself, not of what it links to; None where there is none."""
        try:
            return os.lstat(name, dir_fd=self.descriptor)
        except OSError:
            return None

    def holds(self, name: str) -> bool:
        """Whether there is a regular file, and no link, of a name."""
        found = self.status(name)
        return found is not None and stat.S_ISREG(found.st_mode)

    def read(self, name: str, most: int = MOST_TEXT) -> bytes:
        """The bytes of a regular file in it that is no link. Raises OSError."""
        return read_bytes(name, most, folder=self.descriptor, follow=False)

    # -- what changes it ----------------------------------------------------------------------------------------------

    def write(self, name: str, blocks: Iterable[Block]) -> None:
        """Write a file whole or not at all. Raises OSError; nothing is then left under either name."""
        with self.staged(name) as file:
            file.write(blocks)
            file.publish()
        self.sync()

    def staged(self, name: str) -> StagedFile:
        """A file that is to be called `name`, under another name. Raises OSError."""
        return StagedFile(self, name)

    def remove(self, name: str, *, quietly: bool = False) -> None:
        """Remove an entry that is no folder, if it is there. Raises OSError, unless it is to be done `quietly`."""
        try:
            os.unlink(name, dir_fd=self.descriptor)
        except FileNotFoundError:
            pass
        except OSError:
            if not quietly:
                raise

    def work_folder(self) -> OpenFolder:
        """A new folder in it for this process alone, of a name that nobody can tell beforehand; its maker removes it.
        Raises OSError."""
        name = temporary_name(WORK)
        os.mkdir(name, 0o700, dir_fd=self.descriptor)
        return self.inner(name)

    def remove_folder(self, name: str) -> None:
        """Remove a folder that holds files alone, with them; what cannot be removed stays."""
        with suppress(OSError):
            with self.inner(name) as folder:
                for each in folder.names():
                    folder.remove(each, quietly=True)
            os.rmdir(name, dir_fd=self.descriptor)

    def remove_leftovers(self, silent: float = SILENT) -> None:
        """Remove what processes that are gone have left in it (leftovers.py); what cannot be removed stays."""
        for name in self.names():
            if is_leftover(self.descriptor, name, silent):
                self.remove_folder(name) if meant_name(name) == WORK else self.remove(name, quietly=True)

    def move(self, name: str, to: OpenFolder, called: str) -> None:
        """Move an entry into another folder, or give it another name. Raises OSError."""
        os.replace(name, called, src_dir_fd=self.descriptor, dst_dir_fd=to.descriptor)

    def sync(self) -> None:
        """Make renames and removals durable. Raises OSError."""
        os.fsync(self.descriptor)


class StagedFile:
    """A file on its way into a folder. A context: what was not published by its end is removed."""

    def __init__(self, folder: OpenFolder, name: str) -> None:
        self._folder, self.name, self.temporary = folder, name, temporary_name(name)
        replaced = folder.status(name)
        keep = replaced is not None and stat.S_ISREG(replaced.st_mode)
        rights = os.fstat(folder.descriptor).st_mode if replaced is None or not keep else replaced.st_mode
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = None
        try:
            descriptor = os.open(self.temporary, flags, rights & 0o666, dir_fd=folder.descriptor)
            self._file = os.fdopen(descriptor, "wb")
            if replaced is not None and keep:
                self._keep_rights(descriptor, replaced)
        except BaseException:
            self.discard()
            raise

    @staticmethod
    def _keep_rights(descriptor: int, replaced: os.stat_result) -> None:
        """Those of the file that is replaced; its group too, where that may be given."""
        own = os.fstat(descriptor)
        with suppress(OSError):
            if own.st_gid != replaced.st_gid:
                os.fchown(descriptor, -1, replaced.st_gid)
        with suppress(OSError):
            if stat.S_IMODE(own.st_mode) != stat.S_IMODE(replaced.st_mode):
                os.fchmod(descriptor, stat.S_IMODE(replaced.st_mode) & 0o777)

    def __enter__(self) -> StagedFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    @property
    def descriptor(self) -> int:
        """For reading what was written."""
        assert self._file is not None
        return self._file.fileno()

    def write(self, blocks: Iterable[Block]) -> None:
        """Write blocks one after the other, and see that they are on the disk. Raises OSError."""
        assert self._file is not None
        for block in blocks:
            self._file.write(block)
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let go of the descriptor of a file that is written to its end."""
        if self._file is not None:
            self._file.close()

    def publish(self, name: str | None = None) -> None:
        """Give it its name, or another one; what has that is replaced. The folder is not synced. Raises OSError."""
        if name is not None:
            self.name = name
        self._folder.move(self.temporary, self._folder, self.name)
        self.temporary = ""

    def discard(self) -> None:
        """Close it, and remove it unless it was published."""
        try:
            if self._file is not None:
                self._file.close()
        except OSError:  # what could not be written is written once more at the closing
            pass
        finally:
            if self.temporary:
                self._folder.remove(self.temporary, quietly=True)
                self.temporary = ""


def open_log(path: Path) -> TextIO:
    """A text file that lines are added to: a regular file that is no link, made if need be, or one of the system's
    devices, as /dev/stderr. Raises OSError: LinkError for a link, NotRegularError for a pipe and the like."""
    flags = os.O_WRONLY | os.O_APPEND
    if str(path).startswith("/dev/"):
        descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOCTTY)
    else:
        descriptor = open_in_place(path, flags | os.O_CREAT)
    return io.TextIOWrapper(os.fdopen(descriptor, "ab"), encoding="utf-8", errors="backslashreplace")


def open_in_place(path: Path, flags: int) -> int:
    """A descriptor of a regular file that is no link, to be written where it lies; O_CREAT among `flags` makes it if
    need be. Raises OSError: LinkError for a link, NotRegularError for a pipe and the like."""
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOCTTY | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP and path.is_symlink():
            raise LinkError(str(path)) from error
        if error.errno == errno.ENXIO:
            raise NotRegularError(path) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegularError(path)
    return descriptor
