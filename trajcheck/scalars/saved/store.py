"""The records that lie beside a report."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from trajcheck.errors import OutputError
from trajcheck.files.whole_files import TEMPORARY, write_bytes
from trajcheck.scalars.saved import INTERVAL
from trajcheck.scalars.saved.encoding import DamagedError, decode, encode, name_of
from trajcheck.scalars.saved.record import Need, Record

_RECORDS = re.compile(r"[0-9a-f]{32}\.safetensors")
_VECTOR = re.compile(r"(mean|permuted|weights)-[0-9a-f]{16}-[0-9a-f]{8}\.safetensors")


class ScalarStore:
    """Records by key, in memory and, unless `folder` is None, in files of a folder that is made when it is needed.

    Files are written whole or not at all, and never changed; those that are damaged are left out, and removed by
    `tidy`. A file that another process adds meanwhile is not seen. `fresh`: what was saved before is not used, vectors
    neither, and removed as soon as there is something new.
    """

    def __init__(self, folder: Path | None = None, *, fresh: bool = False, interval: float = INTERVAL) -> None:
        self.folder, self.interval = folder, interval
        self._records: dict[bytes, Record] = {}
        self._waiting: dict[bytes, Record] = {}
        self._since: float | None = None
        self._files: set[Path] = set()
        self._used: set[bytes] = set()
        self._vectors: set[str] = set()
        self._stale: set[Path] = set()
        for path in sorted(folder.iterdir()) if folder is not None and folder.is_dir() else ():
            if fresh and _VECTOR.fullmatch(path.name):
                self._remove([path])
            elif fresh and _RECORDS.fullmatch(path.name):
                self._stale.add(path)
            elif _RECORDS.fullmatch(path.name):
                self._files.add(path)
                for key, record in _load(path).items():
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

    def flush(self) -> None:
        """Write what is waiting. Raises OutputError."""
        if self._waiting and self.folder is not None:
            self._files.add(self._write(self._waiting))
            self._remove(self._stale - self._files)
            self._stale = set()
        self._waiting, self._since = {}, None

    def waiting(self) -> bytes:
        """The bytes of a file of the records that are not in one yet; empty where there are none."""
        return encode(self._waiting) if self._waiting else b""

    def use_vectors(self, names: Iterable[str]) -> None:
        """Files of references that were averaged or permuted, which `tidy` keeps."""
        self._vectors.update(names)

    def abandon(self) -> None:
        """Leave no folder behind where nothing was saved in it."""
        if self.folder is not None and not self._files and self.folder.is_dir():
            self._remove(self.folder / name for name in self._vectors)
            with suppress(OSError):
                self.folder.rmdir()

    def tidy(self) -> None:
        """Put what was used into one file, and remove the others, damaged files, and vectors that were not used.

        What was not used stays as long as it is no more than what was: other options may ask for it. Raises
        OutputError.
        """
        self.flush()
        if self.folder is None or not self.folder.is_dir():
            return
        unused = self._records.keys() - self._used
        kept = self._records
        if len(unused) > len(self._used):
            kept = {key: record for key, record in self._records.items() if key in self._used}
        if len(self._files) != 1 or kept is not self._records:
            whole = {self._write(kept)} if kept else set()
            self._remove(self._files - whole)
            self._files = whole
        remains = [path for path in self.folder.iterdir() if path.name.endswith(TEMPORARY) and _old(path)]
        old = [
            path for path in self.folder.iterdir() if _VECTOR.fullmatch(path.name) and path.name not in self._vectors
        ]
        self._remove([*remains, *old])

    def _join(self, key: bytes, record: Record) -> Record:
        known = self._records.get(key)
        self._records[key] = record if known is None else known.joined(record)
        return self._records[key]

    def _write(self, records: Mapping[bytes, Record]) -> Path:
        assert self.folder is not None
        return save(self.folder, encode(records))

    def _remove(self, paths: Iterable[Path]) -> None:
        for path in paths:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise OutputError(f"{path}: cannot be removed: {error.strerror}.") from error


def save(folder: Path, data: bytes) -> Path:
    """Write a file of records into a store's folder, which is made if need be. Raises OutputError."""
    path = folder / name_of(data)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            write_bytes(path, data)
    except OSError as error:
        raise OutputError(f"{path}: scalars cannot be saved: {error.strerror}.") from error
    return path


def _load(path: Path) -> Mapping[bytes, Record]:
    """The records of a file; none of one that cannot be read or is not what its name says."""
    try:
        data = path.read_bytes()
        return decode(data) if name_of(data) == path.name else {}
    except (OSError, DamagedError):
        return {}


def _old(path: Path) -> bool:
    """Whether nobody can be writing a temporary file any more."""
    try:
        return time.time() - path.stat().st_mtime > 3600
    except OSError:
        return False
