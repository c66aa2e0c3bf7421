"""The folder of a run that is being recorded: begun anew, or gone on with by a resumed job."""

from __future__ import annotations

import os
import platform
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from trajcheck.errors import RecorderError, RunError
from trajcheck.files.extent_reader import ExtentReader
from trajcheck.files.folders import OpenFolder
from trajcheck.files.leases import SILENT
from trajcheck.files.leftovers import is_leftover, meant_name
from trajcheck.files.opening import read_json
from trajcheck.files.torch_tensors import read_tensor, same_bytes
from trajcheck.files.walking import make_folders
from trajcheck.files.whole_files import write_json
from trajcheck.recording.model.known_contents import known_before
from trajcheck.recording.model.optimizers import Optimizers
from trajcheck.recording.model.ranks import ALONE, Ranks
from trajcheck.recording.model.recorded_model import RecordedModel, to_host
from trajcheck.recording.model.surroundings import Surroundings
from trajcheck.recording.run.background_writer import StoredBatch
from trajcheck.recording.run.group_settings import describe_optimizers
from trajcheck.recording.run.holding import RunLease, joined_lease, recorded_by, run_lease
from trajcheck.runs.formats.native.reading import open_step_file, read_rank, read_snapshot, read_step
from trajcheck.runs.formats.native.step_files import StepFiles, foreign_files, is_step_file, step_files
from trajcheck.runs.formats.native.writing import FORMAT, step_filename
from trajcheck.runs.snapshot import Contents, Snapshot
from trajcheck.version import __version__

SUPERSEDED = "superseded"


@dataclass
class Continuation:
    """What a resumed recording takes over from the files that are there."""

    tau: tuple[float, ...] | None = None
    tau_squares: tuple[float, ...] | None = None
    complete: bool = False  # the step to resume at is there, with these parameters and nothing else
    stored_batch: StoredBatch | None = None
    referred: frozenset[int] = frozenset()  # steps that must stay whatever comes
    needs: Mapping[int, frozenset[int]] = field(default_factory=dict)  # by step: those that hold what it leaves to them
    window_tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)  # of the step to resume at
    window: Mapping[str, Any] | None = None
    foreign: Mapping[int, list[Path]] = field(default_factory=dict)  # files of jobs with other numbers of ranks
    moved: tuple[str, ...] = ()  # parameters that are not what the record of the step to resume at has
    refrozen: tuple[str, ...] = ()  # frozen ones that are not what the job before had

    def with_window(
        self, tensors: dict[str, torch.Tensor], metadata: dict[str, Any]
    ) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """The record of the step to resume at, with the window that ends there."""
        if self.window is None:
            return tensors, metadata
        return {**tensors, **self.window_tensors}, {**metadata, "window": dict(self.window)}


