"""trajcheck/files/leases.py: one holder, on whatever machine, and no dead one holds for long."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from pathlib import Path

import pytest
from remains import DEAD, ELSEWHERE, lease_of

from trajcheck.files import leases
from trajcheck.files.leases import HeldError, Holder, holder_of, take

NAME = ".lease"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("BEAT", 0.05), ("SILENT", 0.5), ("UNSAID", 0.1)):
        monkeypatch.setattr(leases, name, seconds)


def test_one_holder_who_is_named_and_gives_signs_of_life(tmp_path: Path) -> None:
    with take(tmp_path, NAME) as lease:
        [name] = os.listdir(tmp_path)
        said = json.loads((tmp_path / name).read_text())
        assert name == NAME and said["process"] == os.getpid() and said["token"] == lease.token
        with pytest.raises(HeldError, match=f"process {os.getpid()} on .*, since {said['since']}"):
            take(tmp_path, NAME)
        before = (tmp_path / NAME).stat().st_mtime_ns
        until = time.monotonic() + 10
        while (tmp_path / NAME).stat().st_mtime_ns == before and time.monotonic() < until:
            time.sleep(0.01)
        assert (tmp_path / NAME).stat().st_mtime_ns > before and not lease.lost
    assert os.listdir(tmp_path) == [] and holder_of(tmp_path, NAME) is None
    lease.release()  # once more does nothing


def test_who_lives_holds_and_who_is_dead_does_not(tmp_path: Path) -> None:
    path = tmp_path / NAME
    for holder in ((os.getppid(),), (DEAD, ELSEWHERE), (os.getppid(), ELSEWHERE)):
        lease_of(path, *holder)
        with pytest.raises(HeldError):
            take(tmp_path, NAME)
    dead = [
        lambda: lease_of(path, DEAD),
        lambda: lease_of(path, os.getpid()),  # an earlier process of this number
        lambda: lease_of(path, os.getppid(), began="1"),  # another one has the number by now
        lambda: os.utime(lease_of(path, os.getppid(), ELSEWHERE), (0, 0)),
        lambda: path.write_text(""),
        lambda: path.write_bytes(b'{"token": \xff'),
        lambda: path.write_text("[" * 5000),
    ]
    for number, leave in enumerate(dead):
        leave()
        with take(tmp_path, NAME) as lease:
            assert (lease.took_over is not None) == (number < 4)


def test_one_who_is_silent_elsewhere_is_watched(tmp_path: Path) -> None:
    """Until the next sign of life, or long enough; what is said of it comes once."""
    path, told = lease_of(tmp_path / NAME, DEAD, ELSEWHERE), list[Holder]()
    began = time.monotonic()
    with take(tmp_path, NAME, wait_for_silence=told.append) as lease:
        assert time.monotonic() - began >= 0.4 and lease.took_over is not None
    assert [holder.host for holder in told] == ["node7"]
    lease_of(path, DEAD, ELSEWHERE)
    ended = threading.Event()

    def live() -> None:
        while not ended.wait(0.2):
            os.utime(path)

    thread = threading.Thread(target=live)
    thread.start()
    try:
        with pytest.raises(HeldError, match="node7"):
            take(tmp_path, NAME, wait_for_silence=told.append)
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize("waits", [False, True])
def test_a_sign_of_life_of_the_future_holds_for_no_longer_than_it_is_one(tmp_path: Path, waits: bool) -> None:
    """A clock that was set back, or a forged file: a recorder waited for ever, and nights ended with nothing done."""
    tomorrow = time.time() + 86_400
    path = lease_of(tmp_path / NAME, os.getppid(), ELSEWHERE)
    os.utime(path, (tomorrow, tomorrow))
    holder = holder_of(tmp_path, NAME)
    assert holder is not None and "last sign of life is 24 h ahead of this clock" in holder.words
    with take(tmp_path, NAME, wait_for_silence=print if waits else None) as lease:
        assert lease.took_over is not None and lease.took_over.place == ELSEWHERE
    lease_of(path, os.getppid(), ELSEWHERE)
    os.utime(path, (tomorrow, tomorrow))
    corrected = threading.Timer(0.05, os.utime, [path])
    corrected.start()
    with pytest.raises(HeldError):
        take(tmp_path, NAME)
    corrected.join()


def test_patience_is_for_those_who_are_ready_soon(tmp_path: Path) -> None:
    first = take(tmp_path, NAME)
    threading.Timer(0.1, first.release).start()
    with take(tmp_path, NAME, patience=10) as second:
        assert not second.lost and second.took_over is None


def test_who_was_taken_for_dead_has_lost_it(tmp_path: Path) -> None:
    with take(tmp_path, NAME) as lease:
        os.unlink(tmp_path / NAME)
        assert lease.lost
        lease_of(tmp_path / NAME, DEAD, ELSEWHERE)
        assert lease.lost
    assert (tmp_path / NAME).exists()  # that of the other


@pytest.mark.parametrize("kind", ["link", "dangling", "hard link", "pipe", "folder"])
def test_what_is_no_lease_is_not_touched(tmp_path: Path, kind: str) -> None:
    victim, path, out = tmp_path / "victim", tmp_path / "out" / NAME, tmp_path / "out"
    out.mkdir()
    if kind != "dangling":
        victim.write_text("precious")
    if kind in ("link", "dangling"):
        path.symlink_to(victim)
    else:
        {"hard link": lambda: os.link(victim, path), "pipe": lambda: os.mkfifo(path), "folder": path.mkdir}[kind]()
    with pytest.raises(OSError, match="not what trajcheck writes there"):
        take(out, NAME)
    assert (victim.read_text() == "precious") if kind != "dangling" else not victim.exists()
    assert os.listdir(out) == [NAME]


def test_a_copied_folder_is_not_held_by_who_is_at_work_in_the_first(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    lease_of(tmp_path / "a" / NAME, os.getppid())
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    with take(tmp_path / "b", NAME):
        pass
    with pytest.raises(HeldError):
        take(tmp_path / "a", NAME)


def test_where_there_are_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with take(tmp_path, NAME) as lease:
        assert not lease.lost and holder_of(tmp_path, NAME) is not None
        with pytest.raises(HeldError):
            take(tmp_path, NAME)
    assert os.listdir(tmp_path) == []


def test_many_at_once_have_it_one_after_the_other(tmp_path: Path) -> None:
    inside, most, lock = 0, 0, threading.Lock()

    def work() -> None:
        nonlocal inside, most
        with take(tmp_path, NAME, patience=30):
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.005)
            with lock:
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1 and os.listdir(tmp_path) == []
