"""Files of whatever storage fsspec has a filesystem for: s3 (s3fs), gs (gcsfs), az (adlfs), sftp, ..."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock
from typing import Any, TypeVar

from trajcheck.errors import RunError, StepFileError
from trajcheck.files.remote.file import RemoteFile
from trajcheck.files.remote.hub import LARGEST, MOST_FILES, Listed
from trajcheck.files.remote.ranges import AgainError, Source, tried
from trajcheck.files.remote.web import needed
from trajcheck.readable import plain

#: What tells one state of an object from another, by the names that storages have for it; and after how many seconds
#: it is looked at again.
_MARKS = ("ETag", "etag", "md5Hash", "content_md5", "generation", "LastModified", "last_modified", "mtime", "created")
LOOKED_AT = 30.0
_NEVER = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)

T = TypeVar("T")


def stored_files(address: str) -> list[Listed]:
    """The files at an address: of a folder those below it; of a file that alone, under the name "". Raises RunError."""
    core = needed("fsspec").core
    try:
        system, root = core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise RunError(f"{address}: cannot be read: {plain(error, 300)}") from error
    source = _StoredSource(system)
    found = _asked(address, lambda: system.find(root, detail=True))
    if not found:
        raise RunError(f"{address}: there is no such file, and no folder with any in it.")
    if len(found) > MOST_FILES:
        raise RunError(f"{address}: holds {len(found):,} files; expected {MOST_FILES:,} at most.")
    listed = []
    base, begin = address.rstrip("/"), root.rstrip("/") + "/"
    for key, facts in found.items():
        size = facts.get("size")
        if type(size) is not int or not 0 <= size <= LARGEST:
            raise RunError(f"{address}: the size of {key!r:.200} is not known ({size!r:.40}).")
        name = "" if key == root.rstrip("/") else key.removeprefix(begin)
        source.marks[key] = mark = _mark(facts)
        listed.append(Listed(name, RemoteFile(f"{base}/{name}" if name else base, key, size, mark, source)))
    return listed


class _StoredSource(Source):
    def __init__(self, system: Any) -> None:
        super().__init__()
        self._system = system
        self.marks: dict[str, str] = {}
        self._looked: dict[str, float] = {}
        self._lock = Lock()

    def once(self, key: str, shown: str, size: int, start: int, length: int) -> bytes:
        with self._lock:
            now = time.monotonic()
            look = now - self._looked.get(key, now) > LOOKED_AT
            if look or key not in self._looked:
                self._looked[key] = now
        if look:
            self._system.invalidate_cache()
            if _mark(_once(shown, lambda: self._system.info(key))) != self.marks[key]:
                raise RunError(f"{shown}: was changed while it was being read. Begin again.")
        data = _once(shown, lambda: self._system.cat_file(key, start=start, end=start + length))
        if len(data) > length:
            raise StepFileError(f"{shown}: the storage gives more than the {length:,} bytes it was asked for.")
        return bytes(data)


def _mark(facts: dict[str, Any]) -> str:
    return next((f"{name}:{facts[name]}"[:200] for name in _MARKS if facts.get(name)), "")


def _asked(shown: str, ask: Callable[[], T]) -> T:
    return tried(shown, lambda: _once(shown, ask))


def _once(shown: str, ask: Callable[[], T]) -> T:
    """Each storage's library has errors of its own; those that no second request mends are the system's."""
    try:
        return ask()
    except _NEVER as error:
        raise StepFileError(f"{shown}: cannot be read: {plain(error, 200)}.") from error
    except Exception as error:
        raise AgainError(plain(error, 200) or type(error).__name__) from error