class RunFolder:
    """Where step files go. `id` is the run's, `resumed` says whether it was there before.

    Of several `ranks` the first makes the folder, and puts into `agreed` what the others have to know.
    It is this job's alone until `release`: no other recorder may write into the run, on whatever machine. `say` gets a
    line where one that is gone is followed.
    Raises RecorderError when the folder holds another run, or this one and `start_step` is 0; HeldRunError while
    another recorder has it; OSError when it cannot be written.
    """

    def __init__(
        self,
        path: Path,
        start_step: int,
        description: Mapping[str, Any],
        ranks: Ranks = ALONE,
        agreed: dict[str, Any] | None = None,
        say: Callable[[str], object] = lambda line: None,
    ) -> None:
        self.path, self.ranks = path, ranks
        self._made: list[Path] = []  # folders that were not there before, the outermost first
        self.agreed = {} if agreed is None else agreed
        if not ranks.first:
            self.resumed = self.agreed["resumed"]
            self._join(description)
            self._lease: RunLease = joined_lease(path, self.agreed["recorder"])
            return
        self._refuse_existing(start_step)
        make_folders(path, self._made)
        try:
            self._lease = run_lease(path, say)
        except BaseException:
            self._remove_made()
            raise
        try:
            self._refuse_existing(start_step)  # another one may have begun and ended meanwhile
            self._begin(description, start_step)
        except BaseException:
            self.release()
            self._remove_made()
            raise

    def _exists(self) -> bool:
        return self.path.is_dir() and any(name == "run.json" or is_step_file(name) for name in os.listdir(self.path))

    def _refuse_existing(self, start_step: int) -> None:
        if start_step == 0 and self._exists():
            raise RecorderError(
                f"{self.path} already holds a run{recorded_by(self.path)}. Record into another folder, remove this "
                "one, or, if this job goes on with that run, pass start_step= the number of updates made so far."
            )

    def _begin(self, description: Mapping[str, Any], start_step: int) -> None:
        path, ranks, existing = self.path, self.ranks, self._exists()
        self.resumed = existing
        self.agreed["recorder"] = self._lease.token
        if ranks.count > 1:
            self.agreed |= {"resumed": existing, **(self._there(start_step) if existing else {})}
        self.planned = str(description["schedule"]).startswith("Budget")
        if existing and (path / "run.json").exists():
            self._take_over(description)
            return
        self.id = self.agreed["id"] = str(uuid.uuid4())
        created = datetime.now(timezone.utc).isoformat(timespec="seconds")
        write_json(path / "run.json", {"format": FORMAT, "id": self.id, "created": created, **description})

    def _there(self, start: int) -> dict[str, Any]:
        """What is in the folder of a resumed run before any rank changes it: bytes by step, and the sums of rates."""
        files = self._files()
        sizes = {step: sum(path.stat().st_size for path in f.paths.values()) for step, f in files.items()}
        there: dict[str, Any] = {"sizes": {str(step): size for step, size in sizes.items() if step < start}}
        there["at_start"] = start in files
        snapshot = None
        if start in self.steps():
            snapshot = self._snapshot(start)
        elif start in files and not files[start].missing:
            snapshot = self._read(lambda: read_step(files, start))
        if snapshot is not None:
            there |= {"tau": snapshot.tau, "tau_squares": snapshot.tau_squares}
        return there

    def _join(self, description: Mapping[str, Any]) -> None:
        """The folder that the first rank made or found must be seen here as well."""
        if not (self.path / "run.json").is_file():
            raise RecorderError(
                f"{self.path}: rank {self.ranks.rank} does not find the run.json that rank 0 has written. The folder "
                "must be on a file system that all ranks share."
            )
        self._take_over(description)
        if self.id != self.agreed["id"]:
            raise RecorderError(
                f"{self.path}: rank {self.ranks.rank} finds run {self.id}, and rank 0 records {self.agreed['id']}. The "
                "folder must be on a file system that all ranks share."
            )

    def _take_over(self, description: Mapping[str, Any]) -> None:
        path = self.path / "run.json"
        try:
            there = read_json(path)
            self.id = str(there["id"])
            self.agreed.setdefault("id", self.id)
            recorded = {entry["name"]: entry for entry in there["parameters"]}
        except (ValueError, KeyError, TypeError) as error:
            raise RecorderError(f"{path}: not a run description that can be gone on with ({error!r}).") from error
        self.planned = str(there.get("schedule", "")).startswith("Budget")
        here = {entry["name"]: entry for entry in description["parameters"]}
        for name in {**recorded, **here}:
            if _lasting(recorded.get(name)) != _lasting(here.get(name)):
                raise RecorderError(
                    f"{path}: this model does not go on with that run. Parameter {name!r} there: "
                    f"{_brief(recorded.get(name))}; here: {_brief(here.get(name))}. Record into another folder."
                )

    def check(self) -> None:
        """Raise HeldRunError where another recorder took the run over, as from a process that was stopped for long."""
        self._lease.check()

    def release(self) -> None:
        """Let other recorders have the run."""
        self._lease.release()

    def abandon(self) -> None:
        """Nothing was recorded and nothing will be: leave no run where there was none."""
        remove = self.ranks.first and not self.resumed and not self._lease.lost
        if remove:
            (self.path / "run.json").unlink(missing_ok=True)
        self.release()
        if remove:
            self._remove_made()

    def _remove_made(self) -> None:
        for folder in reversed(self._made):
            with suppress(OSError):
                folder.rmdir()

    def end(self, step: int, reason: str) -> None:
        """Say in run.json how the recording ended, before update `step`. Errors: OSError, ValueError."""
        self._amend({"ended": {"step": step, "reason": reason}})

    def _amend(self, entries: Mapping[str, Any]) -> None:
        """Write run.json anew, without how an earlier recording ended and with these entries."""
        if self.ranks.first:
            self.check()
            path = self.path / "run.json"
            there = read_json(path)
            kept = {key: value for key, value in there.items() if key != "ended"}
            write_json(path, {**kept, **entries})

    def file(self, step: int) -> Path:
        """This rank's file of a step."""
        return self.path / step_filename(step, self.ranks.rank, self.ranks.count)

    def steps(self) -> dict[int, int]:
        """Bytes of this rank's files by step."""
        files = self._files()
        own = {step: f.paths.get(self.ranks.rank) for step, f in files.items() if f.ranks == self.ranks.count}
        return {step: path.stat().st_size for step, path in own.items() if path is not None}

    def _files(self) -> dict[int, StepFiles]:
        """Raises RecorderError for a folder with which no job can go on."""
        try:
            return step_files(self.path)
        except RunError as error:
            raise RecorderError(f"cannot go on with this run: {error}") from error

    def sizes(self) -> dict[int, int]:
        """Bytes by step of the records that are gone on with: of all ranks, and the same on all."""
        if self.ranks.count == 1:
            return self.steps()
        return {int(step): size for step, size in self.agreed.get("sizes", {}).items()}

    def has(self, step: int) -> bool:
        """Whether the step at which a run is resumed was recorded by the job before."""
        if self.ranks.count > 1:
            return bool(self.agreed.get("at_start"))
        return self.file(step).exists() or step in foreign_files(self.path, 1)

    def go_on(self, start: int, model: RecordedModel, surroundings: Surroundings) -> Continuation:
        """Make way for a recording from step `start` on, the model being as it is then; `surroundings` learn which of
        them the kept files hold.

        Step `start` stays if it holds these very parameters and nothing of a step; it and all later ones otherwise move
        to superseded/. Sums of learning rates go on from step `start` if it is there.
        """
        self.check()
        self._remove_leftovers()
        went_on = Continuation()
        steps = self.steps()
        if self.ranks.first:
            went_on.foreign = self._make_way(start, went_on)
        if start in steps:
            there = self._snapshot(start)
            went_on.tau, went_on.tau_squares = there.tau, there.tau_squares
            params_only = not (there.gradients or there.batch or there.skipped)
            iterate = model.iterate()
            equal = set(self._equal(start, iterate))
            same = len(equal) == len(iterate)
            lost = (name.partition("/")[2] for name in iterate if name not in equal)
            went_on.moved = tuple(name for name in dict.fromkeys(lost) if name in there.parameters)
            went_on.complete = params_only and same
            if same and there.window is not None:
                went_on.window_tensors, went_on.window = self._window(there)
        if self.ranks.count > 1:
            went_on.tau, went_on.tau_squares = self.agreed.get("tau"), self.agreed.get("tau_squares")
        went_on.refrozen = self._refrozen(
            [self._snapshot(step) for step in steps if step <= start], start, surroundings
        )
        earlier = self._known_before(sorted(steps, reverse=True), start)
        overtaken = [step for step in steps if step > start or (step == start and not went_on.complete)]
        self._supersede([self.file(step) for step in sorted(overtaken)])
        kept = sorted(steps.keys() - set(overtaken))
        if kept:
            snapshots = [self._snapshot(step) for step in kept]
            went_on.stored_batch = self._stored_batch(snapshots[0])
            refers = {kept[0], *(s.batch_from for s in snapshots)}
            went_on.referred = frozenset(step for step in refers if step is not None)
            went_on.needs = {s.step: frozenset({*s.frozen_from.values(), *s.buffers_from.values()}) for s in snapshots}
            self._find_surroundings(snapshots, start, surroundings, earlier)
        if (self.path / "run.json").exists():  # at the end: others may be writing steps already
            self._amend({})
        return went_on

    def _known_before(self, steps: Sequence[int], start: int) -> Contents:
        """What the last of these records that can be read says of contents up to step `start`."""
        for step in steps:
            with suppress(RecorderError):
                return known_before(self._snapshot(step), start)
        return Contents()

    def _refrozen(self, snapshots: list[Snapshot], start: int, surroundings: Surroundings) -> tuple[str, ...]:
        """Which frozen parameters are others than the records up to step `start` have: those of that step, or else
        what all of them agree on."""
        now = {n: tensor for n, tensor in surroundings.values().items() if n.startswith("param/")}
        holders: dict[str, set[int]] = {}
        for snapshot in snapshots[-1:] if snapshots and snapshots[-1].step == start else snapshots:
            for name in now:
                own = name.partition("/")[2]
                place = snapshot.frozen_from.get(own, snapshot.frozen_from.get(""))
                holder = snapshot.step if own in snapshot.parameters else place
                holders.setdefault(name, set()).update(() if holder is None else (holder,))
        asked: dict[int, dict[str, torch.Tensor]] = {}
        for name, places in holders.items():
            if len(places) == 1 and self.file(held := places.copy().pop()).is_file():
                asked.setdefault(held, {})[name] = now[name]
        changed = [n for step, t in asked.items() for n in t.keys() - set(self._equal(step, t))]
        return tuple(sorted(name.partition("/")[2] for name in changed))

    def _remove_leftovers(self) -> None:
        """Temporary files of jobs before; other ranks of this one may be writing theirs."""
        own = step_filename(0, self.ranks.rank, self.ranks.count).partition("-of-")[2]
        with OpenFolder.at(self.path) as folder:
            for name in folder.names():
                meant = meant_name(name) or ""
                is_step = meant.startswith("step-")
                mine = meant.endswith(own) if is_step else self.ranks.first
                if mine and is_leftover(folder.descriptor, name, SILENT):
                    folder.remove(name)

    def _find_surroundings(
        self, snapshots: list[Snapshot], start: int, surroundings: Surroundings, earlier: Contents
    ) -> None:
        """Tell which kept files hold frozen parameters and buffers as they are now: those that the last record has, or
        refers to. A file of step `start` is about to be written anew."""
        last, kept = snapshots[-1], {s.step for s in snapshots} - {start}
        candidates: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in surroundings.values().items():
            kind, _, own = name.partition("/")
            places, there = (
                (last.frozen_from, last.parameters) if kind == "param" else (last.buffers_from, last.buffers)
            )
            holder = last.step if own in there else places.get(own, places.get(""))
            if holder in kept:
                candidates.setdefault(holder, {})[name] = tensor
        surroundings.go_on_from(
            {name: step for step, tensors in candidates.items() for name in self._equal(step, tensors)}, earlier
        )

    def _make_way(self, start: int, went_on: Continuation) -> dict[int, list[Path]]:
        """Move aside what jobs with other numbers of ranks wrote from step `start` on, and take its sums of rates; the
        files that stay, by step."""
        foreign = foreign_files(self.path, self.ranks.count)
        if start in foreign and self.ranks.count == 1:
            files = self._files()
            if not files[start].missing:
                there = self._read(lambda: read_step(files, start))
                went_on.tau, went_on.tau_squares = there.tau, there.tau_squares
        self._supersede([path for step, paths in foreign.items() if step >= start for path in paths])
        return {step: paths for step, paths in foreign.items() if step < start}

    def _equal(self, step: int, expected: Mapping[str, torch.Tensor]) -> list[str]:
        """The names of those of these tensors that a step file has, with exactly these bytes."""
        file, _ = open_step_file(self.file(step))
        there = file.extents({name: name for name in file.layout.specs})
        with ExtentReader() as reader:
            return [
                name
                for name, tensor in expected.items()
                if name in there and same_bytes(read_tensor(reader, there[name]), to_host(tensor))
            ]

    def _stored_batch(self, first: Snapshot) -> StoredBatch | None:
        if not first.batch:
            return None
        with ExtentReader() as reader:
            batch = {f"batch/{path}" if path else "batch": read_tensor(reader, e) for path, e in first.batch.items()}
        weights = first.micro_weights
        metadata = {
            "batch_tree": first.batch_tree,
            "micro_batches": first.micro_batches if first.micro_batches > 1 else None,
            "micro_weights": None if weights is None else list(weights),
        }
        return StoredBatch(first.step, batch, metadata)

    def _window(self, snapshot: Snapshot) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        _, metadata = open_step_file(Path(snapshot.path))
        with ExtentReader() as reader:
            tensors = {f"window/{name}": read_tensor(reader, e) for name, e in snapshot.window_gradient.items()}
        return tensors, metadata["window"]

    def _snapshot(self, step: int) -> Snapshot:
        if self.ranks.count == 1:
            return self._read(lambda: read_snapshot(self.file(step)))
        return self._read(lambda: read_rank(self.file(step), self.ranks.rank))

    def _read(self, read: Callable[[], Snapshot]) -> Snapshot:
        try:
            return read()
        except RunError as error:
            raise RecorderError(f"cannot go on with this run: {error}") from error

    def _supersede(self, files: list[Path]) -> None:
        if not files:
            return
        with OpenFolder.at(self.path) as run, run.inner(SUPERSEDED, make=True) as aside:
            for source in files:
                name, number = source.name, 0
                while aside.status(name) is not None:
                    number += 1
                    name = f"{source.stem}.{number}{source.suffix}"
                run.move(source.name, aside, name)
            aside.sync()
            run.sync()


def describe_run(
    recorded: RecordedModel,
    model: torch.nn.Module,
    optimizers: Optimizers,
    schedule: str,
    *,
    overhead: float | None,
    user: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What run.json says besides format, id and date."""
    return {
        "schedule": schedule,
        "overhead": overhead,
        "parameters": recorded.describe(),
        "tied": recorded.tied,
        "optimizer": describe_optimizers(optimizers),
        "versions": describe_versions(model),
        "user": dict(user or {}),
        **({"not_stored": sorted(recorded.not_stored)} if recorded.not_stored else {}),
        **({"ranks": recorded.ranks.count} if recorded.ranks.count > 1 else {}),
    }


def describe_versions(model: torch.nn.Module) -> dict[str, str]:
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "trajcheck": __version__,
        "device": device.type,
    }
    if device.type == "cuda":
        versions["device_name"] = torch.cuda.get_device_name(device)
    return versions


def _lasting(entry: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """What of a parameter stays as it is; which ones are trained may change, and records say so."""
    return None if entry is None else {key: value for key, value in entry.items() if key not in ("group", "trainable")}


def _brief(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return "none"
    kind = "trainable" if entry.get("trainable") else "frozen"
    left_out = "" if entry.get("recorded", True) else ", left out"
    return f"{entry.get('shape')} {entry.get('dtype')}, group {entry.get('group')}, {kind}{left_out}"
