"""Listings of files that are not on this machine as trees: a hub's repository with a folder a revision, a bucket."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from trajcheck.errors import RunError
from trajcheck.files.remote.hub import Listed
from trajcheck.files.trees.members import MembersTree
from trajcheck.files.trees.tree import Member, is_plain


class RemoteTree(MembersTree):
    """Files are shown by their own addresses."""

    def shown(self, name: str) -> str:
        member = self._members.get(name)
        return super().shown(name) if member is None else member.path


@lru_cache(maxsize=16)
def remote_tree(address: str, listed: Sequence[Listed]) -> RemoteTree:
    """Raises RunError for a name that would lead out of it."""
    members = []
    for name, file in listed:
        if not is_plain(name):
            raise RunError(f"{address}: lists {name!r:.200}, which would lead out of it, or is no name of a file.")
        members.append(Member(name, file.size, file.path, sha256=file.sha256))
    return RemoteTree(address, members)
