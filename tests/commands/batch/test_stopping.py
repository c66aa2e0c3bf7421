"""commands/batch/stopping.py: a signal ends a batch, whatever compiled code makes of what its handler raises."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress

import pytest

from trajcheck.commands.batch.stopping import Signalled, Stopped, TimeUp, stopping


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Signalled, match=number.name) as raised, stopping(None):
        os.kill(os.getpid(), number)
        signal.pause()
    assert raised.value.number == number
    assert signal.getsignal(number) is before


def test_another_exception_in_its_place() -> None:
    with pytest.raises(Signalled), stopping(None):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Stopped:
            raise SystemError("returned a result with an exception set") from None


def test_none_in_its_place() -> None:
    with pytest.raises(Signalled), stopping(None) as check:
        check()
        with suppress(Stopped):
            os.kill(os.getpid(), signal.SIGTERM)
        check()
        pytest.fail("the signal is forgotten")


def test_the_time() -> None:
    with pytest.raises(TimeUp), stopping(0.01):
        threading.Event().wait(60)
    with stopping(60) as check:
        check()
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_errors_are_themselves_without_a_signal() -> None:
    with pytest.raises(ValueError, match="mine"), stopping(None):
        raise ValueError("mine")
