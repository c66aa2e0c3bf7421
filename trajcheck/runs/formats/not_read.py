"""What lies at a path that is no run, or none that is read there: said by name, with what to do."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from trajcheck.errors import StepFileError
from trajcheck.files.remote.address import is_remote
from trajcheck.files.trees.opening import open_tree
from trajcheck.files.trees.tree import join
from trajcheck.readable import some_of

#: Formats that are read in a folder of this machine alone, by the name of a file in a step's folder.
_IN_A_FOLDER = {
    "torch.distributed.checkpoint": re.compile(r"\.metadata|__\d+_\d+\.distcp"),
    "DeepSpeed": re.compile(r".*mp_rank_\d+_(model|optim)_states\.pt"),
    "trajcheck's own recording": re.compile(r"run\.json|step-\d{9}\.safetensors"),
}
#: Folders within one another, and of each level, that are looked into.
_DEEPEST, _MOST = 3, 20


def in_a_folder_alone(path: Path) -> str:
    """Of a tar or zip file, or an address: what there is of a format that is read in neither; '' of anything else.
    Raises RunError for a packed or damaged file."""
    tree = None
    if is_remote(path) or path.is_file():
        with suppress(OSError):
            tree = open_tree(path)
    if tree is None:
        return ""
    level = [""]
    for _ in range(1 + _DEEPEST):
        for folder in level:
            with suppress(StepFileError):
                names = tree.files(folder)
                for kind, pattern in _IN_A_FOLDER.items():
                    if found := next(filter(pattern.fullmatch, names), None):
                        what = "copy it to this machine" if is_remote(path) else "unpack it"
                        return f"{join(folder, found)} is of {kind}, which is read in a folder alone: {what}."
        level = [join(folder, inner) for folder in level for inner in tree.folders(folder)[:_MOST]][:_MOST]
    return ""


def why_not(path: Path) -> str:
    """What lies there that is known and not read, with what to do; '' of anything else."""
    try:
        names = [path.name] if path.is_file() else sorted(os.listdir(path))
    except OSError:
        return ""
    if quantized := [name for name in names if name.lower().endswith(".gguf")]:
        return (
            f"{some_of(quantized)}: GGUF is not read: its tensors are quantized in blocks, and distances between them "
            "are those of the quantization. Give the weights that it was made from."
        )
    if path.name == "snapshots" and (path.parent / "refs").is_dir():
        return f"snapshots by their commits, whose steps are in the folder above: give {path.parent}."
    if path.is_dir() and ".git" in names:
        return (
            "a git repository, whose branches are not read, as git runs what a repository's settings name. Check each "
            "revision out into a folder of its step, git worktree add ../revisions/step1000 step1000, and give "
            "../revisions."
        )
    return ""


def others_in(path: Path) -> str:
    """What a folder without a run holds that a reader may have meant: nothing, links out of it, files of tensors under
    other names than those of a format."""
    try:
        files = sorted(path.iterdir()) if path.is_dir() else []
        empty = path.is_dir() and not files
        real = os.path.realpath(path)
        outward = [
            file.name for file in files if file.is_symlink() and os.path.commonpath((real, file.resolve())) != real
        ]
    except (OSError, RuntimeError, ValueError):
        return ""
    if empty:
        return "; it is empty"
    if outward:
        return f"; links out of it are not followed: {some_of(outward)} (copy what they mean into it)"
    names = [file.name for file in files if file.suffix in (".safetensors", ".pt", ".pth", ".ckpt")]
    return f"; its files are called otherwise, and their names say no step: {some_of(names)}" if names else ""
