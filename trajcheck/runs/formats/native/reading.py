"""trajcheck's own run format, version 1: a folder of step-*.safetensors and, optionally, run.json.

Opening a run reads headers only. What a file says about itself is checked here; whether the steps fit together is
checked by the trajectory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trajcheck.errors import StepFileError
from trajcheck.files.extents import FLOATING, Extents
from trajcheck.files.safetensors_header import NOTHING, TensorFile, read_header
from trajcheck.runs.formats.native.contents import read_contents
from trajcheck.runs.formats.native.group_settings import as_groups
from trajcheck.runs.formats.native.metadata import (
    as_factor,
    as_flag,
    as_group,
    as_loss,
    as_micro_batches,
    as_micro_gradients,
    as_modes,
    as_natural,
    as_naturals,
    as_number,
    as_numbers,
    as_places,
    as_reason,
    as_table,
    as_weights,
    described,
    entry,
)
from trajcheck.runs.formats.native.rank_boxes import read_boxes
from trajcheck.runs.formats.native.rank_steps import Share, join
from trajcheck.runs.formats.native.step_files import RANK_FILE, STEP_FILE, StepFiles
from trajcheck.runs.formats.native.unseen import read_unseen
from trajcheck.runs.snapshot import Snapshot, Window

#: Entries of a step's metadata that are fields of its snapshot. One that is not there, or says nothing (0, false, an
#: empty list or object), leaves the field as it is by default, but for those of EXACT.
ENTRIES: Mapping[str, Callable[[Any], Any]] = {
    "skipped": as_flag,
    "frozen_from": as_places,
    "buffers_from": as_places,
    "micro_batches": as_micro_batches,
    "forwards": as_naturals,
    "omitted": as_table(as_reason),
    "groups": as_groups,
    "trained": as_table(as_group),
}
EXACT: Mapping[str, Callable[[Any], Any]] = {
    "loss": as_loss,
    "epoch": as_number,
    "lr": as_numbers,
    "tau": as_numbers,
    "tau_squares": as_numbers,
    "batch_from": as_natural,
    "modes": as_modes,
    "micro_weights": as_weights,
    "micro_gradients": as_micro_gradients,
    "autocast": as_reason,
}
_FLOATING = frozenset(FLOATING)


def read_step(files: Mapping[int, StepFiles], step: int) -> Snapshot:
    """The headers of a step's files as one snapshot. Raises StepFileError."""
    if files[step].ranks == 1:
        return read_snapshot(files[step].path)
    return join(_shares(files, step), lambda other: _shares(files, other))


def read_rank(path: Path, rank: int) -> Snapshot:
    """What one of several ranks wrote of a step, by itself: its tensors are not put together. Raises StepFileError."""
    return _share(rank, path).snapshot


def _shares(files: Mapping[int, StepFiles], step: int) -> list[Share]:
    if step not in files or files[step].missing:
        return []
    return [_share(rank, path) for rank, path in sorted(files[step].paths.items())]


def read_snapshot(path: Path) -> Snapshot:
    """One step file's header as a snapshot. Raises StepFileError."""
    file, metadata = open_step_file(path)
    try:
        if not (file.layout.sections.get("param") or file.layout.sections.get("master")):
            raise ValueError("no tensor 'param/...'; a step file holds at least the parameters")
        snapshot = _snapshot(file, metadata)
        if snapshot.window is not None and not snapshot.window_gradient:
            raise ValueError(f"metadata 'window' without tensors window/... in step {snapshot.step}")
    except (ValueError, TypeError) as error:
        raise StepFileError(f"{path}: {error}.") from error
    return snapshot


def _share(rank: int, path: Path) -> Share:
    """The header of the file of one of several ranks. Raises StepFileError."""
    file, metadata = open_step_file(path)
    try:
        replicated = entry(metadata, "replicated", as_table(as_factor)) or {}
        return Share(rank, _snapshot(file, metadata), _vectors(file), read_boxes(file, metadata, rank), replicated)
    except (ValueError, TypeError) as error:
        raise StepFileError(f"{path}: {error}.") from error


def open_step_file(path: Path) -> tuple[TensorFile, dict[str, Any]]:
    """The header of a step file and what its metadata say, as it stands there. Raises StepFileError."""
    file, metadata = described(read_header(str(path)), '{"format": 1, "step": N}')
    match = STEP_FILE.fullmatch(path.name) or RANK_FILE.fullmatch(path.name)
    if match and metadata.get("step") != int(match[1]):
        raise StepFileError(
            f"{path}: its metadata says step {metadata.get('step')!r}, its name {int(match[1])}. "
            "Rename the file or correct the metadata."
        )
    return file, metadata


