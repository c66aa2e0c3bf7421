"""Ranks of one machine as forks of this process, which has imported torch for them; a script as torchrun runs it."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed.fsdp  # before the forks, which would each take their time for it
import torch.nn.parallel

import trajcheck.recording.recorder  # noqa: F401

PATIENCE = 300  # seconds


def can_fork() -> bool:
    """Neither the libraries of macOS nor CUDA bear it."""
    return sys.platform != "darwin" and not torch.cuda.is_available()


def forked(work: Callable[[int], None], ranks: int) -> list[int | None]:
    """work(rank) in a process each; their exit codes, None of one that takes too long."""

    def started(rank: int) -> None:
        warnings.resetwarnings()  # the training's, where pytest's make errors of them
        sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
        atexit._clear()  # what this process has to do at its end is not theirs
        try:
            work(rank)
        finally:
            atexit._run_exitfuncs()  # as a process of its own does

    make = multiprocessing.get_context("fork").Process
    children = [make(target=started, args=(rank,), daemon=True) for rank in range(ranks)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads, from Python 3.12 on
        for child in children:
            child.start()
    for child in children:
        child.join(PATIENCE)
    codes = [child.exitcode for child in children]
    for child in children:
        child.kill()
    return codes


def on_ranks(script: str, ranks: int) -> str:
    """Run a script on so many ranks in the working folder; what they printed to their standard error."""
    if not can_fork():
        return _by_torchrun(script, ranks)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    program = compile(script, "train.py", "exec")
    with tempfile.TemporaryFile() as said:

        def work(rank: int) -> None:
            os.dup2(said.fileno(), 2)
            os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(port))
            os.environ.update(WORLD_SIZE=str(ranks), LOCAL_WORLD_SIZE=str(ranks), RANK=str(rank), LOCAL_RANK=str(rank))
            exec(program, {"__name__": "__main__"})

        codes = forked(work, ranks)
        said.seek(0)
        text = said.read().decode()
    assert codes == [0] * ranks, text
    return text


def _by_torchrun(script: str, ranks: int) -> str:
    Path("on_ranks.py").write_text(script)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(ranks), "on_ranks.py"]
    path = os.pathsep.join(each for each in sys.path if each)
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr
