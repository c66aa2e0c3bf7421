"""Files made to do harm where somebody opens them: pickles, the zip archives of torch.save, and the format before."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch

from trajcheck.files.pickles.legacy import _MAGIC, _VERSION

START, STOP = b"\x80\x02", b"."


def text(words: str) -> bytes:
    """BINUNICODE."""
    return b"X" + struct.pack("<I", len(words.encode())) + words.encode()


def whole(number: int) -> bytes:
    """A number of any size, as LONG1."""
    data = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def tuple_of(*values: bytes) -> bytes:
    """MARK ... TUPLE."""
    return b"(" + b"".join(values) + b"t"


def named(module: str, name: str) -> bytes:
    """GLOBAL."""
    return f"c{module}\n{name}\n".encode()


def called(module: str, name: str, *arguments: bytes) -> bytes:
    """GLOBAL ... REDUCE."""
    return named(module, name) + tuple_of(*arguments) + b"R"


def storage(key: str = "0", numel: int = 6, kind: str = "FloatStorage") -> bytes:
    """A reference to one."""
    return tuple_of(text("storage"), named("torch", kind), text(key), text("cpu"), whole(numel)) + b"Q"


def tensor(offset: int = 0, shape: tuple[int, ...] = (6,), strides: tuple[int, ...] = (1,), held: bytes = b"") -> bytes:
    """One in a storage."""
    numbers = [tuple_of(*map(whole, each)) for each in (shape, strides)]
    return called("torch._utils", "_rebuild_tensor_v2", held or storage(), whole(offset), *numbers, b"\x89", b"N")


def pickled(*parts: bytes) -> bytes:
    """A pickle of one value."""
    return START + b"".join(parts) + STOP


def archive(path: Path, pickle: bytes, others: Mapping[str, bytes] | None = None, packed: bool = False) -> Path:
    """A file of torch.save around a pickle, with one storage of 24 bytes."""
    method = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in {"data.pkl": pickle, "byteorder": b"little", "data/0": bytes(24), **(others or {})}.items():
            file.writestr(f"archive/{name}", data)
    return path


def legacy(path: Path, pickle: bytes, keys: bytes = b"", storages: bytes = b"", little: bytes = b"\x88") -> Path:
    """A file in the format before 1.6."""
    machine = pickled(b"}", text("little_endian"), little, b"s")
    listed = pickled(keys or b"](" + text("0") + b"e")
    numbers = storages or struct.pack("<q", 6) + bytes(24)
    path.write_bytes(pickled(whole(_MAGIC)) + pickled(whole(_VERSION)) + machine + pickle + listed + numbers)
    return path


def sound(path: Path) -> Path:
    """One by torch itself."""
    torch.save({"model": {"w": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2)}, "step": 3}, path)
    return path


def changed(path: Path, old: bytes, new: bytes, which: int = -1) -> Path:
    """Bytes of a file replaced: at its first, or its last place."""
    data = path.read_bytes()
    place = data.find(old) if which == 0 else data.rfind(old)
    assert place >= 0
    path.write_bytes(data[:place] + new + data[place + len(new) :])
    return path


def directory_entry(path: Path, name: str) -> int:
    """Where an entry stands in the central directory."""
    data = path.read_bytes()
    return data.rfind(b"PK\x01\x02", 0, data.rfind(name.encode()))


def patched(path: Path, place: int, new: bytes) -> Path:
    """Bytes of a file replaced."""
    data = path.read_bytes()
    path.write_bytes(data[:place] + new + data[place + len(new) :])
    return path


def written(path: Path, data: bytes) -> Path:
    """A file of some bytes."""
    path.write_bytes(data)
    return path


def twice(path: Path) -> Path:
    """An archive with two entries of one name."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file, warnings.catch_warnings(action="ignore"):
        for pickle in (pickled(b"}"), pickled(b"]")):
            file.writestr("archive/data.pkl", pickle)
    path.write_bytes(data.getvalue())
    return path
