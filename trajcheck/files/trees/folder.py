"""A folder of this machine as a tree: links within it are followed, those that lead out of it are refused."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from trajcheck.errors import StepFileError
from trajcheck.files.trees.tree import Member, Tree, is_plain, join


class FolderTree(Tree):
    """A folder that somebody has named, through whatever links; in it none is followed out of it."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._real = os.path.realpath(path)
        self._listed: dict[str, tuple[list[str], list[str]]] = {}

    def folders(self, folder: str = "") -> list[str]:
        return self._entries(folder)[0]

    def files(self, folder: str = "") -> list[str]:
        return self._entries(folder)[1]

    def member(self, name: str) -> Member:
        path = self._inside(name)
        try:
            found = os.stat(path)
        except OSError as error:
            raise StepFileError(f"{self.shown(name)}: cannot be read: {error.strerror}.") from error
        if not stat.S_ISREG(found.st_mode):
            raise StepFileError(f"{self.shown(name)}: not a regular file.")
        return Member(name, found.st_size, path)

    def _entries(self, folder: str) -> tuple[list[str], list[str]]:
        if folder not in self._listed:
            folders: list[str] = []
            files: list[str] = []
            path = self._inside(folder) if folder else self.root
            try:
                with os.scandir(path) as entries:
                    for entry in entries:
                        (folders if _is_folder(entry) else files).append(entry.name)
            except (FileNotFoundError, NotADirectoryError):
                pass
            except OSError as error:
                raise StepFileError(f"{path}: cannot be read: {error.strerror}.") from error
            self._listed[folder] = sorted(folders), sorted(files)
        return self._listed[folder]

    def _inside(self, name: str) -> str:
        """The path of a name. Raises StepFileError where it leads out of the folder."""
        if not is_plain(name):
            raise StepFileError(f"{self.root}: {name!r:.200} is no name of a file in it.")
        path = join(self.root, name)
        try:
            real = os.path.realpath(path)
        except (OSError, ValueError) as error:
            raise StepFileError(f"{path}: cannot be read: {error}.") from error
        if real != self._real and not real.startswith(self._real.rstrip("/") + "/"):
            raise StepFileError(
                f"{path}: is a link out of the archive, to {real}, and is not followed. Copy what it means into the "
                "folder, or give the folder that it lies in."
            )
        return path


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
