"""A tree of which a table says all: the entries of an archive, or a listing of somewhere else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from trajcheck.errors import StepFileError
from trajcheck.files.trees.tree import Member, Tree


class MembersTree(Tree):
    """Files by their names, which are plain (`is_plain`). `refused` are names that are there, and cannot be read, with
    the reason in words; `folders` those that may be empty."""

    def __init__(
        self,
        root: str,
        members: Iterable[Member],
        refused: Mapping[str, str] | None = None,
        folders: Iterable[str] = (),
    ) -> None:
        super().__init__(root)
        self._members = {member.name: member for member in members}
        self._refused = dict(refused or {})
        self._folders: dict[str, set[str]] = {"": set()}
        self._files: dict[str, set[str]] = {}
        for name in (*self._members, *self._refused):
            folder, _, last = name.rpartition("/")
            self._files.setdefault(folder, set()).add(last)
            self._place(folder)
        for folder in folders:
            self._place(folder)

    def _place(self, folder: str) -> None:
        while folder:
            above, _, last = folder.rpartition("/")
            inside = self._folders.setdefault(above, set())
            if last in inside:
                break
            inside.add(last)
            folder = above

    def folders(self, folder: str = "") -> list[str]:
        return sorted(self._folders.get(folder, ()))

    def files(self, folder: str = "") -> list[str]:
        return sorted(self._files.get(folder, ()))

    def member(self, name: str) -> Member:
        if name in self._refused:
            raise StepFileError(f"{self.shown(name)}: {self._refused[name]}.")
        if name not in self._members:
            raise StepFileError(f"{self.shown(name)}: there is no such file.")
        return self._members[name]
