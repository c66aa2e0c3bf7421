"""The folder of a run that is being recorded: begun anew, or gone on with by a resumed job."""

from __future__ import annotations

import json
import os
import platform
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

import trajcheck
from trajcheck.errors import RecorderError, RunError
from trajcheck.formats.native import STEP_FILE, read_snapshot
from trajcheck.formats.native_writer import FORMAT, TEMPORARY, step_filename, sync_folder, write_json
from trajcheck.formats.tensor_bytes import same_bytes
from trajcheck.record_writer import StoredBatch, batch_tensors
from trajcheck.recorded_model import RecordedModel
from trajcheck.snapshot import Snapshot

SUPERSEDED = "superseded"


@dataclass
class Continuation:
    """What a resumed recording takes over from the files that are there."""

    tau: tuple[float, ...] | None = None
    tau_squares: tuple[float, ...] | None = None
    frozen_from: int | None = None
    complete: bool = False  # the step to resume at is there, with these parameters and nothing else
    stored_batch: StoredBatch | None = None
    referred: frozenset[int] = frozenset()
    window_tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)  # of the step to resume at
    window: Mapping[str, Any] | None = None

    def with_window(
        self, tensors: dict[str, torch.Tensor], metadata: dict[str, Any]
    ) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """The record of the step to resume at, with the window that ends there."""
        if self.window is None:
            return tensors, metadata
        return {**tensors, **self.window_tensors}, {**metadata, "window": dict(self.window)}


class RunFolder:
    """Where step files go. `id` is the run's, `resumed` says whether it was there before.

    Raises RecorderError when the folder holds another run, or this one and `start_step` is 0; OSError when it cannot
    be written.
    """

    def __init__(self, path: Path, start_step: int, description: Mapping[str, Any]) -> None:
        self.path = path
        existing = path.is_dir() and ((path / "run.json").exists() or any(self._files()))
        if existing and start_step == 0:
            raise RecorderError(
                f"{path} already holds a run. Record into another folder, remove this one, or, if this job goes on "
                "with that run, pass start_step= the number of updates made so far."
            )
        self.resumed = existing
        self.planned = str(description["schedule"]).startswith("Budget")
        if existing and (path / "run.json").exists():
            self._take_over(description)
            return
        self.id = str(uuid.uuid4())
        path.mkdir(parents=True, exist_ok=True)
        created = datetime.now(timezone.utc).isoformat(timespec="seconds")
        write_json(path / "run.json", {"format": FORMAT, "id": self.id, "created": created, **description})

    def _take_over(self, description: Mapping[str, Any]) -> None:
        path = self.path / "run.json"
        try:
            there = json.loads(path.read_text(encoding="utf-8"))
            self.id = str(there["id"])
            recorded = {entry["name"]: entry for entry in there["parameters"]}
        except (ValueError, KeyError, TypeError) as error:
            raise RecorderError(f"{path}: not a run description that can be gone on with ({error!r}).") from error
        self.planned = str(there.get("schedule", "")).startswith("Budget")
        here = {entry["name"]: entry for entry in description["parameters"]}
        for name in {**recorded, **here}:
            if recorded.get(name) != here.get(name):
                raise RecorderError(
                    f"{path}: this model does not go on with that run. Parameter {name!r} there: "
                    f"{_brief(recorded.get(name))}; here: {_brief(here.get(name))}. Record into another folder."
                )

    def _files(self) -> list[Path]:
        return [file for file in self.path.iterdir() if STEP_FILE.fullmatch(file.name)]

    def steps(self) -> dict[int, int]:
        """Bytes on disk by step."""
        return {int(file.name[5:-12]): file.stat().st_size for file in self._files()}

    def go_on(self, start: int, model: RecordedModel) -> Continuation:
        """Make way for a recording from step `start` on, the model being as it is then.

        Step `start` stays if it holds these very parameters and nothing of a step; it and all later ones otherwise move
        to superseded/. Sums of learning rates go on from step `start` if it is there.
        """
        for pattern in (f".step-*{TEMPORARY}", f".probe-*{TEMPORARY}"):
            for file in self.path.glob(pattern):
                file.unlink()
        went_on = Continuation()
        steps = self.steps()
        if start in steps:
            there = self._snapshot(start)
            went_on.tau, went_on.tau_squares = there.tau, there.tau_squares
            params_only = not (there.gradients or there.batch or there.skipped)
            same = self._holds(start, model.iterate())
            went_on.complete = params_only and same
            if same and there.window is not None:
                went_on.window_tensors, went_on.window = self._window(there)
        overtaken = [step for step in steps if step > start or (step == start and not went_on.complete)]
        self._supersede(sorted(overtaken))
        kept = sorted(steps.keys() - set(overtaken))
        if kept:
            snapshots = [self._snapshot(step) for step in kept]
            source = kept[-1] if snapshots[-1].frozen_from is None else snapshots[-1].frozen_from
            if model.frozen and source in kept and self._holds(source, model.frozen_values()):
                went_on.frozen_from = source
            went_on.stored_batch = self._stored_batch(snapshots[0])
            refers = {kept[0], *(s.batch_from for s in snapshots), *(s.frozen_from for s in snapshots)}
            went_on.referred = frozenset(step for step in refers if step is not None)
        return went_on

    def _holds(self, step: int, expected: Mapping[str, torch.Tensor]) -> bool:
        """Whether a step file has exactly these bytes for these tensors."""
        from safetensors import safe_open

        with safe_open(self.path / step_filename(step), framework="pt") as file:
            names = set(file.keys())
            for name, tensor in expected.items():
                if name not in names or not same_bytes(file.get_tensor(name), tensor):
                    return False
        return True

    def _stored_batch(self, first: Snapshot) -> StoredBatch | None:
        from safetensors.torch import load_file

        if not first.batch:
            return None
        weights = first.micro_weights
        metadata = {
            "batch_tree": first.batch_tree,
            "micro_batches": first.micro_batches if first.micro_batches > 1 else None,
            "micro_weights": None if weights is None else list(weights),
        }
        return StoredBatch(first.step, batch_tensors(load_file(first.path)), metadata)

    def _window(self, snapshot: Snapshot) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        from safetensors import safe_open

        with safe_open(snapshot.path, framework="pt") as file:
            window = json.loads(file.metadata()["trajcheck"])["window"]
            return {f"window/{name}": file.get_tensor(f"window/{name}") for name in snapshot.window_gradient}, window

    def _snapshot(self, step: int) -> Snapshot:
        try:
            return read_snapshot(self.path / step_filename(step))
        except RunError as error:
            raise RecorderError(f"cannot go on with this run: {error}") from error

    def _supersede(self, steps: list[int]) -> None:
        if not steps:
            return
        aside = self.path / SUPERSEDED
        aside.mkdir(exist_ok=True)
        for step in steps:
            source = self.path / step_filename(step)
            target, number = aside / source.name, 0
            while target.exists():
                number += 1
                target = aside / f"{source.stem}.{number}{source.suffix}"
            os.rename(source, target)
        sync_folder(aside)
        sync_folder(self.path)


