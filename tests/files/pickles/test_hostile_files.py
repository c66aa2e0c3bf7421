"""Files that were made to do harm: nothing in them is imported, opened or run, and each is refused by its reason."""

from __future__ import annotations

import os
import random
import struct
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import hostile_files as h
import pytest

from trajcheck.errors import StepFileError
from trajcheck.files.pickles import budget, opcodes
from trajcheck.files.pickles.inert import Inert
from trajcheck.files.pickles.torch_file import TorchFile, read_torch_file
from trajcheck.files.pickles.walking import plain

_EVENTS: list[tuple[str, str]] | None = None


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _EVENTS is not None:
        _EVENTS.append((event, "" if not arguments or isinstance(arguments[0], int) else str(arguments[0])))


@contextmanager
def nothing_happens(path: Path) -> Iterator[None]:
    """But that this one file is opened, in little time and memory."""
    global _EVENTS
    if not hasattr(sys, "_trajcheck_hears"):  # a hook stays for as long as the process
        sys.addaudithook(_hear)
        sys._trajcheck_hears = True  # type: ignore[attr-defined]
    begun = time.process_time()
    tracemalloc.start()
    _EVENTS = []
    try:
        yield
    finally:
        heard, _EVENTS = _EVENTS, None
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert {event for event in heard if event[0] != "builtins.id"} <= {
        ("open", str(path)),
        ("open", ""),  # by its descriptor
    }
    assert time.process_time() - begun < 3 and peak < 60_000_000


@pytest.fixture(autouse=True)
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MOST_MEMORY", 20_000_000)
    monkeypatch.setattr(opcodes, "MOST_OPERATIONS", 25_000)
    monkeypatch.setattr(budget, "MOST_ODD_KEYS", 500)


def read(path: Path) -> TorchFile:
    with nothing_happens(path):
        return read_torch_file(str(path))


def refused(path: Path, reason: str) -> None:
    with nothing_happens(path), pytest.raises(StepFileError, match=reason):
        read_torch_file(str(path))


LONG_TUPLE = b")" + b"\x85" * 5_000
LAUGHS = b"]" + b"2\x86" * 60  # pairs of pairs of ..., all the same
SAME_HASH = [h.tuple_of(h.whole(n), h.whole(1)) + b"N" for n in range(1_000)]
BIG = b"](" + b"N" * 15_000 + b"eq\x01"

PICKLES = {
    "os.system": (h.called("os", "system", h.text("touch /tmp/harm")), "names os.system, .* made to do harm"),
    "posix": (h.text("posix") + h.text("system") + b"\x93" + h.tuple_of(h.text("true")) + b"R", "names posix.system"),
    "inst": (b"(" + h.text("true") + b"ios\nsystem\n", "names os.system"),
    "obj": (b"(" + h.named("subprocess", "Popen") + h.text("true") + b"o", "names subprocess.Popen"),
    "newobj": (h.named("subprocess", "Popen") + h.tuple_of(h.text("true")) + b"\x81", "names subprocess.Popen"),
    "eval": (h.called("builtins", "eval", h.text("1")), "names builtins.eval"),
    "exec of python 2": (h.called("__builtin__", "exec", h.text("1")), "names builtins.exec"),
    "a name in a name": (h.named("os.path", "join"), "names os.path.join"),
    "extension": (b"\x82\x01", "copyreg's registry"),
    "buffer": (b"\x97", "a buffer outside it"),
    "persistent": (h.text("elsewhere") + b"Q", "no storage"),
    "marks": (b"(" * 5_000, "containers within one another"),
    "nested": (LONG_TUPLE, "more than 1,000 deep"),
    "nested key": (b"}" + LONG_TUPLE + b"Ns", "a tuple as key"),
    "equal hashes": (b"}(" + b"".join(SAME_HASH) + b"u", "keys that are tuples"),
    "list as key": (b"}]Ns", "a key of type list"),
    "long number": (b"\x8b" + struct.pack("<i", 2**31 - 1), "a number of"),
    "negative length": (b"\x8b" + struct.pack("<i", -5), "a number of"),
    "long text": (b"\x8d" + struct.pack("<Q", 2**62), "longer than itself"),
    "long bytes": (b"\x8e" + struct.pack("<Q", 2**63 + 1), "longer than itself"),
    "long frame": (b"\x95" + struct.pack("<Q", 2**62), "longer than itself"),
    "endless line": (b"c" + b"a" * 5_000, "does not end"),
    "memory": (BIG + b"(" + (h.named("builtins", "set") + b"h\x01\x85R") * 20 + b"t", "bytes of memory"),
    "copies": (BIG + b"(" + (h.named("collections", "deque") + b"h\x01\x85R") * 100 + b"t", "bytes of memory"),
    "operations": (b"N0" * 15_000 + b"N", "more than 25,000 operations"),
    "memo": (b"h\x07", "a reference that is not known"),
    "underflow": (b"R", "takes more from the stack"),
    "nothing": (b"", "is damaged"),
    "unknown operation": (b"\xff", "not known"),
    "sets in a text": (h.text("x") + b"NNs", "sets a value in a str"),
    "appends to a tuple": (b")Na", "appends to a tuple"),
    "calls a text": (h.text("x") + b")R", "calls a str"),
    "state of a text": (h.text("x") + b"}b", "sets attributes of a str"),
    "negative shape": (h.tensor(shape=(-6,)), "not natural numbers"),
    "negative strides": (h.tensor(strides=(-1,)), "not natural numbers"),
    "negative offset": (h.tensor(offset=-1), "do not fit together"),
    "absurd offset": (h.tensor(offset=2**62), "reach beyond it"),
    "absurd strides": (h.tensor(strides=(2**62,)), "reach beyond it"),
    "absurd shape": (h.tensor(shape=(2**40, 2**40), strides=(0, 0)), "do not fit together"),
    "many dimensions": (h.tensor(shape=(1,) * 100, strides=(1,) * 100), "not natural numbers"),
    "beyond its storage": (h.tensor(shape=(7,)), "reach beyond it"),
    "absurd storage": (h.tensor(held=h.storage(numel=2**60)), "whose entry has 24"),
    "another file": (h.tensor(held=h.storage(key="../../../etc/passwd")), "whose entry is not there"),
    "no storage": (h.tensor(held=h.text("0")), "no storage"),
    "array": (
        h.called("numpy.core.multiarray", "_reconstruct", h.named("numpy", "ndarray"), h.tuple_of(), h.text("b"))
        + h.tuple_of(h.whole(1), h.tuple_of(h.whole(2**50)), h.called("numpy", "dtype", h.text("f8")), b"\x89C\x01a")
        + b"b",
        "an array of numpy of shape",
    ),
}


@pytest.mark.parametrize("name", PICKLES)
def test_pickles(tmp_path: Path, name: str) -> None:
    value, reason = PICKLES[name]
    refused(h.archive(tmp_path / "x.pt", h.pickled(value)), reason)
    if name not in ("absurd storage", "another file", "nested"):
        refused(h.legacy(tmp_path / "old.pt", h.pickled(value)), reason)


def test_classes_of_anybody_are_not_imported(tmp_path: Path) -> None:
    value = h.called("antigravity", "Fly", h.text("up")) + b"}" + h.text("a") + b"Nsb"
    found = read(h.archive(tmp_path / "x.pt", h.pickled(value))).value
    assert isinstance(found, Inert) and found.of == "antigravity.Fly" and found.attributes == {"a": None}
    assert "antigravity" not in sys.modules


def test_what_is_shared_or_holds_itself_is_walked_once(tmp_path: Path) -> None:
    path = h.archive(tmp_path / "x.pt", h.pickled(b"}q\xff" + h.text("a") + LAUGHS + b"s" + h.text("b") + b"h\xffs"))
    file = read(path)
    with pytest.raises(StepFileError, match="holds no state dict"):
        file.state_dicts()
    assert plain(file.value)["a"] is not None


def beyond(path: Path) -> Path:
    place = h.directory_entry(h.sound(path), "/data/1") + 42
    return h.patched(path, place, struct.pack("<I", 10**6))


def overlapping(path: Path) -> Path:
    """The second storage is said to lie where the first does."""
    places = [h.directory_entry(h.sound(path), f"/data/{n}") + 42 for n in (0, 1)]
    return h.patched(path, places[1], path.read_bytes()[places[0] : places[0] + 4])


def inside(path: Path) -> Path:
    """A whole archive as a storage of another: its entry is listed too."""
    inner = h.archive(path.with_suffix(".inner"), h.pickled(b"}"))
    outer = h.archive(path, h.pickled(b"N"), {"data/9": inner.read_bytes()})
    data = bytearray(outer.read_bytes())
    entry = h.directory_entry(outer, "/data/0")
    data[entry + 42 : entry + 46] = struct.pack("<I", data.find(b"archive/data/0", data.find(b"/data/9")) - 30)
    path.write_bytes(data)
    return path


def bomb(path: Path) -> Path:
    return h.archive(path, h.pickled(b"N"), {"data/1": bytes(3_000_000)}, packed=True)


def short(path: Path) -> Path:
    h.sound(path)
    path.write_bytes(path.read_bytes()[:-30])
    return path


def many(path: Path) -> Path:
    h.archive(path, h.pickled(b"N"))
    end = path.read_bytes().rfind(b"PK\x05\x06")
    return h.patched(path, end + 8, struct.pack("<HHI", 65_000, 65_000, 2**31))


def wide(path: Path) -> Path:
    end = h.sound(path).read_bytes().rfind(b"PK\x06\x06")
    return h.patched(path, end + 24, struct.pack("<QQQQ", 2**60, 2**60, 2**62, 2**62))


def elsewhere(path: Path) -> Path:
    end = h.sound(path).read_bytes().rfind(b"PK\x06\x07")
    return h.patched(path, end + 8, struct.pack("<Q", 2**63))


