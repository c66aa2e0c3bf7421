"""The weights in a folder of an archive, as transformers, accelerate and PEFT leave them.

adapter_model.safetensors                            a PEFT adapter: it is what was trained, whatever lies beside it
model.safetensors                                    all in one file
model.safetensors.index.json                         in several, beside it, which its weight_map names
pytorch_model.bin, pytorch_model.bin.index.json      the same, of torch.save
model-00001-of-00003.safetensors, ...                several whose index is lost: all of them are needed
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trajcheck.errors import StepFileError
from trajcheck.files.extents import Extent
from trajcheck.files.trees.tree import Tree, join
from trajcheck.readable import some_of

ADAPTER = ("adapter_model.safetensors", "adapter_model.bin")
ADAPTER_CONFIG = "adapter_config.json"
WHOLE = ("model.safetensors", "pytorch_model.bin")
INDEX = ".index.json"
INDICES = tuple(name + INDEX for name in WHOLE)
#: What stands before all names in an adapter's file.
ADAPTER_PREFIX = "base_model.model."
_SHARD = re.compile(r"(model|pytorch_model)-(\d{1,6})-of-(\d{1,6})\.(safetensors|bin)")
_POINTER = b"version https://git-lfs"
_LARGEST_INDEX = 100_000_000


@dataclass(frozen=True)
class ModelFiles:
    """`tensors` by their names there, `first` the file that stands for them, `files` all of them. `ordered`: whether
    they stand in the order of the model. `tied` are second names that the file's metadata say."""

    first: str
    files: tuple[str, ...]
    tensors: Mapping[str, Extent]
    prefix: str = ""
    ordered: bool = False
    tied: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def model_files(tree: Tree, folder: str) -> list[str]:
    """The names of the files that hold the weights in a folder, their index first; empty where there are none. Decided
    by names alone."""
    names = set(tree.files(folder))
    for name in (*ADAPTER, *WHOLE, *INDICES):
        if name in names:
            shards = sorted(each for each in names if _SHARD.fullmatch(each)) if name in INDICES else ()
            return [name, *(each for each in shards if each.endswith(name.removesuffix(INDEX).rpartition(".")[2]))]
    if shards := sorted(name for name in names if _SHARD.fullmatch(name)):
        return shards
    inner = [
        join(each, name) for each in tree.folders(folder) for name in ADAPTER if name in tree.files(join(folder, each))
    ]
    return sorted(inner)  # adapters with names of their own


def read_model(tree: Tree, folder: str) -> ModelFiles:
    """Raises StepFileError."""
    found = model_files(tree, folder)
    if not found:
        raise StepFileError(f"{tree.shown(folder)}: holds no file of weights.")
    name = found[0]
    inner, _, _ = name.rpartition("/")
    if inner and len(found) > 1:
        raise StepFileError(f"{tree.shown(folder)}: holds several adapters, {some_of(found)}; expected one.")
    if inner:
        return read_model(tree, join(folder, inner))
    if name in ADAPTER:
        return _adapter(tree, folder, name)
    if name in INDICES:
        return _sharded(tree, folder, name, _weight_map(tree, join(folder, name)))
    if match := _SHARD.fullmatch(name):
        return _without_index(tree, folder, found, int(match[3]))
    return _one(tree, folder, name)


def _one(tree: Tree, folder: str, name: str) -> ModelFiles:
    path = join(folder, name)
    check_pointer(tree, path)
    if name.endswith(".safetensors"):
        file = tree.safetensors(path)
        specs = file.layout.specs
        tied = {alias: kept for alias, kept in file.metadata.items() if kept in specs and alias not in specs}
        return ModelFiles(path, (path,), file.extents({each: each for each in specs}), tied=tied)
    dicts = tree.torch_file(path).state_dicts()
    if len(dicts) > 1:
        raise StepFileError(
            f"{tree.shown(path)}: holds state dicts under {some_of(sorted(map(repr, dicts)))}, not one."
        )
    tensors = {each: tensor.extent(each) for each, tensor in next(iter(dicts.values())).items()}
    return ModelFiles(path, (path,), tensors, ordered=True)


