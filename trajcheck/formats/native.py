"""trajcheck's own run format, version 1: a folder of step-*.safetensors and, optionally, run.json.

Opening a run reads headers only. What a file says about itself is checked here; whether the steps fit together is
checked by the trajectory.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trajcheck.errors import RunError, StepFileError
from trajcheck.formats.safetensors_file import TensorFile, read_header
from trajcheck.run_info import RunInfo, parse_run_info
from trajcheck.snapshot import FLOATING, Snapshot

STEP_FILE = re.compile(r"step-(\d+)\.safetensors")
SHARD_FILE = re.compile(r"step-\d+-of-rank-\d+-of-\d+\.safetensors")


def recognise(folder: Path) -> bool:
    """Whether a folder looks like a run in this format."""
    return (folder / "run.json").is_file() or any(STEP_FILE.fullmatch(path.name) for path in folder.iterdir())


def step_files(folder: Path) -> list[Path]:
    """The step files of a run, in the order of their steps.

    Raises RunError for a run whose steps are split over ranks, which this version does not read.
    """
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if match := STEP_FILE.fullmatch(path.name):
            if int(match[1]) in found:
                raise RunError(f"{folder}: {path.name} and {found[int(match[1])].name} are both step {int(match[1])}.")
            if not path.is_file():
                raise RunError(f"{path}: not a regular file; a step is one safetensors file.")
            found[int(match[1])] = path
        elif SHARD_FILE.fullmatch(path.name):
            raise RunError(
                f"{path}: a piece of a run that was recorded in shards. This version of trajcheck reads runs whose "
                "step files are whole; record with one process, or gather the pieces first."
            )
    return [found[step] for step in sorted(found)]


def read_run_info(folder: Path) -> RunInfo:
    """What run.json says; a run without one is valid, and then nothing is known of its optimizer."""
    path = folder / "run.json"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return RunInfo()
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: cannot be read: {error}.") from error
    try:
        return parse_run_info(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise RunError(f"{path}: not a run description in format 1 ({error!r}).") from error


def read_snapshot(path: Path) -> Snapshot:
    """One step file's header as a snapshot. Raises StepFileError."""
    file = read_header(str(path))
    text = file.metadata.get("trajcheck")
    if text is None:
        raise StepFileError(
            f"{path}: no metadata under the key 'trajcheck'; expected at least "
            '{"format": 1, "step": N} as JSON in the safetensors header.'
        )
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StepFileError(f"{path}: its metadata is not JSON ({error}).") from error
    if not isinstance(metadata, dict) or metadata.get("format") != 1:
        found = metadata.get("format") if isinstance(metadata, dict) else metadata
        raise StepFileError(f"{path}: run format {found!r}; this version of trajcheck reads format 1.")
    match = STEP_FILE.fullmatch(path.name)
    if match and metadata.get("step") != int(match[1]):
        raise StepFileError(
            f"{path}: its metadata says step {metadata.get('step')!r}, its name {int(match[1])}. "
            "Rename the file or correct the metadata."
        )
    try:
        return _snapshot(file, metadata)
    except (ValueError, TypeError) as error:
        raise StepFileError(f"{path}: {error}.") from error


def _snapshot(file: TensorFile, metadata: Mapping[str, Any]) -> Snapshot:
    parameters = {**file.layout.sections.get("param", {}), **file.layout.sections.get("master", {})}
    if not parameters:
        raise ValueError("no tensor 'param/...'; a step file holds at least the parameters")
    snapshot = Snapshot(
        step=_field(metadata, "step", _natural),
        path=file.path,
        parameters=file.extents(parameters),
        gradients=file.section("grad"),
        batch=file.section("batch"),
        buffers=file.section("buffer"),
        generators=file.section("rng"),
        loss=_field(metadata, "loss", _loss),
        lr=_field(metadata, "lr", _numbers),
        tau=_field(metadata, "tau", _numbers),
        tau_squares=_field(metadata, "tau_squares", _numbers),
        clip=_field(metadata, "clip", _factor) if "clip" in metadata else 1.0,
        skipped=_field(metadata, "skipped", _flag) or False,
        batch_from=_field(metadata, "batch_from", _natural),
        batch_tree=metadata.get("batch_tree"),
        frozen_from=_field(metadata, "frozen_from", _natural),
        micro_batches=_field(metadata, "micro_batches", _natural) or 1,
        micro_weights=_field(metadata, "micro_weights", _numbers),
    )
    _check(snapshot)
    return snapshot


def _check(snapshot: Snapshot) -> None:
    """What the tensors of a step say must fit what its metadata say. Raises ValueError."""
    count, weights = snapshot.micro_batches, snapshot.micro_weights
    if snapshot.batch and snapshot.batch_tree is None and count > len(snapshot.batch):
        raise ValueError(f"metadata 'micro_batches' is {count}, but there are {len(snapshot.batch)} batch tensors")
    if weights is not None and len(weights) != count:
        raise ValueError(f"{len(weights)} micro_weights for {count} micro-batches; expected one for each")
    for name, extent in snapshot.generators.items():
        if extent.dtype != "U8" or not 1 <= len(extent.shape) <= 2 or not extent.numel:
            raise ValueError(
                f"step {snapshot.step}, tensor rng/{name} is {extent.dtype} of shape {list(extent.shape)}; expected "
                "generator states, U8 of shape [micro-batches, bytes]"
            )
    for kind, tensors in (("param", snapshot.parameters), ("grad", snapshot.gradients)):
        for name, extent in tensors.items():
            if extent.dtype not in FLOATING:
                raise ValueError(
                    f"step {snapshot.step}, tensor {kind}/{name}: dtype {extent.dtype}; expected one of "
                    + ", ".join(FLOATING)
                )


def _field(metadata: Mapping[str, Any], key: str, convert: Callable[[Any], Any]) -> Any:
    value = metadata.get(key)
    if value is None:
        return None
    try:
        return convert(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"metadata {key!r} is {value!r:.60}, which is not what format 1 expects there") from None


def _natural(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError
    if not math.isfinite(value):
        raise ValueError
    return float(value)


def _loss(value: Any) -> float | None:
    """A loss that was not finite is as good as none."""
    return None if isinstance(value, float) and not math.isfinite(value) else _number(value)


def _factor(value: Any) -> float:
    if _number(value) < 0:
        raise ValueError
    return float(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _numbers(value: Any) -> tuple[float, ...]:
    return tuple(map(_number, value)) if isinstance(value, list) else (_number(value),)
