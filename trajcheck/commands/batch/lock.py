"""One batch at a time in an output folder, whichever machine it is on (files/leases.py)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trajcheck.errors import OutputError
from trajcheck.files import leases
from trajcheck.files.leases import Holder, Lease

log = logging.getLogger("trajcheck.batch")

LOCK = ".batch.lock"


class HeldError(Exception):
    """Another batch is at work; the message says which."""


@contextmanager
def only_batch(out: Path) -> Iterator[Lease]:
    """Hold the output folder while the context lasts. A batch that was killed is followed: at once on its own machine,
    and otherwise when it has been silent for `leases.SILENT` seconds. Raises HeldError, OutputError."""
    try:
        lease = leases.take(out, LOCK)
    except leases.HeldError as error:
        raise HeldError(_words(out, error.holder)) from None
    except OSError as error:
        raise OutputError(
            f"{error.filename or out / LOCK}: cannot be written: {error.strerror}. Choose another folder with --out."
        ) from error
    if lease.took_over is not None:
        log.info("%s: goes on after %s, which is gone", out, lease.took_over.words)
    with lease:
        yield lease


def still_ours(out: Path, lease: Lease) -> None:
    """Raise HeldError where another batch took the folder over, as from a process that was stopped for long."""
    if lease.lost:
        raise HeldError(_words(out, leases.holder_of(out, LOCK)))


def _words(out: Path, holder: Holder | None) -> str:
    return f"{out}: another batch is at work" + ("" if holder is None else f" ({holder.words})")
