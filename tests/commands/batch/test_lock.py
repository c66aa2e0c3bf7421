"""trajcheck/commands/batch/lock.py: one batch at a time, and no owner holds the folder longer than it lives."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from archives import statuses, write_archive
from plain_run_files import Outcome

from trajcheck.commands.batch.lock import LOCK, SILENT, HeldError, only_batch, sign_of_life
from trajcheck.errors import OutputError

HOLD = """
import sys, time
from pathlib import Path
from trajcheck.commands.batch.lock import only_batch
with only_batch(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def holder(out: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, out], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    process.stdout.close()
    return process


def test_the_second_call_says_who_is_at_work(tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    archive, out = write_archive(tmp_path / "archive", ("a",)), tmp_path / "out"
    out.mkdir()
    process = holder(out)
    try:
        said = cli("batch", archive, "--out", out)
        assert said.code == 0 and said.out.count("\n") == 1
        assert f"process {process.pid} on {platform.node()}" in said.out and "nothing to do" in said.out
        assert not (out / "index.csv").exists()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert cli("batch", archive, "--out", out).code == 0  # the file of the dead one does not hold
    assert statuses(out) == {"a": "done"}
    assert (out / LOCK).read_text() == ""


@pytest.mark.parametrize("text", ["", "{", "[]", '{"host": 1}', '{"host": "x", "pid": "y", "since": 0}', "\0\xff"])
def test_a_lock_file_holds_nobody_whatever_it_says(tmp_path: Path, text: str) -> None:
    (tmp_path / LOCK).write_text(text)
    with only_batch(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
        with pytest.raises(HeldError), only_batch(tmp_path):
            pass


@pytest.fixture
def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)


def owner(out: Path, host: str, pid: int) -> None:
    (out / LOCK).write_text(json.dumps({"host": host, "pid": pid, "since": "then"}))


@pytest.mark.usefixtures("without_locks")
def test_where_there_are_no_locks_the_name_counts(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for host, pid in ((platform.node(), os.getppid()), ("elsewhere", 1)):
        owner(tmp_path, host, pid)
        with pytest.raises(HeldError, match=f"process {pid} on {host}, since then"), only_batch(tmp_path):
            pass
    owner(tmp_path, platform.node(), ended.pid)
    with only_batch(tmp_path):
        pass
    owner(tmp_path, "elsewhere", 1)
    long_ago = time.time() - SILENT - 60
    os.utime(tmp_path / LOCK, (long_ago, long_ago))
    sign_of_life(tmp_path)
    with pytest.raises(HeldError), only_batch(tmp_path):
        pass
    os.utime(tmp_path / LOCK, (long_ago, long_ago))
    with only_batch(tmp_path):
        pass


def test_a_folder_that_cannot_be_locked(tmp_path: Path) -> None:
    (tmp_path / LOCK).mkdir()
    with pytest.raises(OutputError, match="cannot be written"), only_batch(tmp_path):
        pass


def test_an_error_inside_is_not_the_locks(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="full"), only_batch(tmp_path):
        raise OSError(errno.ENOSPC, "full")
