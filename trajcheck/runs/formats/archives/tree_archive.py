"""Archives that are read through a tree of files: in a folder, or in place within a tar or zip file."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from trajcheck.errors import RunError, StepFileError
from trajcheck.files.trees.below import Below
from trajcheck.files.trees.opening import open_tree
from trajcheck.files.trees.tree import Tree
from trajcheck.runs.formats.archives.archive import Archive


class TreeArchive(Archive):
    """Of its two questions of recognition, a format answers `found_in`."""

    elsewhere = True

    @classmethod
    @abstractmethod
    def found_in(cls, tree: Tree) -> bool:
        """Whether there is a run of this format at the root of a tree: decided by names or a few bytes. May raise
        StepFileError for what cannot be looked into."""

    @classmethod
    def recognise(cls, path: Path) -> bool:
        return cls._tree_at(path) is not None

    @classmethod
    def _tree_at(cls, path: Path) -> Tree | None:
        for tree in _roots(path):
            with suppress(StepFileError):
                if cls.found_in(tree):
                    return tree
        return None

    @cached_property
    def tree(self) -> Tree:
        """Where its files lie. Raises RunError."""
        found = self._tree_at(self.path)
        if found is None:
            raise RunError(f"{self.path}: holds {self.name} no more. Was it changed meanwhile?")
        return found


def _roots(path: Path) -> Iterator[Tree]:
    """The tree at a path; of a tar or zip file whose entries all lie in one folder, that folder as well."""
    tree = open_tree(path)
    if tree is None:
        return
    yield tree
    while not path.is_dir() and not tree.files() and len(inner := tree.folders()) == 1:
        tree = Below(tree, inner[0])
        yield tree
