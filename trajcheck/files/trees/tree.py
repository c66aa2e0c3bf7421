"""What a tree of files answers: which names there are, and where the bytes of each file lie.

Names are relative, their parts separated by "/"; "" is the tree itself. A tree of another kind answers `folders`,
`files` and `member`, and, where bytes do not lie in a file of this machine, `range` and `torch_file`. Errors are
StepFileErrors which name the tree and the file in it.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from trajcheck.errors import StepFileError
from trajcheck.files.opening import MOST_TEXT, NotRegularError, opened
from trajcheck.files.pickles.torch_file import TorchFile, read_torch_file
from trajcheck.files.plain_json import parse_json
from trajcheck.files.remote.file import remote_file
from trajcheck.files.safetensors_header import TensorFile, header_of

#: Letters and folders of a name.
MOST_LETTERS, MOST_PARTS = 1024, 32


class Member(NamedTuple):
    """A file of a tree: `size` bytes from `offset` on in the file at `path`. `sha256` is that of its bytes, in hex,
    where a listing says it: taken on trust."""

    name: str
    size: int
    path: str
    offset: int = 0
    sha256: str | None = None


class Tree(ABC):
    """Files below `root`, which stands for it in messages."""

    def __init__(self, root: str) -> None:
        self.root = root

    @abstractmethod
    def folders(self, folder: str = "") -> list[str]:
        """The names of the folders directly in one, in order; empty where there is no such folder."""

    @abstractmethod
    def files(self, folder: str = "") -> list[str]:
        """The names of what else lies directly in one, in order."""

    @abstractmethod
    def member(self, name: str) -> Member:
        """Where a file lies. Raises StepFileError for one that is not there, is no regular file, leads out of the tree,
        or is packed."""

    def holds(self, name: str) -> bool:
        """Whether there is a file of a name, readable or not."""
        folder, _, last = name.rpartition("/")
        return last in self.files(folder)

    def shown(self, name: str) -> str:
        """A file in messages."""
        return f"{self.root}/{name}" if name else self.root

    def range(self, member: Member, start: int, length: int) -> bytes:
        """Bytes of a file from `start` on, fewer where it ends. Raises StepFileError."""
        length = max(0, min(length, member.size - start))
        try:
            if (remote := remote_file(member.path)) is not None:
                return remote.read(member.offset + start, length)
            with opened(member.path) as file:
                file.seek(member.offset + start)
                return file.read(length)
        except NotRegularError as error:
            raise StepFileError(f"{self.shown(member.name)}: not a regular file.") from error
        except OSError as error:
            raise StepFileError(f"{self.shown(member.name)}: cannot be read: {error.strerror}.") from error

    def read(self, name: str, most: int = MOST_TEXT) -> bytes:
        """All bytes of a small file. Raises StepFileError, also where it has more than `most`."""
        member = self.member(name)
        if member.size > most:
            raise StepFileError(f"{self.shown(name)}: {member.size:,} bytes, and expected are {most:,} at most.")
        data = self.range(member, 0, member.size)
        if len(data) < member.size:
            raise StepFileError(f"{self.shown(name)}: ended {member.size - len(data):,} bytes early. Copy it again.")
        return data

    def json(self, name: str, most: int = MOST_TEXT) -> Any:
        """The value of a JSON file. Raises StepFileError."""
        try:
            return parse_json(self.read(name, most).decode("utf-8"))
        except ValueError as error:
            raise StepFileError(f"{self.shown(name)}: not JSON ({error}).") from error

    def safetensors(self, name: str) -> TensorFile:
        """The header of a safetensors file. Raises StepFileError."""
        member = self.member(name)
        return header_of(
            member.path, self.shown(name), lambda start, size: self.range(member, start, size), member.size,
            member.offset,
        )  # fmt: skip

    def torch_file(self, name: str) -> TorchFile:
        """What a file of torch.save holds. Raises StepFileError."""
        member = self.member(name)
        try:
            return read_torch_file(member.path, member.offset, member.size)
        except StepFileError as error:
            told, shown = str(error), self.shown(name)
            if shown == member.path:
                raise
            raise StepFileError(shown + told.removeprefix(member.path)) from error


def join(folder: str, name: str) -> str:
    """A name in a folder of a tree."""
    return f"{folder}/{name}" if folder else name


def is_plain(name: str) -> bool:
    """Whether a name of somebody else's is that of a file or folder below, and of nothing else: relative, without dots
    as parts, of a length and depth that people use."""
    parts = name.split("/")
    if len(name) > MOST_LETTERS or len(parts) > MOST_PARTS or {"\0", "\\"} & set(name) or os.path.isabs(name):
        return False
    return all(part not in ("", ".", "..") and len(part) < 256 for part in parts)