def describe_run(
    recorded: RecordedModel,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    schedule: str,
    overhead: float | None,
    user: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What run.json says besides format, id and date."""
    return {
        "schedule": schedule,
        "overhead": overhead,
        "parameters": recorded.describe(),
        "tied": recorded.tied,
        "optimizer": describe_optimizer(optimizer),
        "versions": describe_versions(model),
        "user": dict(user or {}),
    }


def describe_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Class name and the settings of each group that JSON can hold."""
    name = type(optimizer).__name__
    groups = []
    for group in optimizer.param_groups:
        settings = {key: _plain(value) for key, value in group.items() if key != "params"}
        settings = {key: value for key, value in settings.items() if value is not None}
        decoupled = bool(group.get("decoupled_weight_decay")) or isinstance(optimizer, torch.optim.AdamW)
        groups.append({**settings, "decoupled": decoupled})
    return {"name": name, "groups": groups}


def describe_versions(model: torch.nn.Module) -> dict[str, str]:
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "trajcheck": trajcheck.__version__,
        "device": device.type,
    }
    if device.type == "cuda":
        versions["device_name"] = torch.cuda.get_device_name(device)
    return versions


def _plain(value: Any) -> Any:
    """A number, flag, word or short tuple as JSON can hold it; None for anything else."""
    if isinstance(value, torch.Tensor):
        value = value.item() if value.numel() == 1 else None
    if isinstance(value, list | tuple):
        items = [_plain(item) for item in value]
        return items if all(isinstance(item, int | float) for item in items) else None
    if isinstance(value, float) and not -float("inf") < value < float("inf"):
        return None
    return value if isinstance(value, bool | int | float | str) else None


def _brief(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return "none"
    kind = "trainable" if entry.get("trainable") else "frozen"
    left_out = "" if entry.get("recorded", True) else ", left out"
    return f"{entry.get('shape')} {entry.get('dtype')}, group {entry.get('group')}, {kind}{left_out}"
