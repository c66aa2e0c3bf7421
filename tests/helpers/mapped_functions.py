"""Functions that runners' tests call on workers."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from trajcheck.errors import NotFiniteError, OutputError
from trajcheck.runners import Task

THIS = "mapped_functions"


def square(task: Task) -> int:
    return task["number"] ** 2


def seen(task: Task) -> dict[str, Any]:
    """What a worker is given and where it is."""
    return {"task": dict(task), "pid": os.getpid(), "threads": os.environ.get("OMP_NUM_THREADS")}


def fail(task: Task) -> None:
    if task["how"] == "trajcheck":
        raise NotFiniteError("step 3, tensor w holds NaN")
    if task["how"] == "elsewhere":
        raise DiskFullError("no room")
    if task["how"] == "exit":
        sys.exit(7)
    raise KeyError("labels")


class DiskFullError(OutputError):
    """A class that errors.py does not know."""


def die(task: Task) -> str:
    """Dies as `how` says, the first `times` times; each time leaves a mark in `folder`."""
    marks = Path(task["folder"])
    mark = marks / f"{task['name']}-{len(list(marks.glob(task['name'] + '-*')))}"
    mark.write_text(str(os.getpid()))
    if len(list(marks.glob(task["name"] + "-*"))) <= task["times"]:
        if task.get("how") == "exit":
            os._exit(3)
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


def rest(task: Task) -> int:
    """Sleeps; its process is written to `folder`, where it waits until there are `beside`. One that is deaf "to the
    kernel" is not told by it that its parent is gone; one that is deaf "to the interpreter" lets no other Python thread
    of its process run."""
    if task.get("deaf") == "to the kernel":
        ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)
    if "folder" in task:
        file = Path(task["folder"]) / f"{task['name']}.pid"
        file.with_suffix(".part").write_text(str(os.getpid()))
        file.with_suffix(".part").rename(file)  # whoever sees the file sees the number in it
        while len(list(file.parent.glob("*.pid"))) < task.get("beside", 0):
            time.sleep(0.02)
    if task.get("deaf") == "to the interpreter":
        ctypes.PyDLL(None).sleep(task["seconds"])
    time.sleep(task["seconds"])
    return os.getpid()


def huge(task: Task) -> bytes:
    return bytes([task["number"]]) * task["size"]


def no_json(task: Task) -> Any:
    return lambda: task


def endless(task: Task) -> Any:
    """A list that holds itself."""
    value: list[Any] = []
    value.append(value)
    return value
