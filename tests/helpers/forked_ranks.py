"""A script as torchrun runs it on the ranks of one machine, by processes that import torch once for all of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

#: Reads the script from its standard input, imports what takes long, and forks a process for each rank.
_START = """
import os, socket, sys
import torch, torch.distributed.fsdp, torch.nn.parallel
import trajcheck.recording.recorder

script, ranks = sys.stdin.read(), int(sys.argv[1])
with socket.socket() as free:
    free.bind(("localhost", 0))
    port = free.getsockname()[1]
os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(port), WORLD_SIZE=str(ranks), LOCAL_WORLD_SIZE=str(ranks))
children = []
for rank in range(ranks):
    if not (child := os.fork()):
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
        exec(compile(script, "train.py", "exec"), {"__name__": "__main__"})
        sys.exit()
    children.append(child)
sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0 for child in children))
"""


def on_ranks(script: str, ranks: int) -> str:
    """Run a script on so many ranks in the working folder; what they printed to their standard error."""
    command = [sys.executable, "-c", _START, str(ranks)]
    if sys.platform == "darwin":  # whose libraries do not bear a fork
        Path("on_ranks.py").write_text(script)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(ranks), "on_ranks.py"]
    path = os.pathsep.join(each for each in sys.path if each)
    done = subprocess.run(
        command,
        input=script,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr
