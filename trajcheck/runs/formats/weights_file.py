"""Weights alone, given as a reference point: a safetensors file, one of torch.save, or a folder of either as
save_pretrained leaves it, in one file or in several that an index lists."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trajcheck.errors import StepFileError
from trajcheck.files.extents import Extent
from trajcheck.files.opening import read_json
from trajcheck.files.pickles.suffixes import SUFFIXES
from trajcheck.files.plain_json import parse_json
from trajcheck.files.prints import hash_file
from trajcheck.files.safetensors_header import read_header

if TYPE_CHECKING:
    from trajcheck.files.pickles.tensors import StoredTensor

INDEX = ".index.json"
LARGEST_INDEX = 100_000_000
#: What a folder of weights may hold, by what it is of; of several of one kind, which are the same weights, the first.
MODEL = ("model.safetensors.index.json", "model.safetensors", "pytorch_model.bin.index.json", "pytorch_model.bin")
ADAPTER = ("adapter_model.safetensors", "adapter_model.bin")


@dataclass(frozen=True)
class Weights:
    """Tensors by the names that they have there, as extents; in `others` those of torch.save that lie in another order
    than by rows. `place` says where in a checkpoint they lie; `step` is the number that the file gives itself, where it
    is the file of a step."""

    shapes: Mapping[str, tuple[int, ...]]
    files: tuple[str, ...]
    extents: Mapping[str, Extent] = field(default_factory=dict)
    others: Mapping[str, StoredTensor] = field(default_factory=dict)
    place: str = ""
    step: int | None = None

    @property
    def key(self) -> str:
        """What identifies them: the hash of their bytes."""
        hashes = [hash_file(file) for file in self.files]
        own = hashes[0] if len(hashes) == 1 else f"sha256:{hashlib.sha256(''.join(hashes).encode()).hexdigest()}"
        return f"{own}/{self.place}" if self.place else own

    def dtype(self, name: str) -> str:
        """safetensors' code; torch's word where there is none."""
        return self.others[name].code if name in self.others else self.extents[name].dtype


def are_weights(path: str) -> bool:
    """Whether a path is that of weights, by its name or, of a folder, by what lies in it."""
    try:
        if os.path.isdir(path):
            return bool(_of_folder(path))
    except (OSError, ValueError):
        return False
    return path.endswith((".safetensors", *SUFFIXES))


def read_weights(path: str) -> list[Weights]:
    """The weights at a path; several where a checkpoint holds several state dicts. Raises StepFileError."""
    if os.path.isdir(path):
        found = _of_folder(path)
        if len(found) > 1:
            raise StepFileError(f"{path}: holds {' and '.join(found)}; name the file that is meant.")
        path = os.path.join(path, found[0])
    if path.endswith(INDEX):
        return [_sharded(path)]
    return [_safetensors(path)] if path.endswith(".safetensors") else _torch(path)


def _of_folder(folder: str) -> list[str]:
    """The files or indices of weights in it, one a kind."""
    names = os.listdir(folder)
    known = [next((name for name in kind if name in names), "") for kind in (MODEL, ADAPTER)]
    return [name for name in known if name] or sorted(name for name in names if name.endswith(INDEX))


def _safetensors(path: str) -> Weights:
    """float32 masters stand for weights of low precision."""
    file = read_header(path)
    sections = file.layout.sections
    names = {name: name for name in file.layout.specs}
    if sections.get("param"):
        names = {**sections.get("buffer", {}), **sections["param"], **sections.get("master", {})}
    try:
        step = parse_json(file.metadata["trajcheck"])["step"]
    except (KeyError, ValueError, TypeError):
        step = None
    extents = file.extents(names)
    shapes = {name: extents[name].shape for name in names}
    return Weights(shapes, (path,), extents, step=step if isinstance(step, int) else None)


def _torch(path: str) -> list[Weights]:
    from trajcheck.files.pickles.torch_file import read_torch_file  # an interpreter of pickles, for these files alone

    found = []
    for place, tensors in read_torch_file(path).state_dicts().items():
        others = {name: tensor for name, tensor in tensors.items() if not tensor.in_place}
        extents = {name: tensor.extent(name) for name, tensor in tensors.items() if name not in others}
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        found.append(Weights(shapes, (path,), extents, others, place))
    return found


def _sharded(index: str) -> Weights:
    """All files that an index lists, which lie beside it."""
    folder, table = os.path.dirname(index), _weight_map(index)
    files = sorted(set(table.values()))
    parts = {file: read_weights(os.path.join(folder, file))[0] for file in files}
    if any(part.place for part in parts.values()):
        raise StepFileError(f"{index}: its files are not state dicts.")
    for name, file in table.items():
        if name not in parts[file].shapes:
            raise StepFileError(f"{index}: {name!r:.200} is not in {file}, where it should be. Copy the files again.")
    shapes = {name: parts[file].shapes[name] for name, file in table.items()}
    paths = tuple(path for part in parts.values() for path in part.files)
    others = {name: parts[file].others[name] for name, file in table.items() if name in parts[file].others}
    extents = {name: parts[file].extents[name] for name, file in table.items() if name not in others}
    return Weights(shapes, paths, extents, others)


def _weight_map(index: str) -> dict[str, str]:
    """{tensor: file}, every file a plain name. Raises StepFileError."""
    try:
        table = read_json(index, LARGEST_INDEX)["weight_map"]
        if not isinstance(table, dict) or not table:
            raise ValueError("weight_map is no table")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StepFileError(f"{index}: not an index of weights ({error}).") from error
    for file in table.values():
        beside = isinstance(file, str) and file == os.path.basename(file) and not {"\\", "\0"} & set(file)
        if not (beside and file.endswith((".safetensors", *SUFFIXES))):
            raise StepFileError(f"{index}: names {file!r:.200}; expected the name of a file of weights beside it.")
    return table
