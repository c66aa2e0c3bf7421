"""The files at an address, listed once by a process."""

from __future__ import annotations

import os
from functools import lru_cache

from trajcheck.files.remote.address import as_address
from trajcheck.files.remote.file import RemoteFile, know
from trajcheck.files.remote.hub import Listed, hub_files
from trajcheck.files.remote.others import stored_files
from trajcheck.files.remote.web import WebSource, web_file


def listed_at(path: str | os.PathLike[str]) -> tuple[Listed, ...]:
    """The files at an address; one of the name "" where it is that of a file. Raises RunError."""
    return _listed_at(as_address(path))


@lru_cache(maxsize=64)
def _listed_at(address: str) -> tuple[Listed, ...]:
    scheme = address.partition("://")[0]
    if scheme == "hf":
        found = hub_files(address)
    elif scheme in ("http", "https"):
        size, mark = web_file(address)
        found = [Listed("", RemoteFile(address, address, size, mark, WebSource()))]
    else:
        found = stored_files(address)
    know(each.file for each in found)
    return tuple(found)


def forget_listings() -> None:
    """List anew what is asked for next."""
    _listed_at.cache_clear()
