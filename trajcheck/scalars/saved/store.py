"""The records that lie beside a report."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from trajcheck.errors import OutputError
from trajcheck.files.folders import OpenFolder
from trajcheck.files.opening import MOST_NUMBERS
from trajcheck.scalars.saved import INTERVAL
from trajcheck.scalars.saved.encoding import DamagedError, decode, encode, name_of
from trajcheck.scalars.saved.record import Need, Record

_RECORDS = re.compile(r"[0-9a-f]{32}\.safetensors")
_VECTOR = re.compile(r"(mean|permuted|weights)-[0-9a-f]{16}-[0-9a-f]{32}\.safetensors")


class ScalarStore:
    """Records by key, in memory and, unless `folder` is None, in files of a folder that is made when it is needed.

    Files are written whole or not at all, and never changed; those that are damaged are left out, and removed by
    `tidy`. A file that another process adds meanwhile is not seen. `fresh`: what was saved before is not used, vectors
    neither, and removed as soon as there is something new. Nothing is removed while another process is at work there:
    `alone` says whether there is none. A link in the folder's place is an OutputError.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        fresh: bool = False,
        interval: float = INTERVAL,
        alone: Callable[[], bool] = lambda: True,
    ) -> None:
        self.folder, self.interval, self._alone = folder, interval, alone
        self._records: dict[bytes, Record] = {}
        self._waiting: dict[bytes, Record] = {}
        self._since: float | None = None
        self._files: set[str] = set()
        self._used: set[bytes] = set()
        self._vectors: set[str] = set()
        self._stale: set[str] = set()
        self._as_read: Callable[[], bool] = lambda: True
        with suppress(FileNotFoundError), self._opened() as there:
            for name in there.names():
                if fresh and _VECTOR.fullmatch(name):
                    self._remove([name])
                elif fresh and _RECORDS.fullmatch(name):
                    self._stale.add(name)
                elif _RECORDS.fullmatch(name):
                    self._files.add(name)
                    for key, record in _load(there, name).items():
                        self._join(key, record)

    def get(self, need: Need) -> Record | None:
        """The record that is needed, if all of it is there."""
        record = self._records.get(need.key)
        return record if record is not None and record.has(need.fields, need.by_tensor) else None

    def use(self, need: Need) -> Record:
        """The record that is needed, all of which is there (or it is a bug); `tidy` keeps it."""
        record = self.get(need)
        assert record is not None, need
        self._used.add(need.key)
        return record

    def add(self, records: Mapping[bytes, Record]) -> None:
        """Take records; they are in a file within `interval` seconds of work. Raises OutputError."""
        for key, record in records.items():
            self._waiting[key] = self._join(key, record)
        if self._since is None:
            self._since = time.monotonic()
        if time.monotonic() - self._since >= self.interval:
            self.flush()

    def watch(self, as_read: Callable[[], bool]) -> None:
        """From now on nothing is written, or handed on, that was made of files for which `as_read` is False by then:
        they are no longer what the keys of the records say."""
        self._as_read = as_read

    def flush(self) -> None:
        """Write what is waiting. Raises OutputError."""
        if self._waiting and self.folder is not None and self._as_read():
            self._files.add(self._write(self._waiting))
            self._remove(self._stale - self._files)
            self._stale = set()
        self._waiting, self._since = {}, None

    def waiting(self) -> bytes:
        """The bytes of a file of the records that are not in one yet; empty where there are none."""
        return encode(self._waiting) if self._waiting and self._as_read() else b""

    def use_vectors(self, names: Iterable[str]) -> None:
        """Files of references that were averaged or permuted, which `tidy` keeps."""
        self._vectors.update(names)

    def abandon(self) -> None:
        """Leave no folder behind where nothing was saved in it."""
        if self.folder is not None and not self._files and self.folder.is_dir():
            self._remove(self._vectors)
            with suppress(OSError):
                self.folder.rmdir()

    def tidy(self) -> None:
        """Put what was used into one file, and remove the others, damaged files, and vectors that were not used.

        What was not used stays as long as it is no more than what was: other options may ask for it. Raises
        OutputError.
        """
        self.flush()
        if self.folder is None or not self.folder.is_dir() or not self._alone() or not self._as_read():
            return
        unused = self._records.keys() - self._used
        kept = self._records
        if len(unused) > len(self._used):
            kept = {key: record for key, record in self._records.items() if key in self._used}
        if len(self._files) != 1 or kept is not self._records:
            whole = {self._write(kept)} if kept else set()
            self._remove(self._files - whole)
            self._files = whole
        with self._opened() as there:
            there.remove_leftovers()
            self._remove(name for name in there.names() if _VECTOR.fullmatch(name) and name not in self._vectors)

    def _join(self, key: bytes, record: Record) -> Record:
        known = self._records.get(key)
        self._records[key] = record if known is None else known.joined(record)
        return self._records[key]

    def _write(self, records: Mapping[bytes, Record]) -> str:
        assert self.folder is not None
        return save(self.folder, encode(records))

    def _opened(self) -> OpenFolder:
        """The folder. Raises OutputError where a link or a file lies in its place, FileNotFoundError."""
        try:
            if self.folder is None:
                raise FileNotFoundError
            return OpenFolder.within(self.folder)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise OutputError(f"{self.folder}: scalars cannot be kept there: {error.strerror}.") from error

    def _remove(self, names: Iterable[str]) -> None:
        """Remove files, unless another process is at work here."""
        try:
            with suppress(FileNotFoundError), self._opened() as there:
                for name in names if self._alone() else ():
                    there.remove(name)
        except OSError as error:
            raise OutputError(f"{self.folder}: {error.filename} cannot be removed: {error.strerror}.") from error


def save(folder: Path, data: bytes) -> str:
    """Write a file of records into a store's folder, which is made if need be; its name. Raises OutputError."""
    name = name_of(data)
    try:
        with OpenFolder.within(folder, make=True) as there:
            if not there.holds(name):
                there.write(name, [data])
    except OSError as error:
        raise OutputError(f"{folder}: scalars cannot be saved: {error.strerror}.") from error
    return name


def forget(folder: Path) -> None:
    """Remove what is saved in a store's folder, and the folder; what is not ours stays."""
    with suppress(OSError):
        with OpenFolder.within(folder) as there:
            for name in there.names():
                if _RECORDS.fullmatch(name) or _VECTOR.fullmatch(name):
                    there.remove(name, quietly=True)
            there.remove_leftovers()
        os.rmdir(folder)


def _load(folder: OpenFolder, name: str) -> Mapping[bytes, Record]:
    """The records of a file; none of one that cannot be read or is not what its name says."""
    try:
        data = folder.read(name, MOST_NUMBERS)
        return decode(data) if name_of(data) == name else {}
    except (OSError, DamagedError, MemoryError):
        return {}
