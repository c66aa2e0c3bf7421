"""trajcheck/files/folders.py: what is written goes nowhere else, changes nothing that stands, and is whole."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from remains import DEAD, ELSEWHERE, temporary_of

from trajcheck.files import folders
from trajcheck.files.folders import LinkError, OpenFolder, open_log
from trajcheck.files.leftovers import temporary_name
from trajcheck.files.opening import NotRegularError
from trajcheck.files.whole_files import is_written, write_bytes, write_json


def rights(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_link_at_the_name_of_a_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names cannot be told; and were one told, what is there is not opened."""
    assert len({temporary_name("steps.csv") for _ in range(100)}) == 100
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in [f".run.json.{pid}.tmp" for pid in (os.getpid(), os.getpid() + 1)]:
        (tmp_path / name).symlink_to(victim)
    write_json(tmp_path / "run.json", {})
    monkeypatch.setattr(folders, "temporary_name", lambda name: ".guessed")
    for plant in (lambda path: path.symlink_to(victim), lambda path: os.link(victim, path)):
        plant(tmp_path / ".guessed")
        with pytest.raises(FileExistsError):
            write_bytes(tmp_path / "new", b"x")
        (tmp_path / ".guessed").unlink(missing_ok=True)
    assert victim.read_text() == "precious" and not (tmp_path / "new").exists()


def test_a_link_in_the_place_of_a_file_is_replaced_and_in_that_of_a_folder_refused(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_text("precious")
    out = tmp_path / "out"
    out.mkdir()
    (out / "file").symlink_to(victim / "file")
    write_bytes(out / "file", b"x")
    assert not (out / "file").is_symlink() and (victim / "file").read_text() == "precious"
    (out / "scalars").symlink_to(victim)
    with OpenFolder.at(out) as folder, pytest.raises(LinkError, match="not followed"):
        folder.inner("scalars", make=True)
    for make in (False, True):
        with pytest.raises(LinkError):
            OpenFolder.within(out / "scalars", make=make)
    (tmp_path / "named").symlink_to(out)  # what somebody names may be a link
    write_bytes(tmp_path / "named" / "other", b"y")
    assert (out / "other").read_bytes() == b"y"


def test_rights_stay_as_they_were_narrowed(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        path = tmp_path / "open" / "file"
        path.parent.mkdir()
        write_bytes(path, b"1")
        assert rights(path) == 0o644
        for mode in (0o600, 0o640, 0o664):
            path.chmod(mode)
            write_bytes(path, b"2")
            assert rights(path) == mode
        closed = tmp_path / "closed"
        closed.mkdir(0o700)
        write_bytes(closed / "file", b"1")
        with OpenFolder.at(closed) as folder, folder.inner("figures", make=True):
            assert rights(closed / "file") == 0o600 and rights(closed / "figures") == 0o700
    finally:
        os.umask(before)


def test_nothing_is_left_of_what_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_text("before")

    def blocks():  # type: ignore[no-untyped-def]
        yield b"half"
        raise KeyboardInterrupt

    with OpenFolder.at(tmp_path) as folder, pytest.raises(KeyboardInterrupt):
        folder.write("file", blocks())

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_bytes(path, b"x")
    assert os.listdir(tmp_path) == ["file"] and path.read_text() == "before"
    assert is_written(path, b"before") and not is_written(path, b"befor") and not is_written(path, b"before!")


def test_leftovers_are_ours_and_of_the_dead(tmp_path: Path) -> None:
    work = temporary_of(DEAD, "work")
    (tmp_path / work).mkdir()
    (tmp_path / work / "vector").touch()
    gone = [temporary_of(DEAD, "a"), temporary_of(DEAD, "b", ELSEWHERE)]
    kept = [temporary_of(os.getpid(), "a"), temporary_of(os.getppid(), "a"), temporary_of(DEAD, "a", ELSEWHERE)]
    kept += [".draft.31337000.tmp", ".unfinished-node7-31337000", f".a.{'0' * 12}-1-{'0' * 15}.tmp"]
    for name in (*gone, *kept):
        (tmp_path / name).touch()
    os.utime(tmp_path / gone[1], (0, 0))
    link, folder_of_that_name = temporary_of(DEAD, "link"), temporary_of(DEAD, "folder")
    (tmp_path / link).symlink_to("nowhere")
    (tmp_path / folder_of_that_name).mkdir()
    with OpenFolder.at(tmp_path) as folder:
        folder.remove_leftovers()
    assert set(os.listdir(tmp_path)) == {*kept, link, folder_of_that_name}


def test_a_log_is_added_to_through_no_link(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "link").symlink_to("victim")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(LinkError):
        open_log(tmp_path / "link")
    with pytest.raises(NotRegularError):
        open_log(tmp_path / "pipe")
    for _ in range(2):
        with open_log(tmp_path / "log") as log:
            log.write("line \udce4\n")
    assert (tmp_path / "log").read_text() == "line \\udce4\n" * 2 and (tmp_path / "victim").read_text() == "precious"
    with open_log(Path(os.devnull)) as log:
        log.write("x")
