"""`.metadata` of torch.distributed.checkpoint: which tensors a checkpoint holds, in which chunks, and in which files.

It is a pickle, which torch's own reader executes; here it is read as data (files/pickles). What it says is checked:
names of files are those of files beside it, boxes lie in their tensors.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeGuard

from trajcheck.errors import StepFileError
from trajcheck.files.opening import read_bytes
from trajcheck.files.pickles.budget import MOST_BYTES
from trajcheck.files.pickles.inert import Global, Inert
from trajcheck.files.pickles.tensors import CODES
from trajcheck.files.pickles.torch_file import read_pickle
from trajcheck.files.safetensors_header import LONGEST, MOST_DIMENSIONS
from trajcheck.runs.formats.archives.dcp.items import Item

NAME = ".metadata"
MOST_CHUNKS = 10_000_000
#: Bytes of what follows the listing.
_MOST_OWN = 4096

Place = tuple[object, ...]


class Chunk(NamedTuple):
    """A box of a tensor, and where it is stored."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    item: Item


class ListedTensor(NamedTuple):
    """A tensor as .metadata lists it; `dtype` is safetensors' code, or torch's word where there is none."""

    dtype: str
    shape: tuple[int, ...]
    chunks: tuple[Chunk, ...]


class Metadata(NamedTuple):
    """`tensors` and `objects` (pickled values) by where they were in what was saved: ("model", "layer.weight"),
    ("optim", "param_groups", 0, "lr"); by their whole name alone where that is not said."""

    folder: str
    tensors: Mapping[Place, ListedTensor]
    objects: Mapping[Place, Item]

    @property
    def path(self) -> str:
        """The file itself."""
        return os.path.join(self.folder, NAME)


class MetadataFiles:
    """`.metadata` of the steps of a run, each interpreted once; those that list the same, but for the checkpoint's own
    place and number, together."""

    def __init__(self) -> None:
        self._by_folder: dict[str, Metadata] = {}
        self._by_content: dict[bytes, Metadata] = {}

    def of(self, folder: str) -> Metadata:
        """What a checkpoint's folder says of itself. Raises StepFileError."""
        if folder not in self._by_folder:
            path = os.path.join(folder, NAME)
            content = _listing(path)
            known = self._by_content.get(content)
            found = _interpreted(folder, path) if known is None else known._replace(folder=folder)
            self._by_folder[folder] = self._by_content[content] = found
        return self._by_folder[folder]


def _listing(path: str) -> bytes:
    """The hash of the part of a pickle that lists tensors and where they are stored: without the lengths of its frames,
    and without what follows it, the checkpoint's own place and number."""
    try:
        data = bytearray(read_bytes(path, MOST_BYTES))
    except OSError as error:
        raise StepFileError(f"{path}: cannot be read: {error.strerror or error}.") from error
    frame = 2  # protocol 4: a frame is \x95, its length in 8 bytes, and so many bytes
    while data[frame : frame + 1] == b"\x95":
        length = int.from_bytes(data[frame + 1 : frame + 9], "little")
        data[frame + 1 : frame + 9] = bytes(8)
        frame += 9 + length
    end = data.rfind(b"\x8c\x0cstorage_meta")
    rest = len(data) - end if end >= 0 else 0
    return hashlib.sha256(data[:end] if 0 < rest < _MOST_OWN else data).digest()


def _interpreted(folder: str, path: str) -> Metadata:
    value = read_pickle(path)
    try:
        return _metadata(folder, value)
    except _DamagedError as error:
        raise StepFileError(f"{path}: {error}.") from error


class _DamagedError(ValueError):
    pass


def _metadata(folder: str, value: Any) -> Metadata:
    attributes = _of(value, "Metadata")
    listed, stored, places = (attributes.get(k) for k in ("state_dict_metadata", "storage_data", "planner_data"))
    if not isinstance(listed, dict) or not isinstance(stored, dict):
        raise _DamagedError("lists no tensors, or not where they are stored")
    items = dict(_items(stored))
    flattened = places if isinstance(places, dict) else {}
    tensors: dict[Place, ListedTensor] = {}
    objects: dict[Place, Item] = {}
    for name, described in listed.items():
        if not isinstance(name, str) or not isinstance(described, Inert):
            raise _DamagedError("lists a tensor without a name or a description")
        place = flattened.get(name)
        if not (isinstance(place, tuple) and place and all(isinstance(part, (str, int)) for part in place)):
            place = (name,)
        if described.of.endswith(".BytesStorageMetadata"):
            if (item := items.get((name, None))) is not None:
                objects[place] = item
        else:
            tensors[place] = _tensor(name, described, items)
    return Metadata(folder, tensors, objects)


