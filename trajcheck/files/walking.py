"""Folders below a folder, however deep: without recursion, and without following links."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path


def walk(
    root: str | Path, unreadable: Callable[[OSError], object] | None = None
) -> Iterator[tuple[str, list[str], list[str]]]:
    """As os.walk from above, which calls itself for each level up to Python 3.11: every folder with the names of the
    folders and of the other entries in it, both in order. What is removed from the folders is not looked into. A folder
    that cannot be read is left out, after `unreadable` was told."""
    waiting = [os.fspath(root)]
    while waiting:
        place = waiting.pop()
        folders: list[str] = []
        others: list[str] = []
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    (folders if entry.is_dir(follow_symlinks=False) else others).append(entry.name)
        except OSError as error:
            if unreadable is not None:
                unreadable(error)
            continue
        folders.sort()
        others.sort()
        yield place, folders, others
        waiting += [os.path.join(place, name) for name in reversed(folders)]


def make_folders(path: Path, made: list[Path] | None = None) -> None:
    """Make a folder and those above it that are not there, which are added to `made`, the outermost first. Unlike
    Path.mkdir(parents=True) it does not call itself for each level. Raises OSError, FileExistsError for a file."""
    missing = []
    for folder in (path, *path.parents):
        if folder.is_dir():
            break
        missing.append(folder)
    for folder in reversed(missing):
        try:
            folder.mkdir()
            if made is not None:
                made.append(folder)
        except FileExistsError:  # another process has made it meanwhile
            if not folder.is_dir():
                raise
