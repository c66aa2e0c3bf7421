"""files/trees: a folder, a tar file and a zip file answer alike, and what is crafted is refused."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save, save_file

from trajcheck.errors import RunError, StepFileError
from trajcheck.files.extent_reader import ExtentReader
from trajcheck.files.trees.opening import open_tree
from trajcheck.files.trees.tree import Tree

LONG = "d" * 70 + "/" + "e" * 70 + "/weights.safetensors"
WEIGHTS = save({"w": np.arange(6.0)})
FILES = {"a.json": b'{"step": 3}', "checkpoint-2/model.safetensors": WEIGHTS, LONG: WEIGHTS, "empty": b""}


def folder(path: Path) -> Path:
    for name, data in FILES.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def tar(path: Path, style: int, *more: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w", format=style) as file:
        for name, data in FILES.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.size = len(data)
            file.addfile(entry, io.BytesIO(data))
        for entry in more:
            file.addfile(entry, io.BytesIO(bytes(entry.size)) if entry.isreg() else None)
    return path


def zipped(path: Path, *more: tuple[str, bytes, int]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, data in FILES.items():
            with file.open(zipfile.ZipInfo(name), "w", force_zip64=name == LONG) as entry:
                entry.write(data)
        for name, data, how in more:
            file.writestr(name, data, how)
    return path


MAKERS: dict[str, Callable[[Path], Path]] = {
    "folder": folder,
    "gnu": lambda path: tar(path / "x", tarfile.GNU_FORMAT),
    "pax": lambda path: tar(path / "x.tar", tarfile.PAX_FORMAT),
    "ustar": lambda path: tar(path / "x.tar", tarfile.USTAR_FORMAT),
    "zip": lambda path: zipped(path / "x.zip"),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_what_is_in_it(kind: str, tmp_path: Path) -> None:
    tree = open_tree(MAKERS[kind](tmp_path))
    assert isinstance(tree, Tree)
    assert tree.folders() == ["checkpoint-2", "d" * 70] and tree.files() == ["a.json", "empty"]
    assert tree.folders("d" * 70) == ["e" * 70] and tree.files("checkpoint-2") == ["model.safetensors"]
    assert tree.folders("nowhere") == [] and tree.holds(LONG) and not tree.holds("nowhere/x")
    assert tree.json("a.json") == {"step": 3} and tree.read("empty") == b""
    extent = tree.safetensors(LONG).extents({"w": "w"})["w"]
    read = np.empty(6)
    with ExtentReader() as reader:
        reader.widen(extent, 0, read)
    assert read.tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(StepFileError, match="nowhere"):
        tree.member("nowhere")


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def test_links_in_a_tar_file(tmp_path: Path) -> None:
    """Those to entries are those; others are told when somebody asks."""
    links = [
        link("snapshots/a", "../a.json"),
        link("b", "snapshots/a"),
        link("hard", "a.json", tarfile.LNKTYPE),
        link("out", "../../etc/passwd"),
        link("absolute", "/etc/passwd"),
        link("circle", "circle"),
        link("device", "", tarfile.CHRTYPE),
    ]
    tree = open_tree(tar(tmp_path / "x.tar", tarfile.GNU_FORMAT, *links))
    assert tree is not None
    assert {str(tree.json(name)) for name in ("a.json", "snapshots/a", "b", "hard")} == {"{'step': 3}"}
    for name in ("out", "absolute", "circle"):
        with pytest.raises(StepFileError, match=f"{name}: is a link out of the archive, or to nothing"):
            tree.member(name)
    with pytest.raises(StepFileError, match="device: is no regular file"):
        tree.member("device")


def test_links_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    save_file({"w": np.ones(2)}, tmp_path / "elsewhere" / "secret.safetensors")
    inside = folder(tmp_path / "run")
    os.symlink("../elsewhere/secret.safetensors", inside / "model.safetensors")
    os.symlink(tmp_path / "elsewhere", inside / "checkpoint-9")
    os.symlink("checkpoint-2/model.safetensors", inside / "latest")
    os.symlink(inside, tmp_path / "named")  # the folder itself may be one
    tree = open_tree(tmp_path / "named")
    assert tree is not None and tree.member("latest").size == len(WEIGHTS)
    for name in ("model.safetensors", "checkpoint-9/secret.safetensors"):
        with pytest.raises(StepFileError, match="a link out of the archive"):
            tree.member(name)
    with pytest.raises(StepFileError, match="a link out of the archive"):
        tree.files("checkpoint-9")
    with pytest.raises(StepFileError, match="no name of a file in it"):
        tree.member("../elsewhere/secret.safetensors")


def header(name: str, size: bytes = b"00000000000\0", kind: bytes = b"0", checksum: int = 0) -> bytes:
    block = bytearray(512)
    block[: len(name)] = name.encode()
    block[124:136], block[156:157], block[257:265] = size, kind, b"ustar\x0000"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % (sum(block) + checksum)
    return bytes(block)


END = bytes(1024)
FIRST = header("first")
HOSTILE_TARS = {
    "a size beyond the file": (FIRST + header("x", b"77777777777\0") + END, "is truncated"),
    "a huge binary size": (FIRST + header("x", b"\x80" + b"\x3f" * 11) + END, "is truncated"),
    "a negative size": (FIRST + header("x", b"\xff" * 12) + END, "negative size"),
    "a size that is no number": (FIRST + header("x", b"9z000000000\0") + END, "that is none"),
    "a wrong checksum": (FIRST + header("x", checksum=1) + END, "without its checksum"),
    "a way out": (FIRST + header("a/../../etc/passwd") + END, "lead out of it"),
    "an absolute name": (FIRST + header("/etc/passwd") + END, "lead out of it"),
    "two of one name": (FIRST + header("first") + END, "two entries 'first'"),
    "a description of 8 GB": (FIRST + header("x", b"77777777777\0", b"x") + END, "is truncated"),
    "a pax size that is negative": (
        FIRST + header("p", b"%011o\0" % 11, b"x") + b"11 size=-1\n".ljust(512, b"\0") + header("x") + END,
        "holds a size '-1'",
    ),
    "a pax record that is damaged": (
        FIRST + header("p", b"%011o\0" % 11, b"x") + b"99 size=-1\n".ljust(512, b"\0") + header("x") + END,
        "damaged pax header",
    ),
    "no end": (FIRST + header("x"), "has no end"),
}


@pytest.mark.parametrize("what", HOSTILE_TARS)
def test_crafted_tar_files(what: str, tmp_path: Path) -> None:
    data, told = HOSTILE_TARS[what]
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises(RunError, match=told):
        open_tree(tmp_path / "x.tar")


def test_a_sparse_entry(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(header("x", kind=b"S") + END)
    tree = open_tree(tmp_path / "x.tar")
    with pytest.raises(StepFileError, match="sparse"):
        tree and tree.member("x")


def test_a_truncated_tar_file(tmp_path: Path) -> None:
    whole = tar(tmp_path / "x.tar", tarfile.GNU_FORMAT).read_bytes().rstrip(b"\0")
    for cut in (len(whole) - 1, len(whole) // 2):
        (tmp_path / "x.tar").write_bytes(whole[:cut])
        with pytest.raises(RunError, match=r"truncated|too early"):
            open_tree(tmp_path / "x.tar")


def test_packed_files(tmp_path: Path) -> None:
    """What is packed is never unpacked: not one entry, and not a whole archive."""
    bomb = (
        "bomb.safetensors",
        bytes(3_000_000),
        zipfile.ZIP_DEFLATED,
    )
    tree = open_tree(zipped(tmp_path / "x.zip", bomb))
    assert tree is not None and tree.files() == ["a.json", "bomb.safetensors", "empty"]
    with pytest.raises(StepFileError, match=r"bomb\.safetensors: is packed, of 3,000,000 bytes.*zip -0"):
        tree.member("bomb.safetensors")
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as file:
        file.add(tmp_path / "x.zip", "x.zip")
    with pytest.raises(RunError, match=r"is packed \(gzip\).*gunzip x\.tar\.gz"):
        open_tree(tmp_path / "x.tar.gz")


def test_crafted_zip_files(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="lead out of it"):
        open_tree(zipped(tmp_path / "way.zip", ("../../etc/passwd", b"x", zipfile.ZIP_STORED)))
    data = bytearray(zipped(tmp_path / "x.zip").read_bytes())
    at = data.rfind(b"PK\x01\x02")
    data[at + 42 : at + 46] = bytes(4)  # the last entry lies where the first does
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(RunError, match=r"calls an entry|overlap"):
        open_tree(tmp_path / "x.zip")
