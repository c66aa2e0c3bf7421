"""The tree at a path: of a folder, of a tar file or of a zip file, known by its content, here or elsewhere."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from trajcheck.errors import RunError
from trajcheck.files.opening import NotRegularError, opened
from trajcheck.files.pickles.zip_entries import is_archive
from trajcheck.files.prints import file_print
from trajcheck.files.remote.address import as_path, is_remote
from trajcheck.files.remote.opening import listed_at
from trajcheck.files.trees.folder import FolderTree
from trajcheck.files.trees.remote import remote_tree
from trajcheck.files.trees.tar import BLOCK, is_tar, tar_tree
from trajcheck.files.trees.tree import Tree
from trajcheck.files.trees.zip import zip_tree

#: What packed files begin with, and what unpacks them.
_PACKED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ\0": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
    b"7z\xbc\xaf\x27\x1c": ("7z", "7z x"),
    b"Rar!": ("rar", "unrar x"),
}


def open_tree(path: Path) -> Tree | None:
    """The files at a path; None where it is a file of another kind. Raises OSError, and RunError for a tar or zip file
    that is damaged or packed."""
    if is_remote(path):
        path = as_path(path)
        listed = listed_at(path)
        if [each.name for each in listed] != [""]:
            return remote_tree(str(path), listed)
    elif path.is_dir():
        return FolderTree(path)
    try:
        with opened(path) as file:
            state = file_print(path)
            beginning = file.read(BLOCK)
    except NotRegularError:
        return None
    kind = "tar" if is_tar(beginning) else "zip" if path.suffix == ".zip" and is_archive(beginning) else ""
    if kind:
        return _archived(path, kind, state)
    for mark, (name, command) in _PACKED.items():
        if beginning.startswith(mark):
            raise RunError(
                f"{path}: is packed ({name}). Tensors are read where they lie, which is possible in a tar file that is "
                f"not packed, and in a folder: unpack it ({command} {path.name})."
            )
    return None


@lru_cache(maxsize=4)
def _archived(path: Path, kind: str, state: str) -> Tree:
    """Of a file in one state; every format asks for it."""
    return tar_tree(path) if kind == "tar" else zip_tree(path)