def _vectors(file: TensorFile) -> dict[str, Extents]:
    sections = file.layout.sections
    parameters = sections.get("param", NOTHING)
    if "master" in sections:
        parameters = {**parameters, **sections["master"]}
    return {"param": file.extents(parameters), "grad": file.section("grad"), "window": file.section("window")}


def _snapshot(file: TensorFile, metadata: Mapping[str, Any]) -> Snapshot:
    vectors = _vectors(file)
    snapshot = Snapshot(
        step=entry(metadata, "step", as_natural),
        path=file.path,
        parameters=vectors["param"],
        gradients=vectors["grad"],
        batch=file.section("batch"),
        buffers=file.section("buffer"),
        generators=file.section("rng"),
        state=file.section("state"),
        clip=entry(metadata, "clip", as_factor) if "clip" in metadata else 1.0,
        batch_tree=metadata.get("batch_tree"),
        window=_window(metadata),
        unseen=read_unseen(metadata),
        contents=read_contents(metadata),
        window_gradient=vectors["window"],
        **{key: entry(metadata, key, read) for key, read in EXACT.items() if key in metadata},
        **{key: found for key, read in ENTRIES.items() if key in metadata and (found := entry(metadata, key, read))},
    )
    _check(snapshot, file)
    return snapshot


def _window(metadata: Mapping[str, Any]) -> Window | None:
    value = metadata.get("window")
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError(f"metadata 'window' is {value!r:.60}; expected an object")
    found = {f"window.{key}": item for key, item in value.items()}
    start, steps = entry(found, "window.from", as_natural), entry(found, "window.steps", as_natural)
    offset, step = entry(found, "window.grad_dot_offset", as_number), metadata.get("step")
    named = {"from": start, "steps": steps, "grad_dot_offset": offset}
    if missing := [key for key, item in named.items() if item is None]:
        raise ValueError(f"metadata 'window' lacks {missing[0]!r}")
    if isinstance(step, int) and (start >= step or steps > step - start):
        raise ValueError(
            f"metadata 'window' says {steps} steps from step {start} on; expected at most those before step {step}"
        )
    losses = entry(found, "window.loss_sum", as_number)
    return Window(start, steps, offset, losses, entry(found, "window.grad_sq_sum", as_factor))


def _check(snapshot: Snapshot, file: TensorFile) -> None:
    """What the tensors of a step say must fit what its metadata say. Raises ValueError."""
    count, weights = snapshot.micro_batches, snapshot.micro_weights
    if snapshot.batch and snapshot.batch_tree is None and count > len(snapshot.batch):
        raise ValueError(f"metadata 'micro_batches' is {count}, but there are {len(snapshot.batch)} batch tensors")
    if weights is not None and len(weights) != count:
        raise ValueError(f"{len(weights)} micro_weights for {count} micro-batches; expected one for each")
    if (micro := snapshot.micro_gradients) and len(micro.squares) != count:
        raise ValueError(f"metadata 'micro_gradients' has {len(micro.squares)} of {count} micro-batches")
    if (forwards := snapshot.forwards) and (len(forwards) != count or not all(forwards)):
        raise ValueError(
            f"metadata 'forwards' is {list(forwards)} for {count} micro-batches; expected one or more for each"
        )
    for name, extent in snapshot.generators.items():
        if extent.dtype != "U8" or not 1 <= len(extent.shape) <= 2 or not extent.numel:
            raise ValueError(
                f"step {snapshot.step}, tensor rng/{name} is {extent.dtype} of shape {list(extent.shape)}; expected "
                "generator states, U8 of shape [forwards, bytes]"
            )
    if snapshot.window is None and snapshot.window_gradient:
        raise ValueError(f"tensors window/... without metadata 'window' in step {snapshot.step}")
    # Of the parameters frozen ones may have any dtype, and which are is not known here: trajectory.py looks at them.
    kinds = {"grad": snapshot.gradients, "window": snapshot.window_gradient}
    for kind, tensors in kinds.items():
        if file.layout.dtypes.get(kind, _FLOATING) <= _FLOATING:
            continue
        for name, extent in tensors.items():
            if extent.dtype not in FLOATING:
                raise ValueError(
                    f"step {snapshot.step}, tensor {kind}/{name}: dtype {extent.dtype}; expected one of "
                    + ", ".join(FLOATING)
                )
