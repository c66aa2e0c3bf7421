"""The folder in which huggingface_hub keeps what it downloads of one repository:

    models--ORG--NAME/refs/step1000                       the commit of a branch or tag, 40 hex digits
    models--ORG--NAME/snapshots/COMMIT/model.safetensors  a link into blobs/, which lies beside

What was downloaded by its commit alone has no name there, and no step.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

from trajcheck.errors import StepFileError
from trajcheck.files.trees.tree import Tree, join
from trajcheck.readable import some_of
from trajcheck.runs.formats.archives.hf.folders import Place, WeightFolders
from trajcheck.runs.formats.archives.model_files import model_files
from trajcheck.runs.formats.archives.step_names import step_said
from trajcheck.runs.run_info import RunInfo

_COMMIT = re.compile(rb"[0-9a-f]{40}\s*")
_DEEPEST = 4  # of the names of branches: refs/pr/1


class HubCache(WeightFolders):
    """Revisions by their names in refs/."""

    name = "huggingface_hub's folder of a repository"
    looks = "models--ORG--NAME/refs/step1000 and snapshots/COMMIT/model.safetensors"
    cause = "they were not uploaded, or not downloaded"

    @classmethod
    def found_in(cls, tree: Tree) -> bool:
        return {"refs", "snapshots"} <= set(tree.folders()) and any(
            step_said(place.label) is not None and model_files(tree, place.folder) for place in cls.places(tree)
        )

    @classmethod
    def places(cls, tree: Tree) -> Iterable[Place]:
        commits = set(tree.folders("snapshots"))
        for ref in _refs(tree, "refs", _DEEPEST):
            try:
                commit = tree.read(ref, 100)
            except StepFileError:
                continue
            if _COMMIT.fullmatch(commit) and (name := commit.decode().strip()) in commits:
                yield Place(join("snapshots", name), ref.removeprefix("refs/"))

    def is_place(self, place: Place) -> bool:
        return super().is_place(place) or step_said(place.label) is not None

    def step_of(self, place: Place) -> int | None:
        return step_said(place.label)

    def described(self) -> RunInfo:
        """With the revisions that are one commit: one of them is not what its name says."""
        info = super().described()
        named = defaultdict(list)
        for place in self.places(self.tree):
            if step_said(place.label) is not None:
                named[place.folder].append(place.label)
        same = [f"{some_of(labels)} are one commit" for labels in named.values() if len(labels) > 1]
        nameless = len(set(self.tree.folders("snapshots")) - {folder.partition("/")[2] for folder in named})
        lost = f"{nameless} snapshots have no step in refs/, as of a download by commit: left out" if nameless else ""
        return RunInfo(notes=(*info.notes, *same, *filter(None, [lost])))

    def folders(self) -> frozenset[str]:
        return frozenset({"refs", "snapshots", "blobs"})


def _refs(tree: Tree, folder: str, levels: int) -> Iterator[str]:
    yield from (join(folder, name) for name in tree.files(folder))
    if levels:
        for name in tree.folders(folder):
            yield from _refs(tree, join(folder, name), levels - 1)
