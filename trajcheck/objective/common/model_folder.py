"""The folder in which config.json lies, and what describes a model beside it: here, in a tar or zip file, elsewhere."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trajcheck.errors import StepFileError
from trajcheck.files.opening import MOST_TEXT, read_bytes
from trajcheck.files.remote.address import is_remote
from trajcheck.files.trees.opening import open_tree
from trajcheck.files.trees.tree import Tree, join
from trajcheck.runs.formats.archives.step_names import natural_key


@dataclass(frozen=True)
class ModelFolder:
    """`path` is the folder, or what stands for it in messages; `tree` holds the files of one that lies in a tar or zip
    file or at an address, in its `folder`."""

    path: Path
    tree: Tree | None = None
    folder: str = ""

    def shown(self, name: str) -> Path:
        """A file in it, for messages."""
        return self.path / name

    def holds(self, name: str) -> bool:
        if self.tree is None:
            return os.path.isfile(self.path / name)
        return self.tree.holds(join(self.folder, name))

    def read(self, name: str, most: int = MOST_TEXT) -> bytes:
        """Raises OSError, and ValueError for what a tree cannot give."""
        if self.tree is None:
            return read_bytes(self.path / name, most)
        try:
            return self.tree.read(join(self.folder, name), most)
        except StepFileError as error:
            raise ValueError(str(error)) from error


def folders_in(run: Path) -> Iterator[ModelFolder]:
    """Of a run that is a tar or zip file, or an address: itself, and the folders in it, that of the first step first.
    Raises RunError."""
    if not (is_remote(run) or os.path.isfile(run)) or (tree := open_tree(run)) is None:
        return
    level = [""]
    while level:
        for folder in level:
            yield ModelFolder(Path(tree.shown(folder)), tree, folder)
        level = [join(f, inner) for f in level for inner in sorted(tree.folders(f), key=natural_key)]


def hash_of(data: bytes) -> str:
    """As the prints of files are."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
