"""Points that are made once, averages and permuted ones, in files beside a report's scalars.

A file is called kind-ORIGIN-CONTENT: the hash of what it was made from (the reference, and the prints of the files that
it is an average of), and that of its bytes. One that lies there is believed only where its header is the one that would
be written, its bytes are those of its name, and pieces of it, chosen at random, are what they would be made to be now.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trajcheck.errors import OutputError, StepFileError
from trajcheck.files.extent_reader import BLOCK, ExtentReader
from trajcheck.files.extents import ITEM_SIZE, Extent
from trajcheck.files.folders import Block, OpenFolder
from trajcheck.files.opening import open_regular, same_path
from trajcheck.files.prints import FilePrints
from trajcheck.files.safetensors_header import TensorFile, read_header

Shapes = Mapping[str, tuple[int, ...]]

#: `produce(name, start, stop)`: elements of a tensor in C order.
Produce = Callable[[str, int, int], np.ndarray]

#: Pieces of a file that is there already which are made again, and the elements of each.
PIECES, PIECE = 8, 1024


@dataclass(frozen=True)
class Workspace:
    """Where vectors that are made are kept, and how the files that they are made of are known."""

    folder: Path
    prints: FilePrints


def kept_vector(
    workspace: Workspace,
    kind: str,
    key: str,
    files: Sequence[str],
    shapes: Shapes,
    dtype: np.dtype,
    produce: Produce,
) -> Mapping[str, Extent]:
    """A vector in a file of its own, made by `produce` (see `streamed_blocks`) unless it is there already. Raises
    OutputError."""
    origin = origin_of(workspace, key, files)

    def piece(name: str, start: int, stop: int) -> bytes:
        return produce(name, start, stop).tobytes()

    def blocks() -> Iterable[Block]:
        return streamed_blocks(shapes, dtype, produce, BLOCK, {"origin": origin})

    kept = kept_file(workspace, kind, origin, blocks, piece)
    return kept.extents({name: name for name in shapes})


def origin_of(workspace: Workspace, key: str, files: Sequence[str]) -> str:
    """The hash of what a vector is made from."""
    origin = repr((key, *map(workspace.prints.of, files))).encode("utf-8", "surrogateescape")
    return hashlib.sha256(origin).hexdigest()


def kept_file(
    workspace: Workspace,
    kind: str,
    origin: str,
    blocks: Callable[[], Iterable[Block]],
    piece: Callable[[str, int, int], Block],
) -> TensorFile:
    """A file of tensors of `blocks`, the first of which is its header; `piece` gives the bytes of elements of one.
    Raises OutputError."""
    stem = f"{kind}-{origin[:16]}"
    try:
        with OpenFolder.within(workspace.folder, make=True) as folder:
            for name in folder.names():
                if name.startswith(f"{stem}-") and name.endswith(".safetensors"):
                    with suppress(OSError, StepFileError):
                        if (found := _known(folder, name, stem, blocks, piece)) is not None:
                            return found
            with folder.staged(f"{stem}.safetensors") as file:
                digest = hashlib.sha256()
                file.write(_hashed(blocks(), digest.update))
                name = f"{stem}-{digest.hexdigest()[:32]}.safetensors"
                file.publish(name)
            folder.sync()
    except OSError as error:
        raise OutputError(
            f"{error.filename or workspace.folder}: cannot be written: {error.strerror or error}. A reference that is "
            f"averaged or permuted needs a file in {workspace.folder}."
        ) from error
    return read_header(str(workspace.folder / name))


def streamed_blocks(
    shapes: Shapes, dtype: np.dtype, produce: Produce, block: int, metadata: Mapping[str, str]
) -> Iterator[bytes]:
    """The bytes of a safetensors file of tensors of one dtype (float32 or float64), with `metadata` in its header:
    block by block, as they need not fit in memory."""
    code = {"<f4": "F32", "<f8": "F64"}[dtype.str]
    yield header_block({name: (code, shape) for name, shape in shapes.items()}, metadata)
    for name, shape in shapes.items():
        numel = math.prod(shape)
        for start in range(0, numel, block):
            yield produce(name, start, min(numel, start + block)).tobytes()


def header_block(tensors: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str]) -> bytes:
    """The header of a safetensors file of tensors, {name: (dtype's code, shape)}, one after the other."""
    header, position = {}, 0
    for name, (code, shape) in tensors.items():
        end = position + math.prod(shape) * ITEM_SIZE[code]
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps({"__metadata__": dict(metadata), **header}).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _hashed(blocks: Iterable[Block], update: Callable[[Block], object]) -> Iterable[Block]:
    for block in blocks:
        update(block)
        yield block


def _known(
    folder: OpenFolder,
    name: str,
    stem: str,
    blocks: Callable[[], Iterable[Block]],
    piece: Callable[[str, int, int], Block],
) -> TensorFile | None:
    """A file that is there, if it is what would be written. Raises OSError, StepFileError."""
    descriptor = open_regular(name, folder=folder.descriptor, follow=False)
    with os.fdopen(descriptor, "rb") as file:
        head = next(iter(blocks()))
        if file.read(len(head)) != bytes(head):
            return None
        digest = hashlib.sha256(head)
        while part := file.read(1 << 20):
            digest.update(part)
        if name != f"{stem}-{digest.hexdigest()[:32]}.safetensors":
            return None
        header = read_header(same_path(descriptor, folder.path / name))
        if not _pieces_are_right(header, piece):
            return None
    return header._replace(path=str(folder.path / name))


def _pieces_are_right(header: TensorFile, piece: Callable[[str, int, int], Block]) -> bool:
    extents = header.extents({name: name for name in header.layout.specs})
    names = [name for name, extent in extents.items() if extent.numel]
    chosen = secrets.SystemRandom().choices(names, [extents[name].numel for name in names], k=PIECES) if names else []
    with ExtentReader() as reader:
        for name in chosen:
            extent = extents[name]
            start = secrets.randbelow(max(1, extent.numel - PIECE + 1))
            stop = min(extent.numel, start + PIECE)
            size = extent.length // math.prod(extent.shape)
            if bytes(reader.raw(extent, start * size, (stop - start) * size)) != piece(name, start, stop):
                return False
    return True
