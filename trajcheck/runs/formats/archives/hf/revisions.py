"""A folder a revision: `step1000/`, `stage1-step1000-tokens5B/`, ..., as the branches of a repository are checked out,
or as somebody downloaded them."""

from __future__ import annotations

from trajcheck.files.trees.tree import Tree
from trajcheck.runs.formats.archives.hf.folders import Place, WeightFolders
from trajcheck.runs.formats.archives.model_files import model_files
from trajcheck.runs.formats.archives.step_names import step_said


class Revisions(WeightFolders):
    """Steps by the names of folders; one without a step, as `main`, is left out, and named."""

    name = "a folder a revision"
    looks = "step1000/model.safetensors, stage1-step2000-tokens8B/pytorch_model.bin, ..."
    cause = "they were not uploaded, or not downloaded"

    @classmethod
    def found_in(cls, tree: Tree) -> bool:
        return any(step_said(place.label) is not None and model_files(tree, place.folder) for place in cls.places(tree))

    def is_place(self, place: Place) -> bool:
        return super().is_place(place) or step_said(place.label) is not None

    def step_of(self, place: Place) -> int | None:
        return step_said(place.label)
