"""trajcheck/commands/batch/lock.py: one batch at a time. Whose a lease is, and for how long: test_leases.py."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from archives import statuses, write_archive
from plain_run_files import Outcome
from remains import DEAD, ELSEWHERE, lease_of

from trajcheck.commands.batch.lock import LOCK, HeldError, only_batch, still_ours
from trajcheck.errors import OutputError
from trajcheck.files import leases


def test_the_second_call_says_who_is_at_work(tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    archive, out = write_archive(tmp_path / "archive", ("a",)), tmp_path / "out"
    out.mkdir()
    lease_of(out / LOCK, os.getppid())
    said = cli("batch", archive, "--out", out)
    assert said.code == 0 and said.out.count("\n") == 1
    assert f"process {os.getppid()} on node7, since 2026-01-02" in said.out and "nothing to do" in said.out
    assert not (out / "index.csv").exists()
    lease_of(out / LOCK, DEAD)
    assert cli("batch", archive, "--out", out).code == 0  # the file of a dead one does not hold
    assert statuses(out) == {"a": "done"}
    assert not (out / LOCK).exists()


def test_a_lock_of_the_systems_holds_nobody(tmp_path: Path) -> None:
    """Anybody who may read a file can have that."""
    lease_of(tmp_path / LOCK, DEAD)
    with open(tmp_path / LOCK) as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        with only_batch(tmp_path):
            pass


def test_a_batch_of_another_machine_is_followed_when_it_is_silent(tmp_path: Path) -> None:
    lease_of(tmp_path / LOCK, DEAD, ELSEWHERE)
    with pytest.raises(HeldError, match=f"process {DEAD} on node7"), only_batch(tmp_path):
        pass
    long_ago = time.time() - leases.SILENT - 60
    os.utime(tmp_path / LOCK, (long_ago, long_ago))
    with only_batch(tmp_path) as lease:
        still_ours(tmp_path, lease)
        os.unlink(tmp_path / LOCK)
        lease_of(tmp_path / LOCK, DEAD, ELSEWHERE)
        with pytest.raises(HeldError, match="node7"):
            still_ours(tmp_path, lease)
    assert (tmp_path / LOCK).exists()  # the other's stays


def test_a_folder_that_cannot_be_locked(tmp_path: Path) -> None:
    (tmp_path / LOCK).mkdir()
    with pytest.raises(OutputError, match="cannot be written"), only_batch(tmp_path):
        pass


def test_an_error_inside_is_not_the_locks(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="full"), only_batch(tmp_path):
        raise OSError(errno.ENOSPC, "full")