def _sharded(tree: Tree, folder: str, index: str, table: Mapping[str, str]) -> ModelFiles:
    parts = {name: _one(tree, folder, name) for name in dict.fromkeys(table.values())}
    where = {each: name for name, part in parts.items() for each in part.tensors}
    _check_once(tree, folder, parts)
    for each, name in table.items():
        if where.get(each) != name:
            raise StepFileError(
                f"{tree.shown(join(folder, index))}: {each!r:.200} is not in {name}, where it should be: the files are "
                "not of one save, or damaged. Copy them again."
            )
    tensors = {each: part.tensors[each] for part in parts.values() for each in part.tensors}
    ordered = all(part.ordered for part in parts.values())
    files = (join(folder, index), *(part.first for part in parts.values()))
    return ModelFiles(files[1], files, tensors, ordered=ordered)


def _without_index(tree: Tree, folder: str, names: Iterable[str], count: int) -> ModelFiles:
    shards = [match for name in names if (match := _SHARD.fullmatch(name))]
    numbers = sorted(int(match[2]) for match in shards if int(match[3]) == count)
    if numbers != list(range(1, count + 1)) or len(numbers) != len(shards):
        raise StepFileError(
            f"{tree.shown(folder)}: holds {len(shards)} files of weights ({some_of([m[0] for m in shards])}), and no "
            f"index; expected numbers 1 to {count}, each once. Copy the others."
        )
    parts = {match[0]: _one(tree, folder, match[0]) for match in shards}
    _check_once(tree, folder, parts)
    tensors = {each: part.tensors[each] for part in parts.values() for each in part.tensors}
    files = tuple(part.first for part in parts.values())
    return ModelFiles(files[0], files, tensors, ordered=all(part.ordered for part in parts.values()))


def _check_once(tree: Tree, folder: str, parts: Mapping[str, ModelFiles]) -> None:
    found: dict[str, str] = {}
    for name, part in parts.items():
        for each in part.tensors:
            if found.setdefault(each, name) != name:
                raise StepFileError(f"{tree.shown(folder)}: tensor {each!r:.200} is in {found[each]} and in {name}.")


def _adapter(tree: Tree, folder: str, name: str) -> ModelFiles:
    found = _one(tree, folder, name)
    beside = [each for each in tree.files(folder) if each in (*WHOLE, *INDICES)]
    kind, rank = "an adapter", ""
    if tree.holds(join(folder, ADAPTER_CONFIG)):
        config = tree.json(join(folder, ADAPTER_CONFIG), 10_000_000)
        if isinstance(config, dict) and isinstance(config.get("peft_type"), str):
            kind = f"an adapter of PEFT ({config['peft_type']:.40})"
            rank = f" of rank {config['r']}" if type(config.get("r")) is int else ""
    note = f"what was trained is {kind}{rank}: norms and distances are of its own parameters, and of no others"
    left = f"{beside[0]} beside it was left out, as the adapter alone was trained" if beside else ""
    prefix = ADAPTER_PREFIX if all(each.startswith(ADAPTER_PREFIX) for each in found.tensors) else ""
    notes = tuple(filter(None, (note, left)))
    return ModelFiles(found.first, found.files, found.tensors, prefix, found.ordered, notes=notes)


def _weight_map(tree: Tree, index: str) -> dict[str, str]:
    """{tensor: file}, every file one of the folder. Raises StepFileError."""
    check_pointer(tree, index)
    whole: Any = tree.json(index, _LARGEST_INDEX)
    table = whole.get("weight_map") if isinstance(whole, dict) else None
    if not isinstance(table, dict) or not table:
        raise StepFileError(f"{tree.shown(index)}: not an index of weights: it has no weight_map.")
    folder, _, name = index.rpartition("/")
    ending = name.removesuffix(INDEX).rpartition(".")[2]
    there = set(tree.files(folder))
    for file in dict.fromkeys(value if isinstance(value, str) else repr(value) for value in table.values()):
        if "/" in file or not file.endswith(f".{ending}") or file.startswith("."):
            raise StepFileError(f"{tree.shown(index)}: names {file!r:.200}; expected a .{ending} file beside it.")
        if file not in there:
            raise StepFileError(f"{tree.shown(index)}: names {file!r:.200}, which is not there. Copy it here.")
    return table


def check_pointer(tree: Tree, name: str) -> None:
    """Raises StepFileError for what git-lfs leaves in the place of a file that was not fetched."""
    member = tree.member(name)
    if member.size < 1024 and tree.range(member, 0, len(_POINTER)) == _POINTER:
        raise StepFileError(
            f"{tree.shown(name)}: is a pointer of git-lfs, and the weights are not here. Fetch them: git lfs pull."
        )
