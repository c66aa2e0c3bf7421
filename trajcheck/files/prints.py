"""What tells one state of a file from another without reading it, or by reading it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from trajcheck.errors import RunError
from trajcheck.files.opening import opened
from trajcheck.files.remote.file import remote_file


def file_print(path: str | Path) -> str:
    """Name, size and time of the last change; of a remote file what its listing says of its content in the place of
    that. Raises RunError for a file that is not there."""
    try:
        if (remote := remote_file(path)) is not None:
            return f"{os.path.basename(remote.path)}:{remote.size}:{remote.print}"
        found = os.stat(path)
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}.") from error
    return f"{os.path.basename(path)}:{found.st_size}:{found.st_mtime_ns}"


def file_size(path: str | Path) -> int:
    """Bytes of a file, here or elsewhere. Raises OSError."""
    remote = remote_file(path)
    return os.path.getsize(path) if remote is None else remote.size


class FilePrints:
    """The prints of files, each taken once; `deep`: the hash of their bytes in place of the time."""

    def __init__(self, deep: bool = False) -> None:
        self.deep = deep
        self._known: dict[str, str] = {}
        self._states: dict[str, str] = {}
        self._watched: set[str] = set()  # the files that `other` looks at once more

    def of(self, path: str | Path, *, may_grow: bool = False) -> str:
        """The print of one file; `may_grow`: others may write it anew meanwhile. Raises RunError for one that cannot be
        read."""
        key = str(path)
        if key not in self._known:
            state = file_print(path)
            try:
                self._known[key] = f"{os.path.basename(key)}:{hash_file(key)}" if self.deep else state
            except OSError as error:
                raise RunError(f"{key}: cannot be read: {error.strerror}.") from error
            self._states[key] = state
        if not may_grow:
            self._watched.add(key)
        return self._known[key]

    def other(self) -> tuple[list[str], list[str]]:
        """The files that are not what they were when their prints were taken, and those that are gone: what was read of
        them since may be of either state."""
        changed, gone = [], []
        for path in sorted(self._watched):
            try:
                if file_print(path) != self._states[path]:
                    changed.append(path)
            except RunError:
                gone.append(path)
        return changed, gone


def hash_file(path: str | Path) -> str:
    """sha256:... of a file's bytes, read in parts; of a remote one as its listing says it, where it does."""
    if (remote := remote_file(path)) is not None and remote.sha256:
        return f"sha256:{remote.sha256}"
    digest = hashlib.sha256()
    with opened(path) as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return f"sha256:{digest.hexdigest()}"
