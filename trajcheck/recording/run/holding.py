"""The one recorder that a run has at a time, on whatever machine: a hidden file in the run's folder names it.

A job that was requeued after a crash follows at once where it runs on the machine of the first, whose process is gone;
elsewhere it waits until the first has been silent for long enough, and says so.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from trajcheck.errors import HeldRunError
from trajcheck.files import leases
from trajcheck.files.leases import HeldError, Holder, Lease

#: Hidden, and there while the run is being recorded.
RECORDING = ".recording"


class RunLease(Protocol):
    """What a rank of the job holds of it."""

    token: str

    @property
    def lost(self) -> bool: ...
    def check(self) -> None: ...
    def release(self) -> None: ...


def run_lease(path: Path, say: Callable[[str], object]) -> RunLease:
    """Have a run to this job. Raises HeldRunError while another recorder has it; OSError."""

    def waiting(holder: Holder) -> None:
        say(
            f"{path}: {holder.words} may be recording this run: its last sign of life came {holder.age:.0f} s ago. "
            f"Waiting for the next, until {leases.SILENT:.0f} s have passed"
        )

    try:
        lease = leases.take(path, RECORDING, wait_for_silence=waiting)
    except HeldError as error:
        raise _held(path, error.holder) from error
    if lease.took_over is not None:
        gone = "ended without closing it" if lease.took_over.age < leases.SILENT else "has given no sign of life since"
        say(f"{path}: goes on after {lease.took_over.words}, which {gone}")
    return _OfFirstRank(path, lease)


def joined_lease(path: Path, token: str) -> RunLease:
    """What another rank of the same job has of it: `token` is the lease of the first."""
    return _OfAnotherRank(path, token)


def recorded_by(path: Path) -> str:
    """Who is recording a run now, to be added to a sentence; nothing where nobody is."""
    with suppress(OSError):
        holder = leases.holder_of(path, RECORDING)
        return "" if holder is None else f", being recorded by {holder.words}"
    return ""


def _held(path: Path, holder: Holder | None) -> HeldRunError:
    if holder is not None and holder.process == os.getpid():
        return HeldRunError(
            f"{path}: this very process is recording this run, since {holder.since}. A run has one recorder: close() "
            "that one first."
        )
    who = "another process" if holder is None else holder.words
    return HeldRunError(
        f"{path}: is being recorded by {who}. Two trainings would overwrite each other's records: end the other one, "
        "or record into another folder."
    )


class _OfFirstRank:
    def __init__(self, path: Path, lease: Lease) -> None:
        self._path, self._lease, self.token = path, lease, lease.token

    @property
    def lost(self) -> bool:
        return self._lease.lost

    def check(self) -> None:
        if self._lease.lost:
            who = recorded_by(self._path) or ", which is not this process's any more: its file .recording is gone"
            raise HeldRunError(f"{self._path}: another recorder has taken over this run{who}.")

    def release(self) -> None:
        self._lease.release()


class _OfAnotherRank:
    def __init__(self, path: Path, token: str) -> None:
        self._path, self.token = path, token
        self._first: tuple[str, int, str] | None = None  # the process of the first rank
        with suppress(OSError):
            holder = leases.holder_of(path, RECORDING)
            self._first = holder.which if holder is not None and holder.token == token else None

    @property
    def lost(self) -> bool:
        """The first rank may have ended, and nobody else have come; or it has closed its recorder and made the next one
        while this rank still writes what it recorded for the one before."""
        with suppress(OSError):
            holder = leases.holder_of(self._path, RECORDING)
            return holder is not None and holder.token != self.token and holder.which != self._first
        return False

    def check(self) -> None:
        if self.lost:
            raise HeldRunError(f"{self._path}: another recorder has taken over this run{recorded_by(self._path)}.")

    def release(self) -> None:
        """It is the first rank's to release."""
