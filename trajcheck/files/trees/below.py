"""A folder of a tree as a tree by itself."""

from __future__ import annotations

from trajcheck.files.pickles.torch_file import TorchFile
from trajcheck.files.trees.tree import Member, Tree, join


class Below(Tree):
    """What lies below a folder of `whole`."""

    def __init__(self, whole: Tree, folder: str) -> None:
        super().__init__(whole.shown(folder))
        self._whole, self._folder = whole, folder

    def folders(self, folder: str = "") -> list[str]:
        return self._whole.folders(join(self._folder, folder) if folder else self._folder)

    def files(self, folder: str = "") -> list[str]:
        return self._whole.files(join(self._folder, folder) if folder else self._folder)

    def member(self, name: str) -> Member:
        return self._whole.member(join(self._folder, name))._replace(name=name)

    def range(self, member: Member, start: int, length: int) -> bytes:
        return self._whole.range(member._replace(name=join(self._folder, member.name)), start, length)

    def torch_file(self, name: str) -> TorchFile:
        return self._whole.torch_file(join(self._folder, name))
