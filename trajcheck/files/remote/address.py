"""Addresses of files that are not on this machine."""

from __future__ import annotations

import os
import re
from pathlib import Path, PosixPath

#: What stands before "://".
SCHEMES = ("hf", "http", "https", "s3", "gs", "gcs", "az", "abfs", "sftp", "memory")
_ADDRESS = re.compile(rf"({'|'.join(SCHEMES)}):/{{1,2}}(?=[^/])")


class RemotePath(PosixPath):
    """An address where a path is expected: it is shown as it was given, and no file of this machine lies there."""

    def __str__(self) -> str:
        return as_address(super().__str__())

    def __fspath__(self) -> str:
        return str(self)


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path is an address. One slash is enough, as pathlib leaves it; a folder of this machine that is called
    `hf:` is given as ./hf:"""
    return _ADDRESS.match(os.fspath(path)) is not None


def as_address(path: str | os.PathLike[str]) -> str:
    """With both slashes; any other path as it is."""
    return _ADDRESS.sub(r"\1://", os.fspath(path), count=1)


def as_path(path: str | os.PathLike[str]) -> Path:
    """A path, or an address as one."""
    return RemotePath(path) if is_remote(path) else Path(path)


def folder_name(path: str | os.PathLike[str]) -> str:
    """What a report about an address is called: what it names, without what names of folders should not hold."""
    rest = as_address(path).partition("://")[2].partition("?")[0]
    parts = (re.sub(r"[^\w.@=+-]+", "-", part).strip("-.") for part in rest.split("/"))
    return "--".join(filter(None, parts))[:200] or "remote"
