"""trajcheck/files/other_processes.py: a process that has ended is gone, whether or not its parent has looked."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trajcheck.files.other_processes import is_gone


def test_what_runs_and_what_has_ended() -> None:
    assert not is_gone(os.getpid()) and not is_gone(os.getppid())
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    assert not is_gone(process.pid)
    process.kill()
    process.wait()
    assert is_gone(process.pid)
    assert not is_gone(10**30)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are told apart in /proc")
def test_what_nobody_has_looked_for_has_ended_too() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    until = time.monotonic() + 60
    while not is_gone(process.pid) and time.monotonic() < until:
        time.sleep(0.01)
    assert is_gone(process.pid)
    assert process.wait() == 0
