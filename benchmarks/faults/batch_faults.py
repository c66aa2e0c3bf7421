"""What is done to a batch at work, to its archive and to what it has saved; each fault says what it did."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from benchmarks.faults.archive import Archive
from benchmarks.faults.batch_calls import Call, start
from trajcheck.files.leftovers import temporary_name

#: Exit codes of a call that was left to its end: all well, or rows that failed.
WHOLE = (0, 4)


@dataclass
class Scene:
    """A call at work in `out`, and who disturbs it."""

    archive: Archive
    out: Path
    call: Call
    stream: Random
    arguments: Sequence[str]
    wrong: list[str] = field(default_factory=list)

    def a_run(self) -> Path:
        return self.archive.runs / self.stream.choice(self.archive.names)

    def a_step(self) -> Path:
        return self.stream.choice(sorted(self.a_run().glob("step-*")))


@dataclass(frozen=True)
class Fault:
    """`strike` disturbs the call, and returns its exit codes that are right then. `damages`: it changes the archive.
    `disk`: the reports lie on a small file system. `workers`: it needs worker processes. `ray`: those of Ray."""

    strike: Callable[[Scene], Sequence[int]]
    damages: bool = False
    disk: bool = False
    workers: bool = False
    ray: bool = False


def kill(scene: Scene) -> Sequence[int]:
    scene.call.kill(signal.SIGKILL)
    return (*WHOLE, -signal.SIGKILL)


def terminate(scene: Scene) -> Sequence[int]:
    scene.call.kill(signal.SIGTERM)
    return (*WHOLE, -signal.SIGTERM, 128 + signal.SIGTERM)


def kill_worker(scene: Scene) -> Sequence[int]:
    """Once or twice; a task survives that."""
    for _ in range(scene.stream.randrange(1, 3)):
        if workers := scene.call.others():
            with suppress(ProcessLookupError):
                os.kill(scene.stream.choice(workers), signal.SIGKILL)
        time.sleep(scene.stream.uniform(0.0, 0.5))
    return (0,)


def kill_ray_worker(scene: Scene) -> Sequence[int]:
    """Once or twice, one that has a task."""
    for _ in range(scene.stream.randrange(1, 3)):
        busy = [process for process in scene.call.others() if _command(process).startswith("ray::run_task")]
        if busy:
            with suppress(ProcessLookupError):
                os.kill(scene.stream.choice(busy), signal.SIGKILL)
        time.sleep(scene.stream.uniform(0.0, 0.5))
    return (0,)


def _command(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text(errors="replace")
    except OSError:
        return ""


def fill_disk(scene: Scene) -> Sequence[int]:
    left = scene.stream.choice((0, 4096, 16384, 65536))
    free = shutil.disk_usage(scene.out).free
    with suppress(OSError):
        (scene.out.parent / "ballast").write_bytes(bytes(max(free - left, 0)))
    return (*WHOLE, 5)


def limit_files(scene: Scene) -> Sequence[int]:
    """No file may grow beyond a few thousand bytes any more."""
    size = scene.stream.randrange(6000)
    for process in (scene.call.process, *scene.call.others()):
        with suppress(OSError):
            resource.prlimit(process, resource.RLIMIT_FSIZE, (size, size))
    return (*WHOLE, 5)


def truncate_step(scene: Scene) -> Sequence[int]:
    step = scene.a_step()
    os.truncate(step, scene.stream.randrange(step.stat().st_size))
    return WHOLE


def flip_header(scene: Scene) -> Sequence[int]:
    step = scene.a_step()
    length = int.from_bytes(step.read_bytes()[:8], "little")
    _flip(step, scene.stream.randrange(8 + length), scene.stream)
    return WHOLE


def flip_tensor(scene: Scene) -> Sequence[int]:
    step = scene.a_step()
    data = step.read_bytes()
    _flip(step, scene.stream.randrange(8 + int.from_bytes(data[:8], "little"), len(data)), scene.stream)
    return WHOLE


def no_file(scene: Scene) -> Sequence[int]:
    """A folder or a dangling link in the place of a step file, so that nobody can read it, root neither."""
    step = scene.a_step()
    step.unlink()
    if scene.stream.random() < 0.5:
        step.mkdir()
    else:
        step.symlink_to("nowhere")
    return WHOLE


def remove_run(scene: Scene) -> Sequence[int]:
    shutil.rmtree(scene.a_run())
    return WHOLE


def remove_steps(scene: Scene) -> Sequence[int]:
    """As a recorder that thins its records does."""
    run = scene.a_run()
    for step in sorted(run.glob("step-*"))[1:-1:2]:
        step.unlink()
        time.sleep(scene.stream.uniform(0.0, 0.05))
    return WHOLE


def grow_run(scene: Scene) -> Sequence[int]:
    run = scene.a_run()
    for step in sorted((scene.archive.growth / run.relative_to(scene.archive.runs)).iterdir()):
        temporary = run / temporary_name(step.name)
        shutil.copy2(step, temporary)
        temporary.rename(run / step.name)
        time.sleep(scene.stream.uniform(0.0, 0.1))
    return WHOLE


def second_batch(scene: Scene) -> Sequence[int]:
    """It has nothing to do, and says so, unless the first one has ended."""
    other = start(scene.arguments, f"{scene.call.mark}-second", scene.call.said, scene.call.temporary, forked=False)
    if (status := other.wait()) != 0:
        scene.wrong.append(f"the second batch ended with {status}")
    return (0,)


def damage_saved(scene: Scene) -> Sequence[int]:
    """A few of the files that batches leave behind; of half of the calls after a kill."""
    codes: Sequence[int] = (*WHOLE, 5)
    if scene.stream.random() < 0.5:
        codes = kill(scene)
        scene.call.wait()
    for _ in range(scene.stream.randrange(1, 6)):
        names = ("*.safetensors", ".batch.json", "index.csv", ".batch.lock", "*.csv")
        files = sorted(scene.out.rglob(scene.stream.choice(names)))
        with suppress(OSError, ValueError):
            _damage(scene.stream.choice(files or [scene.out]), scene.stream)
    return codes


def _damage(file: Path, stream: Random) -> None:
    how = stream.choice(("flip", "truncate", "empty", "remove"))
    if how == "flip":
        _flip(file, stream.randrange(file.stat().st_size), stream)
    elif how == "remove":
        file.unlink()
    else:
        os.truncate(file, 0 if how == "empty" else stream.randrange(file.stat().st_size))


def _flip(file: Path, place: int, stream: Random) -> None:
    with open(file, "r+b") as data:
        data.seek(place)
        byte = data.read(1)[0]
        data.seek(place)
        data.write(bytes([byte ^ (1 << stream.randrange(8))]))


FAULTS: Mapping[str, Fault] = {
    "SIGKILL": Fault(kill),
    "SIGTERM": Fault(terminate),
    "SIGKILL of a worker": Fault(kill_worker, workers=True),
    "full file system": Fault(fill_disk, disk=True),
    "file size limit": Fault(limit_files),
    "step file truncated": Fault(truncate_step, damages=True),
    "bit flipped in a header": Fault(flip_header, damages=True),
    "bit flipped in a tensor": Fault(flip_tensor, damages=True),
    "step file unreadable": Fault(no_file, damages=True),
    "run removed": Fault(remove_run, damages=True),
    "steps removed": Fault(remove_steps, damages=True),
    "run grows": Fault(grow_run, damages=True),
    "second batch": Fault(second_batch),
    "saved files damaged": Fault(damage_saved),
    "SIGKILL of a Ray worker": Fault(kill_ray_worker, ray=True),
    "SIGTERM, on Ray": Fault(terminate, ray=True),
}