def with_entry(name: str) -> Callable[[Path], Path]:
    return lambda path: h.archive(path, h.pickled(b"N"), {name: b"x"})


def other_folder(path: Path) -> Path:
    h.archive(path, h.pickled(b"N"))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("/etc/passwd", b"x")
    return path


ARCHIVES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "overlapping": (overlapping, "calls an entry .* otherwise"),
    "within an entry": (inside, "overlap"),
    "zip bomb": (bomb, "a packed or encrypted entry"),
    "encrypted": (lambda p: h.patched(h.sound(p), h.directory_entry(p, "/data/0") + 8, b"\x01"), "encrypted"),
    "two descriptions": (h.twice, "has two entries b'archive/data.pkl'"),
    "no description": (
        lambda p: h.changed(h.changed(h.sound(p), b"a.pkl", b"b.pkl", 0), b"a.pkl", b"b.pkl"),
        "without",
    ),
    "path": (with_entry("../../../harm"), "which torch.save does not write"),
    "absolute": (other_folder, "which torch.save does not write"),
    "backslash": (with_entry("..\\harm"), "which torch.save does not write"),
    "beyond the file": (beyond, "lies beyond the file"),
    "truncated": (short, "no end of an archive|truncated"),
    "half": (lambda p: h.written(p, h.sound(p).read_bytes()[:1000]), "no end of an archive"),
    "followed": (lambda p: h.written(p, h.sound(p).read_bytes() + b"more"), "goes on behind"),
    "many entries": (many, "does not fit it"),
    "absurd numbers of 64 bits": (wide, "does not fit it"),
    "end elsewhere": (elsewhere, "beyond the file"),
    "big-endian": (lambda p: h.archive(p, h.pickled(b"N"), {"byteorder": b"big"}), "big-endian"),
    "two values": (lambda p: h.archive(p, h.pickled(b"N") * 2), "goes on behind the value"),
    "legacy, big-endian": (lambda p: h.legacy(p, h.pickled(h.tensor()), little=b"\x89"), "big-endian"),
    "legacy, absurd storage": (
        lambda p: h.legacy(p, h.pickled(h.tensor()), storages=struct.pack("<q", 2**60) + bytes(24)),
        "is damaged, or lies beyond",
    ),
    "legacy, absurd both": (
        lambda p: h.legacy(p, h.pickled(h.tensor(held=h.storage(numel=2**60))), storages=struct.pack("<q", 2**60)),
        "is damaged, or lies beyond",
    ),
    "legacy, no storages": (lambda p: h.legacy(p, h.pickled(h.tensor()), keys=b"]"), "lacks a storage"),
    "legacy, storages of no name": (lambda p: h.legacy(p, h.pickled(h.tensor()), keys=b"N"), "damaged list"),
    "legacy, followed": (
        lambda p: h.legacy(p, h.pickled(h.tensor()), storages=struct.pack("<q", 6) + bytes(99)),
        "goes on for 75 bytes",
    ),
    "another format": (lambda p: h.written(p, b"GIF89a" + bytes(500)), "another format"),
    "empty": (lambda p: h.written(p, b""), "truncated, or of another format"),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives(tmp_path: Path, name: str) -> None:
    make, reason = ARCHIVES[name]
    refused(make(tmp_path / "x.pt"), reason)


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    (tmp_path / "zero.pt").symlink_to("/dev/zero")
    (tmp_path / "loop.pt").symlink_to(tmp_path / "loop.pt")
    for name in ("pipe.pt", "zero.pt", "loop.pt", ""):
        with pytest.raises(StepFileError, match=r"not a regular file|cannot be read"):
            read_torch_file(str(tmp_path / name))


def test_a_sparse_file_costs_nothing(tmp_path: Path) -> None:
    with (tmp_path / "x.pt").open("wb") as file:
        file.write(h.START)
        file.truncate(10**12)
    refused(tmp_path / "x.pt", "does not begin")
    with h.sound(tmp_path / "y.pt").open("r+b") as file:
        file.truncate(10**12)
    refused(tmp_path / "y.pt", "no end of an archive")


def test_damage_anywhere(tmp_path: Path) -> None:
    """One byte changed, or the rest cut off: an error of ours, or a value."""
    import torch

    sources = [h.sound(tmp_path / "a.pt").read_bytes()]
    torch.save({"w": torch.ones(3), "s": [1, {2: "x"}]}, tmp_path / "b.pt", _use_new_zipfile_serialization=False)
    sources.append((tmp_path / "b.pt").read_bytes())
    chosen, path, failed = random.Random(0), tmp_path / "x.pt", 0
    for data in sources * 60:
        place = chosen.randrange(len(data))
        path.write_bytes(data[:place] + bytes([chosen.randrange(256)]) + data[place + 1 :] * chosen.choice((0, 1, 1)))
        failed += 1
        with suppress(StepFileError):
            for table in read_torch_file(str(path)).state_dicts().values():
                for name, tensor in table.items():
                    tensor.extent(name)
            failed -= 1
    assert failed > 40
