"""What `hostile` does: things that others plant, say, take away and do at the same time."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from benchmarks.faults.hostile_ground import OTHER, RUN, STEPS, WRITERS, Scene, call, contents, tables
from trajcheck.files.other_processes import here, started

ELSEWHERE, DEAD = "0123456789ab", 2**22 + 1

#: Of a report, of a batch, and of the folders above: what is written there, or read again.
OF_REPORT = (
    *("scalars", "figures", "summary.json", "steps.csv", "references.csv", "assumptions.csv", "undefined.csv"),
    ".batch.json",
    *(".publishing", ".flow-state.safetensors", "report.html"),
)
OF_BATCH = (".batch.lock", "index.csv", "index.html", "across", "x/.batch.json", "x/summary.json", "runs/a", "runs")
OF_RUN = (
    "run.json",
    "step-000000003.safetensors",
    "probe-000.safetensors",
    "objective.json",
    "superseded",
    ".recording",
)


def plant(scene: Scene, path: Path) -> str:
    """Something in the place of a file or a folder; what stood there is set aside and comes back."""
    kind = scene.stream.choice(
        ("link", "dangling", "loop", "pipe", "socket", "device", "sparse", "hard link", "folder", "text")
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = scene.place / f"aside-{len(scene.undo)}"
    stood = os.path.lexists(path)
    if stood:
        path.rename(aside)

    def undo() -> None:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif stood or (os.path.lexists(path) and os.path.samestat(path.lstat(), planted)):
            path.unlink(missing_ok=True)  # and not what a call has put in its place
        if stood:
            path.parent.mkdir(parents=True, exist_ok=True)
            aside.rename(path)

    scene.undo.append(undo)
    victim = scene.victim / scene.stream.choice(sorted(name for name in os.listdir(scene.victim)))
    if kind == "link":
        path.symlink_to(scene.victim if path.suffix == "" and scene.stream.random() < 0.7 else victim)
    elif kind in ("dangling", "loop"):
        path.symlink_to(scene.victim / "made" if kind == "dangling" else path)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(os.path.relpath(path))
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "sparse":
        path.touch()
        os.truncate(path, 64 << 30)
    elif kind == "hard link":
        os.link(victim, path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(
            scene.stream.choice((b"", b"{", b"[]", b"null", b'{"a": "\\ud800"}', b"\xff\xfe", b"[" * 9000))
        )
    planted = path.lstat()
    return kind


def planted_in_reports(scene: Scene) -> None:
    command = scene.stream.choice(("analyze", "batch", "batch", "table", "compare"))
    names = [(scene.compared if command == "compare" else scene.report) / name for name in OF_REPORT]
    path = scene.stream.choice([*names, *(scene.out / name for name in OF_BATCH)])
    scene.seen.append(plant(scene, path))
    scene.call(command)
    scene.check(command)


def planted_in_runs(scene: Scene) -> None:
    path = scene.run / scene.stream.choice(OF_RUN)
    scene.seen.append(plant(scene, path))
    before = contents(scene.runs)
    command = scene.stream.choice(("analyze", "batch", "verify", "verify", "compare"))
    scene.call(command)
    if contents(scene.runs) != before:
        scene.wrong.append("a run was written to")
    # with another run.json the report is of a run of another id, which is not overwritten
    scene.check(None if path.name == "run.json" else command)


def planted_for_a_recorder(scene: Scene) -> None:
    """At the names that a Recorder writes; it goes on with the run at step 2, or begins one."""
    begun = scene.stream.random() < 0.7
    if begun:
        scene.has_recorded()
    path = scene.recorded / scene.stream.choice(("superseded", "step-000000003.safetensors", "run.json", ".recording"))
    scene.seen.append(plant(scene, path))
    scene.record(2 if begun else 0, (0, 2))
    scene.check(None)


_TEXTS = (
    "\x1b]0;x\x07",
    "\x1b[2J",
    "\r forged",
    "\n forged: 1",
    "\u202egpj.x",
    "\x9b31m",
    "\ud800",
    "=1+1",
    "x" * 100_000,
    "|`$\\",
    "\0",
)


def hostile_text(scene: Scene) -> None:
    """In names of tensors and folders, the run's id, the optimizer, the user's fields, why a recording ended."""
    text = scene.stream.choice(_TEXTS)
    about = {
        "format": 1,
        "id": scene.stream.choice(("a", text)),
        "optimizer": {"name": text, "groups": [{"lr": 0.1}]},
        "user": {text[:50]: text, "note": text},
        "ended": {"step": 3, "reason": text},
        "versions": {"torch": text},
    }
    (scene.run / "run.json").write_text(json.dumps(about))
    if scene.stream.random() < 0.3 and "\0" not in text and len(text) < 200:
        with suppress(OSError, UnicodeError):
            scene.run.rename(scene.runs / f"c{text.replace('/', '')}")
    scene.call(scene.stream.choice(("analyze", "batch", "verify", "compare")))
    scene.check(None)


def _lease(path: Path, process: int, place: str, age: float) -> None:
    said = {
        "token": os.urandom(16).hex(),
        "host": "node7",
        "process": process,
        "place": place,
        "began": "",
        "since": "then",
    }
    if place == here() and process != DEAD:
        said["began"] = started(process)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**said, "path": os.path.realpath(path)}))
    os.utime(path, (time.time() - age,) * 2)


def other_hosts(scene: Scene) -> None:
    """Leases and temporary files of this machine, another, and a container: who lives is left alone, who is dead is
    followed."""
    place = scene.stream.choice((here(), ELSEWHERE))
    process = scene.stream.choice((DEAD, scene.ground.neighbour))
    silent = scene.stream.random() < 0.5
    lives = process != DEAD if place == here() else not silent
    drafts = {
        scene.out / f".draft.{where}-{number:x}-{'0' * 16}.tmp": where == here() and number == DEAD
        for where, number in ((here(), DEAD), (here(), scene.ground.neighbour), (ELSEWHERE, DEAD))
    }
    drafts |= {scene.run / path.name: False for path in drafts} | {scene.out / "notes" / ".draft.31337000.tmp": False}
    for path in drafts:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("draft")
    lock = scene.out / ".batch.lock"
    _lease(lock, process, place, 1e4 if silent else 0.0)
    scene.seen.append("lives" if lives else "dead")
    if lives != ("another batch is at work" in scene.call("batch", (0,))):
        scene.wrong.append("one who lives was not minded, or a dead one was")
    for path, goes in drafts.items():
        if path.exists() != (lives or not goes):
            scene.wrong.append(f"{path.relative_to(scene.place)} is {'there' if path.exists() else 'gone'}")
        path.unlink(missing_ok=True)
    lock.unlink(missing_ok=True)
    scene.check()


def two_recorders(scene: Scene) -> None:
    """A job is requeued while the first is alive, here or elsewhere, or was killed."""
    scene.has_recorded()
    before = contents(scene.recorded)
    kind = scene.stream.choice(("alive", "killed"))
    lease = scene.recorded / ".recording"
    _lease(lease, scene.ground.neighbour if kind == "alive" else DEAD, here(), 0.0)
    said = scene.record(3, (0,))
    lease.unlink(missing_ok=True)
    if kind == "alive" and (contents(scene.recorded) != before or "is being recorded by" not in said):
        scene.wrong.append("the second recorder was let in")
    if kind == "killed" and "goes on after" not in said:
        scene.wrong.append(f"the second recorder did not follow: {said[-300:]}")
    scene.seen.append(kind)
    scene.work(lambda: call(["verify", str(scene.recorded)]), (0,))
    scene.check(None)


def two_at_once(scene: Scene) -> None:
    """Two analyses, of other options, into one report: it ends as that of one of them."""
    options = (("--ref", "mean:3"), ("--ref", "mean:2"))
    expected = [scene.ground.tables(scene, "analyze", *more) for more in options]
    begun = []
    for more in options:
        begun.append(scene.start([*scene.words("analyze"), *more]))
        time.sleep(scene.stream.uniform(0.0, 0.2))
    for each in begun:
        scene.ended(each, (0,))
    if tables(scene.out) not in expected:
        scene.wrong.append("the report is that of neither")
    scene.check(scene.stream.choice(("analyze", None)))


def signals(scene: Scene) -> None:
    """At any moment of a call that writes."""
    command = scene.stream.choice(WRITERS)
    number = scene.stream.choice((signal.SIGTERM, signal.SIGHUP, signal.SIGINT))
    call = scene.start(scene.words(command))
    time.sleep(scene.stream.uniform(0.0, 0.4))
    scene.seen.append("hit at work" if call.kill(number) else "had ended")
    # a signal that comes before the command line is reached ends the process as it ends any
    scene.ended(call, (0, 128 + number, -number))
    scene.check(command)


def full_disk(scene: Scene) -> None:
    """No file may grow beyond some bytes."""
    size = scene.stream.choice((0, 10, 500, 2000, 6000))
    command = scene.stream.choice(WRITERS)
    scene.call(command, file_size=size)
    scene.check(command)


def swapped_during_the_pass(scene: Scene) -> None:
    """Files are replaced, truncated, removed, made pipes while they are read."""
    ended = threading.Event()

    def swap() -> None:
        number = 0
        while not ended.is_set() and number < 40:
            step = scene.run / f"step-{scene.stream.randrange(STEPS):09d}.safetensors"
            number += 1
            beside = scene.place / "beside"
            how = scene.stream.choice(("pipe", "truncate", "link", "remove", "same"))
            with suppress(OSError):
                if how == "pipe":
                    os.mkfifo(beside)
                elif how == "truncate":
                    shutil.copy(scene.ground.pristine / RUN / step.name, beside)
                    os.truncate(beside, scene.stream.randrange(200))
                elif how == "link":
                    beside.symlink_to("/dev/zero")
                elif how == "same":
                    shutil.copy(scene.ground.pristine / OTHER / step.name, beside)
                if how == "remove":
                    step.unlink()
                else:
                    beside.rename(step)
            time.sleep(scene.stream.uniform(0.0, 0.02))

    swapper = threading.Thread(target=swap)
    swapper.start()
    command = scene.stream.choice((*WRITERS, "verify"))
    scene.call(command)
    ended.set()
    swapper.join()
    scene.check(command)


def forged_notes(scene: Scene) -> None:
    """What was saved with a report, by somebody else: other files named, other bytes under right names."""
    shutil.rmtree(scene.out, ignore_errors=True)
    shutil.copytree(scene.ground.analyzed, scene.out)
    kind = scene.stream.choice(("state", "vector", "records"))
    if kind == "state":
        note = json.loads((scene.report / ".batch.json").read_text())
        outside = scene.stream.choice(("/dev/zero", str(scene.victim / "precious"), "../../../victim/steps.csv"))
        note[scene.stream.choice(("sources", "tables"))] = {outside: ["x", "y"] if "tables" in note else "x"}
        note.pop("check", None)
        import hashlib

        note["check"] = hashlib.sha256(json.dumps(note, sort_keys=True).encode()).hexdigest()
        (scene.report / ".batch.json").write_text(json.dumps(note))
    for path in sorted((scene.report / "scalars").iterdir()):
        if (kind == "vector") == path.name.startswith("mean-") and kind != "state":
            data = bytearray(path.read_bytes())
            data[-scene.stream.randrange(1, 40)] ^= 1 << scene.stream.randrange(8)
            path.write_bytes(data)
    scene.seen.append(kind)
    command = scene.stream.choice(("analyze", "batch"))
    scene.call(command, (0,))
    scene.check(command)


FAULTS: Mapping[str, Callable[[Scene], None]] = {
    "planted in reports": planted_in_reports,
    "planted in runs": planted_in_runs,
    "planted for a recorder": planted_for_a_recorder,
    "hostile text": hostile_text,
    "other hosts, containers": other_hosts,
    "two recorders": two_recorders,
    "two analyses at once": two_at_once,
    "signals": signals,
    "full disks": full_disk,
    "swapped during the pass": swapped_during_the_pass,
    "forged notes": forged_notes,
}