def _items(stored: Mapping[Any, Any]) -> Iterator[tuple[tuple[str, tuple[int, ...] | None], Item]]:
    """{(name, offsets): where it is stored}."""
    if len(stored) > MOST_CHUNKS:
        raise _DamagedError(f"has {len(stored):,} chunks; expected {MOST_CHUNKS:,} at most")
    known: set[str] = set()
    for index, info in stored.items():
        key, place = _of(index, "MetadataIndex"), _of(info, "_StorageInfo")
        name, offsets, file = key.get("fqn"), key.get("offset"), place.get("relative_path")
        offset, length = place.get("offset"), place.get("length")
        if not isinstance(name, str) or not isinstance(file, str) or not _natural(offset) or not _natural(length):
            raise _DamagedError(f"says of {str(name)!r:.200} where it is stored in a way that is not known")
        if place.get("transform_descriptors"):
            raise _DamagedError(f"says that {name!r:.200} is compressed or encrypted, which is not read")
        if file not in known:
            if file != os.path.basename(file) or file in ("", ".", "..") or "\0" in file:
                raise _DamagedError(f"names file {file!r:.200}; expected the name of a file beside it")
            known.add(file)
        yield (name, None if offsets is None else _shape(offsets, name)), Item(file, offset, length)


def _tensor(name: str, described: Inert, items: Mapping[Any, Item]) -> ListedTensor:
    attributes = _of(described, "TensorStorageMetadata")
    shape, chunks = _shape(attributes.get("size"), name), []
    for chunk in attributes.get("chunks") or ():
        box = _of(chunk, "ChunkStorageMetadata")
        offsets, sizes = _shape(box.get("offsets"), name), _shape(box.get("sizes"), name)
        inside = len(offsets) == len(sizes) == len(shape) and all(
            begin + size <= whole for begin, size, whole in zip(offsets, sizes, shape, strict=True)
        )
        if not inside:
            raise _DamagedError(
                f"has a chunk of {name!r:.200} of shape {list(sizes)} from {list(offsets)} on, which does not lie in a "
                f"tensor of shape {list(shape)}"
            )
        item = items.get((name, offsets))
        if item is None:
            raise _DamagedError(f"does not say where the chunk of {name!r:.200} from {list(offsets)} on is stored")
        chunks.append(Chunk(offsets, sizes, item))
    return ListedTensor(_dtype(attributes.get("properties")), shape, tuple(chunks))


def _dtype(properties: Any) -> str:
    """The first of TensorProperties, which are kept as a tuple."""
    state = properties.state if isinstance(properties, Inert) else None
    first = state[0] if isinstance(state, tuple) and state else None
    if isinstance(state, dict):
        first = state.get("dtype")
    if not isinstance(first, Global) or first.module != "torch":
        raise _DamagedError("lists a tensor without its dtype")
    return CODES.get(first.name, first.dotted)


def _of(value: Any, kind: str) -> Mapping[str, Any]:
    """The attributes of an object of a class of torch.distributed.checkpoint."""
    if not isinstance(value, Inert) or not value.of.startswith("torch.distributed.") or not value.of.endswith(kind):
        found = value.of if isinstance(value, Inert) else type(value).__name__
        raise _DamagedError(f"holds {found!s:.100} where {kind} of torch.distributed.checkpoint is expected")
    return value.attributes


def _shape(value: Any, name: str) -> tuple[int, ...]:
    if not isinstance(value, (tuple, list)) or len(value) > MOST_DIMENSIONS or not all(map(_natural, value)):
        raise _DamagedError(f"has a shape of {name!r:.200} that is none")
    if math.prod(value) > LONGEST:
        raise _DamagedError(f"has a shape of {name!r:.200} that is too large: {list(value)!s:.100}")
    return tuple(value)


def _natural(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= LONGEST
