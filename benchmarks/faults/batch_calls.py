"""Calls of `trajcheck batch` as processes of their own, and what they leave behind."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

TABLES = ("steps.csv", "references.csv", "assumptions.csv", "schedule.csv", "undefined.csv")

#: What may lie in a report's folder, and in the folder of reports.
EXPECTED = re.compile(
    r"(steps|references|assumptions|schedule|undefined)\.csv|summary\.json|\.batch\.json|[0-9a-f]{32}\.safetensors|mean-[0-9a-f]{16}-[0-9a-f]{32}\.safetensors"
    r"|index\.(csv|html)|\.batch\.lock"
)

#: In the environment of a call and of all that it starts.
MARK = "TRAJCHECK_FAULTS"


@dataclass
class Call:
    """A call that is at work, known by its process and, in a /proc, by a mark in the environment of its workers."""

    process: int
    mark: str
    said: Path
    temporary: Path
    status: int | None = field(default=None)

    def wait(self, patience: float = 300.0) -> int:
        """Its exit code, minus the signal that ended it. A call that does not end is killed, and counts as -1000."""
        until = time.monotonic() + patience
        while self.status is None:
            found, status = os.waitpid(self.process, os.WNOHANG)
            if found:
                self.status = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > until:
                os.kill(self.process, signal.SIGKILL)
                os.waitpid(self.process, 0)
                self.status = -1000
            else:
                time.sleep(0.005)
        return self.status

    @property
    def ended(self) -> bool:
        if self.status is None:
            found, status = os.waitpid(self.process, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if found else None
        return self.status is not None

    def kill(self, number: signal.Signals) -> bool:
        """Send a signal; False where it has ended."""
        if self.ended:
            return False
        os.kill(self.process, number)
        return True

    def others(self) -> list[int]:
        """The processes that it has started, as long as they live."""
        found = []
        for place in Path("/proc").iterdir():
            if place.name.isdigit() and int(place.name) != self.process:
                try:
                    marked = f"{MARK}={self.mark}".encode() in (place / "environ").read_bytes().split(b"\0")
                    alive = (place / "stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
                except OSError:
                    continue
                if marked and alive:
                    found.append(int(place.name))
        return found

    def remains(self, patience: float = 10.0) -> list[int]:
        """The processes that are still there some time after its end."""
        until = time.monotonic() + patience
        while (found := self.others()) and time.monotonic() < until:
            time.sleep(0.05)
        return found


def start(arguments: Sequence[str], mark: str, said: Path, temporary: Path, forked: bool) -> Call:
    """`trajcheck batch arguments...`; `forked`: from this process, which has imported everything already."""
    environment = {MARK: mark, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1", "TRAJCHECK_PLOTS": "0"}
    if not forked:
        command = [sys.executable, "-m", "trajcheck", "batch", *arguments]
        with open(said, "ab") as file:
            started = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env={**os.environ, **environment}
            )
        started.returncode = 0  # waited for by its number, in `Call`
        return Call(started.pid, mark, said, temporary)
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return Call(child, mark, said, temporary)
    code = 1
    try:
        os.environ.update(environment)
        descriptor = os.open(said, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        sys.argv = ["trajcheck", "batch", *arguments]
        from trajcheck.cli import main

        try:
            main()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1 if ended.code else 0
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def tables(out: Path) -> dict[str, bytes]:
    """The tables of all reports below a folder."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*.csv"))
        if path.name in TABLES
    }


def index(out: Path) -> dict[str, dict[str, str]]:
    """The rows of the index, by the runs' paths."""
    with open(out / "index.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
        return {row["run"]: row for row in csv.DictReader(file)}


def unexpected(out: Path) -> list[str]:
    """Files that do not belong to a report, and folders that something was being made in."""
    found = [path for path in out.rglob("*") if path.is_file() and not EXPECTED.fullmatch(path.name)]
    found += [path for path in out.rglob(".work.*.tmp")]
    return [path.relative_to(out).as_posix() for path in found]
