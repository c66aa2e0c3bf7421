"""The format of torch.save before 1.6, and of `_use_new_zipfile_serialization=False`: pickles one after the other (a
magic number, a version, what machine wrote it, the value, the keys of the storages), then each storage as the number of
its elements in 8 bytes and its bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO

from trajcheck.files.pickles.budget import MOST_BYTES, Budget, PickleError
from trajcheck.files.pickles.inert import Global
from trajcheck.files.pickles.opcodes import Outside, Pickle, no_outside
from trajcheck.files.pickles.tensors import Storage

#: torch's, as its pickle begins: of protocol 2 and of later ones.
_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001
_NUMBER = _MAGIC.to_bytes(10, "little")


def is_legacy(beginning: bytes) -> bool:
    """Whether a file begins as such a one does."""
    return beginning[:1] == b"\x80" and _NUMBER in beginning[:40]


def read_legacy(file: BinaryIO, path: str, size: int, new: Callable[[Any], Storage]) -> Any:
    """The value of a file that begins where `file` stands, in which its storages, made by `new`, get their places.
    Raises PickleError, OSError."""
    budget, storages = Budget(), dict[str, list[Storage]]()
    end = file.tell() + size

    def outside(given: Any) -> Any:
        if isinstance(given, tuple) and given and given[0] == "module" and len(given) > 1:
            return given[1] if isinstance(given[1], Global) else Global("builtins", "object")
        if isinstance(given, tuple) and len(given) == 6 and given[5] is not None:
            raise PickleError("has a view of a storage, as torch before 0.4 wrote it: load and save it again")
        made = new(given)
        known = storages.setdefault(made.key, [])
        known.append(made)
        if known[0].nbytes != made.nbytes:
            raise PickleError(f"says two lengths of storage {made.key!r:.60}")
        return made

    def load(outside: Outside = no_outside) -> Any:
        return Pickle(file, min(MOST_BYTES, end - file.tell()), outside, budget).load()

    if load() != _MAGIC or load() != _VERSION:
        raise PickleError("is of another version")
    machine = load()
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise PickleError("was written by a machine of big-endian numbers, which are not read: load and save it again")
    value, keys = load(outside), load()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or len({*keys}) != len(keys):
        raise PickleError("has a damaged list of storages")
    for key in keys:
        held = storages.get(key)
        numel = int.from_bytes(file.read(8), "little")
        if held is None or numel != held[0].numel or file.tell() + held[0].nbytes > end:
            raise PickleError(f"has a storage {key!r:.60} that is damaged, or lies beyond the file")
        for each in held:
            each.path, each.offset = path, file.tell()
        file.seek(held[0].nbytes, 1)
    if {*storages} - {*keys}:
        raise PickleError("lacks a storage that its tensors lie in")
    if file.tell() != end:
        raise PickleError(f"goes on for {end - file.tell():,} bytes behind its storages")
    return value
