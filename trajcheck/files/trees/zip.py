"""Zip files as trees, with zip64: entries that lie in it as they are, one after the other (`zip -0`). What is packed is
named when somebody asks for it, and never unpacked. Format: PKWARE's APPNOTE 6.3."""

from __future__ import annotations

from pathlib import Path

from trajcheck.errors import RunError
from trajcheck.files.opening import opened, size_of
from trajcheck.files.pickles.budget import PickleError
from trajcheck.files.pickles.zip_entries import Entry, all_entries
from trajcheck.files.trees.members import MembersTree
from trajcheck.files.trees.tree import Member, is_plain


def zip_tree(path: Path) -> MembersTree:
    """The files in a zip file. Raises RunError, OSError."""
    try:
        with opened(path) as file:
            entries = all_entries(file, 0, size_of(file))
    except PickleError as error:
        raise RunError(f"{path}: {error}.") from error
    members, refused, folders = [], {}, []
    for raw, entry in entries.items():
        name = raw.decode("utf-8", "surrogateescape")
        if not is_plain(name.removesuffix("/")):
            raise RunError(f"{path}: holds an entry {name!r:.200}, whose name would lead out of it, or is none.")
        if name.endswith("/"):
            folders.append(name[:-1])
        elif isinstance(entry, Entry):
            members.append(Member(name, entry.length, str(path), entry.offset))
        else:
            refused[name] = f"is {entry}, in a zip file, and is read in place alone: unpack it, or store it by zip -0"
    return MembersTree(str(path), members, refused, folders)
