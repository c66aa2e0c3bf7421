"""A file of torch.save (.pt, .pth, .bin, .ckpt), read in place: its value with tensors as records of where they lie.

    file = read_torch_file("checkpoint.pt")
    file.value                       plain values; StoredTensor, Inert and Global in the place of what is none
    file.state_dicts()["model"]      {name: StoredTensor}; tensor.extent(name) says where its bytes lie
    file.find("iter_num")            a value by its key

Nothing is imported, called or executed, no tensor is read, and torch is not needed. A file of big-endian numbers, a
TorchScript program and the archives of torch before 0.1.10 are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

from trajcheck.errors import StepFileError
from trajcheck.files.opening import NotRegularError, opened, size_of
from trajcheck.files.pickles.alike import AlikePickles
from trajcheck.files.pickles.budget import MOST_BYTES, PickleError
from trajcheck.files.pickles.legacy import is_legacy, read_legacy
from trajcheck.files.pickles.opcodes import Outside, Pickle, no_outside
from trajcheck.files.pickles.tensors import Storage, StoredTensor, storage
from trajcheck.files.pickles.walking import check_depth, find, modules, state_dicts, table
from trajcheck.files.pickles.zip_entries import entries, is_archive
from trajcheck.readable import some_of

_ALIKE = AlikePickles()


class TorchFile(NamedTuple):
    """What a file holds."""

    path: str
    value: Any

    def state_dicts(self) -> dict[str, dict[str, StoredTensor]]:
        """The mappings of names to tensors in it, each by its place: "" is the file itself, "model" what stands there
        under that key. Raises StepFileError where there is none, saying what there is."""
        found = state_dicts(self.value)
        if found:
            return found
        pickled = modules(self.value)
        if pickled:
            what = " and ".join(f"{f'under {place!r} ' if place else ''}{of}" for place, of in pickled.items())
            rest = [repr(key)[:40] for key in table(self.value) if isinstance(self.value, dict) and key not in pickled]
            raise StepFileError(
                f"{self.path}: holds a pickled module, {what:.300}, and no state dict. Such an object means what its "
                "code makes of it, and code in a file is never run. Where you trust the file, load it once and save "
                f"torch.save(model.state_dict(), ...).{f' Beside it there are {some_of(rest, 8)}.' if rest else ''}"
            )
        raise StepFileError(
            f"{self.path}: holds no state dict, a mapping of names to tensors; found {_kind(self.value)}."
        )

    def find(self, *keys: str) -> Any:
        """The value under the first of some keys that is there, in the outermost table; "args.lr" is `lr` in `args`.
        None where there is none."""
        return find(self.value, *keys)


def begins_as_one(beginning: bytes) -> bool:
    """Whether a file of these first bytes may be one of torch.save."""
    return is_archive(beginning) or is_legacy(beginning)


def read_torch_file(path: str, begin: int = 0, length: int | None = None) -> TorchFile:
    """What a file of torch.save holds; `begin` and `length`: of one that lies within another file, as in .distcp.
    Raises StepFileError."""

    def read(file: BinaryIO, size: int) -> Any:
        beginning = file.read(300)
        file.seek(begin)
        if is_archive(beginning):
            return _archived(file, path, begin, size)
        if is_legacy(beginning):
            value = read_legacy(file, path, size, storage)
            check_depth(value)
            return value
        if beginning[257:262] == b"ustar":
            raise PickleError("is a tar archive, as torch before 0.1.10 wrote them: load and save it again")
        raise PickleError("does not begin as a file of torch.save does: it is truncated, or of another format")

    return TorchFile(path, _read(path, begin, length, read))


def read_pickle(path: str, outside: Outside = no_outside) -> Any:
    """The value of a file that is one pickle, as .metadata of torch.distributed.checkpoint. Raises StepFileError."""

    def read(file: BinaryIO, size: int) -> Any:
        if size > MOST_BYTES:
            raise PickleError(f"has {size:,} bytes; expected {MOST_BYTES:,} at most")
        value = Pickle(file, size, outside).load()
        if file.tell() != size:
            raise PickleError(f"goes on for {size - file.tell():,} bytes behind its value")
        check_depth(value)
        return value

    return _read(path, 0, None, read)


def _read(path: str, begin: int, length: int | None, read: Callable[[BinaryIO, int], Any]) -> Any:
    try:
        with opened(path) as file:
            size = size_of(file) - begin
            if begin < 0 or size < (length or 0) or (length or 0) < 0:
                raise PickleError(f"has no {length or 0:,} bytes from {begin:,} on")
            file.seek(begin)
            return read(file, size if length is None else length)
    except NotRegularError as error:
        raise StepFileError(f"{path}: not a regular file; expected one of torch.save.") from error
    except OSError as error:
        raise StepFileError(f"{path}: cannot be read: {error.strerror or error}.") from error
    except PickleError as error:
        raise StepFileError(f"{path}: {error}.") from error


def _archived(file: BinaryIO, path: str, begin: int, size: int) -> Any:
    found = entries(file, begin, size)
    described = found.get("data.pkl")
    if described is None:
        raise PickleError("is an archive without data.pkl, so not of torch.save")
    order = found.get("byteorder")
    if order is not None and (order.length > 10 or _bytes(file, begin + order.offset, order.length) != b"little"):
        raise PickleError("holds numbers in big-endian order, which are not read: load and save it again")
    if described.length > MOST_BYTES:
        raise PickleError(f"has {described.length:,} bytes of description; expected {MOST_BYTES:,} at most")

    def place(made: Storage) -> None:
        entry = found.get(f"data/{made.key}")
        if entry is None or entry.length != made.nbytes:
            there = "is not there" if entry is None else f"has {entry.length:,}"
            raise PickleError(f"has a storage {made.key!r:.60} of {made.nbytes:,} bytes whose entry {there}")
        made.path, made.offset = path, begin + entry.offset

    return _ALIKE.load(_bytes(file, begin + described.offset, described.length), place)


def _bytes(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    data = file.read(length)
    if len(data) < length:
        raise PickleError("ends too early")
    return data


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return f"a table of {', '.join(repr(key)[:40] for key in list(value)[:5]) or 'nothing'}"
    return str(value) if hasattr(value, "of") else type(value).__name__
