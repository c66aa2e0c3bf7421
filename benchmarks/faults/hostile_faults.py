"""What `hostile` does: things that others plant, say, take away and do at the same time."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from benchmarks.faults.hostile_ground import SAID, STEPS, Scene, contents, forked, record, start, tables
from trajcheck.files.other_processes import here, started

ELSEWHERE, DEAD = "0123456789ab", 2**22 + 1

#: Of a report, of a batch, and of the folders above: what is written there, or read again.
OF_REPORT = (
    *("scalars", "figures", "summary.json", "steps.csv", "references.csv", "undefined.csv", ".batch.json"),
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
    names = [scene.report / name for name in OF_REPORT] + [scene.out / name for name in OF_BATCH]
    path = scene.stream.choice(names)
    kind = plant(scene, path)
    command = scene.stream.choice(("analyze", "batch", "batch", "table", "compare"))
    scene.seen.append(kind)
    scene.call(command)
    scene.check()


def planted_in_runs(scene: Scene) -> None:
    path = scene.run / scene.stream.choice(OF_RUN)
    scene.seen.append(plant(scene, path))
    before = contents(scene.runs)
    scene.call(scene.stream.choice(("analyze", "batch", "verify", "compare")))
    if contents(scene.runs) != before:
        scene.wrong.append("a run was written to")
    if path.name == "run.json":  # the report of a run of another id, which is not overwritten
        shutil.rmtree(scene.out, ignore_errors=True)
    scene.check()


def planted_for_a_recorder(scene: Scene) -> None:
    """At the names that a Recorder writes; it goes on with the run at step 2, or begins one."""
    run = scene.place / "recorded"
    begun = scene.stream.random() < 0.7
    if begun:
        scene.ended(forked(lambda: record(run), scene.place / "said-first"), (0,))
    path = run / scene.stream.choice(("superseded", "step-000000003.safetensors", "run.json", ".recording"))
    scene.seen.append(plant(scene, path))
    call = forked(lambda: record(run, 2 if begun else 0), scene.place / "said-second")
    status = call.wait(120)
    text = call.said.read_text(errors="replace")
    if status and "RecorderError" not in text and "holds a run" not in text:
        scene.wrong.append(f"the training ended with {status}: {text[-500:]}")
    scene.check(whole=False)


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
    scene.call(scene.stream.choice(("analyze", "batch", "verify")))
    for extra in scene.runs.iterdir():
        if extra.name not in ("a", "b"):
            shutil.rmtree(extra)
    with suppress(OSError):
        shutil.rmtree(scene.out)
    scene.check()


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
    process = scene.stream.choice((DEAD, os.getpid()))
    silent = scene.stream.random() < 0.5
    lives = process != DEAD if place == here() else not silent
    drafts = {
        scene.out / f".draft.{where}-{number:x}-{'0' * 16}.tmp": where == here() and number == DEAD
        for where, number in ((here(), DEAD), (here(), os.getpid()), (ELSEWHERE, DEAD))
    }
    drafts |= {scene.run / path.name: False for path in drafts} | {scene.out / "notes" / ".draft.31337000.tmp": False}
    for path in drafts:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("draft")
    lock = scene.out / ".batch.lock"
    _lease(lock, process, place, 1e4 if silent else 0.0)
    scene.seen.append("lives" if lives else "dead")
    call = scene.start(scene.words("batch"))
    scene.ended(call, (0,))
    if lives != ("another batch is at work" in call.said.read_text()):
        scene.wrong.append("one who lives was not minded, or a dead one was")
    for path, goes in drafts.items():
        if path.exists() != (lives or not goes):
            scene.wrong.append(f"{path.relative_to(scene.place)} is {'there' if path.exists() else 'gone'}")
        path.unlink(missing_ok=True)
    lock.unlink(missing_ok=True)
    scene.check()


def two_recorders(scene: Scene) -> None:
    """A job is requeued while the first is alive, here or elsewhere, or was killed."""
    run = scene.place / "recorded"
    scene.ended(forked(lambda: record(run), scene.place / "said-first"), (0,))
    before = contents(run)
    kind = scene.stream.choice(("alive", "killed"))
    _lease(run / ".recording", os.getpid() if kind == "alive" else DEAD, here(), 0.0)
    call = forked(lambda: record(run, 3), scene.place / "said-second")
    scene.ended(call, (0,))
    said = call.said.read_text()
    (run / ".recording").unlink(missing_ok=True)
    if kind == "alive" and (contents(run) != before or "is being recorded by" not in said):
        scene.wrong.append("the second recorder was let in")
    if kind == "killed" and "goes on after" not in said:
        scene.wrong.append(f"the second recorder did not follow: {said[-300:]}")
    scene.seen.append(kind)
    scene.ended(scene.start(["verify", str(run)]), (0,))
    scene.check(whole=False)


def two_at_once(scene: Scene) -> None:
    """Two analyses, of other options, into one report: it ends as that of one of them."""
    calls = [
        ["analyze", str(scene.run), "--out", str(scene.report), "--no-plots", *more]
        for more in (("--ref", "mean:3"), ("--ref", "mean:2", "--pca", "5", "--layers"))
    ]
    expected = [scene.ground.tables(words, scene.report) for words in _elsewhere(scene, calls)]
    begun = []
    for words in calls:
        begun.append(scene.start(words))
        time.sleep(scene.stream.uniform(0.0, 0.2))
    for call in begun:
        scene.ended(call, (0,))
    found = tables(scene.report)
    if found not in expected:
        scene.wrong.append("the report is that of neither")
    scene.check()


def _elsewhere(scene: Scene, calls: list[list[str]]) -> list[list[str]]:
    """The same calls, about the archive that all trials have copies of."""
    return [[str(scene.ground.archive / "a") if word == str(scene.run) else word for word in words] for words in calls]


def signals(scene: Scene) -> None:
    """At any moment of a call that writes."""
    command = scene.stream.choice(("analyze", "batch", "compare"))
    number = scene.stream.choice((signal.SIGTERM, signal.SIGHUP, signal.SIGINT))
    call = scene.start(scene.words(command))
    time.sleep(scene.stream.uniform(0.0, 0.4))
    scene.seen.append("hit at work" if call.kill(number) else "had ended")
    # a signal that comes before the command line is reached ends the process as it ends any
    scene.ended(call, (0, 128 + number, -number, 70))
    text = call.said.read_text()
    scene.wrong = [each for each in scene.wrong if not ("KeyboardInterrupt" in text and "Traceback" in each)]
    scene.check()


def full_disk(scene: Scene) -> None:
    """No file may grow beyond some bytes."""
    size = scene.stream.choice((0, 10, 500, 2000, 6000))
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))  # noqa: E731
    scene.said += 1
    command = scene.stream.choice(("analyze", "batch", "compare"))
    scene.ended(start(scene.words(command), _pipe_for(scene), limit), SAID)
    scene.check()


def _pipe_for(scene: Scene) -> Path:
    """Where a call prints whose files may not grow."""
    return scene.place / f"said-{scene.said}"


def swapped_during_the_pass(scene: Scene) -> None:
    """Files are replaced, truncated, removed, made pipes while they are read."""
    call = scene.start(scene.words(scene.stream.choice(("analyze", "batch", "verify"))))
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
                    shutil.copy(scene.ground.archive / "a" / step.name, beside)
                    os.truncate(beside, scene.stream.randrange(200))
                elif how == "link":
                    beside.symlink_to("/dev/zero")
                elif how == "same":
                    shutil.copy(scene.ground.archive / "b" / step.name, beside)
                if how == "remove":
                    step.unlink()
                else:
                    beside.rename(step)
            time.sleep(scene.stream.uniform(0.0, 0.02))

    swap()
    ended.set()
    scene.ended(call)
    scene.check()


def forged_notes(scene: Scene) -> None:
    """What was saved with a report, by somebody else: other files named, other bytes under right names."""
    if not scene.out.exists():
        shutil.copytree(scene.ground.finished, scene.out)
    scene.call("analyze")
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
    scene.call(scene.stream.choice(("analyze", "batch")), (0,))
    scene.check()


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
