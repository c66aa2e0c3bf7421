"""trajcheck/files/opening.py: what is no regular file is refused at once, and nothing large is read whole."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from trajcheck.files.opening import (
    NotRegularError,
    TooLargeError,
    open_regular,
    opened,
    read_bytes,
    read_json,
    read_text,
    same_path,
)
from trajcheck.files.walking import make_folders, walk


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))


def link_to_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("p"))
    path.symlink_to(path.with_name("p"))


STRANGE: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "socket": bind,
    "folder": Path.mkdir,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "link to a pipe": link_to_pipe,
}


@pytest.mark.parametrize("kind", STRANGE)
def test_what_is_no_regular_file(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file"
    STRANGE[kind](path)
    before = len(os.listdir("/proc/self/fd"))
    for read in (open_regular, read_bytes, read_text, read_json):
        with pytest.raises(NotRegularError, match="not a regular file"):
            read(path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_sizes_are_looked_at_first(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    os.truncate(path, 64 << 30)
    with pytest.raises(TooLargeError, match="68,719,476,736 bytes, and expected are 100,000,000 at most"):
        read_json(path)
    path.write_bytes(b"12345")
    assert read_bytes(path, 5) == b"12345"
    with pytest.raises(TooLargeError):
        read_bytes(path, 4)


def test_links_are_followed_where_they_may_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    assert read_text(tmp_path / "link") == "x"
    with pytest.raises(OSError, match="symbolic links"):
        open_regular(tmp_path / "link", follow=False)


def test_the_descriptor_is_of_what_was_opened(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("first")
    with opened(path) as file:
        path.unlink()
        os.mkfifo(path)
        assert Path(same_path(file.fileno(), path)).read_text() == "first"


def test_folders_of_any_depth(tmp_path: Path) -> None:
    """1,200 levels: a walk that calls itself ends at 1,000."""
    deep = tmp_path.joinpath(*["d"] * 1200)
    made: list[Path] = []
    make_folders(deep, made)
    assert made[0] == tmp_path / "d" and made[-1] == deep
    (deep / "file").touch()
    (tmp_path / "d" / "loop").symlink_to(tmp_path)
    found = list(walk(tmp_path))
    assert len(found) == 1201 and found[-1] == (str(deep), [], ["file"])
    for place, _, _ in reversed(found[1:]):  # neither may pytest be left with it
        for entry in os.listdir(place):
            if entry != "d":
                os.unlink(os.path.join(place, entry))
        os.rmdir(place)


def test_a_folder_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    told: list[OSError] = []
    assert list(walk(tmp_path / "none", told.append)) == [] and told[0].filename == str(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        make_folders(tmp_path / "file")
