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
from trajcheck.files.extents import FLOATING, Extents
from trajcheck.files.plain_json import parse_json
from trajcheck.files.safetensors_header import NOTHING, Layout, TensorFile, read_header
from trajcheck.runs.batch_tree import unflatten
from trajcheck.runs.formats.native.rank_pieces import Box
from trajcheck.runs.formats.native.rank_steps import Share, join
from trajcheck.runs.formats.native.step_files import RANK_FILE, STEP_FILE, StepFiles
from trajcheck.runs.run_info import RunInfo, parse_run_info
from trajcheck.runs.snapshot import Probe, Snapshot, Window

#: Where pieces belong, as metadata said it last, by the rank and the id of the layout that it came with.
_KNOWN_BOXES: dict[tuple[int, int], tuple[Layout | None, str, dict[str, Box]]] = {}
MOST_LAYOUTS = 1024

#: The largest number of a step, which tables hold as float64 too, and of the micro-batches of one.
LARGEST, MOST_MICRO_BATCHES = 2**53, 2**20

PROBE_FILE = re.compile(r"probe-(\d+)\.safetensors")


def recognise(folder: Path) -> bool:
    """Whether a folder looks like a run in this format."""
    names = [path.name for path in folder.iterdir()]
    return (folder / "run.json").is_file() or any(STEP_FILE.fullmatch(n) or RANK_FILE.fullmatch(n) for n in names)


def probe_files(folder: Path) -> list[Path]:
    """The files of batches set aside with a run, in the order of their numbers."""
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if match := PROBE_FILE.fullmatch(path.name):
            number = int(match[1])
            if number in found:
                raise RunError(f"{folder}: {path.name} and {found[number].name} are both probe {number}.")
            if not path.is_file():
                raise RunError(f"{path}: not a regular file; a probe is one safetensors file.")
            found[number] = path
    return [found[number] for number in sorted(found)]


def read_run_info(folder: Path) -> RunInfo:
    """What run.json says; a run without one is valid, and then nothing is known of its optimizer."""
    path = folder / "run.json"
    if path.exists() and not path.is_file():
        raise RunError(f"{path}: not a regular file; expected a run description in format 1.")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return RunInfo()
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: cannot be read: {error}.") from error
    try:
        return parse_run_info(parse_json(text))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, IndexError) as error:
        raise RunError(f"{path}: not a run description in format 1 ({error!r}).") from error


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
        replicated = _field(metadata, "replicated", _table(_factor)) or {}
        return Share(rank, _snapshot(file, metadata), _vectors(file), _boxes(file, metadata, rank), replicated)
    except (ValueError, TypeError) as error:
        raise StepFileError(f"{path}: {error}.") from error


def open_step_file(path: Path) -> tuple[TensorFile, dict[str, Any]]:
    """The header of a step file and what its metadata say, as it stands there. Raises StepFileError."""
    file = read_header(str(path))
    metadata = _metadata(file, '{"format": 1, "step": N}')
    match = STEP_FILE.fullmatch(path.name) or RANK_FILE.fullmatch(path.name)
    if match and metadata.get("step") != int(match[1]):
        raise StepFileError(
            f"{path}: its metadata says step {metadata.get('step')!r}, its name {int(match[1])}. "
            "Rename the file or correct the metadata."
        )
    return file, metadata


def _boxes(file: TensorFile, metadata: Mapping[str, Any], rank: int) -> dict[str, Box]:
    """Where the pieces that are not whole tensors belong: one object for all files that say the same. Raises
    ValueError."""
    said = json.dumps([metadata.get("offset"), metadata.get("shape")])
    key = rank, id(file.layout)
    layout, known, boxes = _KNOWN_BOXES.get(key, (None, "", {}))
    if layout is not file.layout or known != said:
        if len(_KNOWN_BOXES) >= MOST_LAYOUTS:
            _KNOWN_BOXES.clear()
        boxes = _read_boxes(file, metadata)
        _KNOWN_BOXES[key] = file.layout, said, boxes
    return boxes


def _read_boxes(file: TensorFile, metadata: Mapping[str, Any]) -> dict[str, Box]:
    offsets = _field(metadata, "offset", _table(_naturals)) or {}
    shapes = _field(metadata, "shape", _table(_naturals)) or {}
    for name in (*offsets, *shapes):
        if name not in offsets or name not in shapes or name not in file.layout.specs:
            raise ValueError(
                f"metadata 'offset' and 'shape' must name the same tensors of the file, and {name!r} is "
                "not in all three"
            )
    return {name: Box(offsets[name], shapes[name]) for name in offsets}


def open_probe_file(path: Path) -> tuple[TensorFile, dict[str, Any]]:
    """As `open_step_file`, of a probe file."""
    file = read_header(str(path), "store the batches again, or remove it")
    return file, _metadata(file, '{"format": 1, "batches": N}')


def read_probe(path: Path) -> Probe:
    """One probe file's header. Raises StepFileError, naming the file and the tensor."""
    file, metadata = open_probe_file(path)
    try:
        return _probe(file, metadata)
    except (ValueError, TypeError, StepFileError) as error:
        raise StepFileError(f"{path}: {str(error).removesuffix('.')}.") from error


def _probe(file: TensorFile, metadata: Mapping[str, Any]) -> Probe:
    count = _field(metadata, "batches", _natural)
    if not count:
        raise ValueError(f"metadata 'batches' is {metadata.get('batches')!r}; expected how many batches the file holds")
    foreign = [f"{prefix}/..." for prefix in file.layout.sections if prefix != "batch"]
    if foreign:
        raise ValueError(f"a probe file holds tensors batch/<i>/... alone, but this one has {foreign[0]}")
    batch, tree = file.section("batch"), metadata.get("batch_tree")
    held = set()
    for name in batch:
        index = name.partition("/")[0]
        if not (index.isascii() and index.isdigit()) or str(int(index)) != index or int(index) >= count:
            raise ValueError(f"tensor batch/{name} is of none of the {count} batches that metadata 'batches' counts")
        held.add(int(index))
    if tree is None and len(held) < count:
        absent = next(i for i in range(count) if i not in held)
        raise ValueError(f"metadata 'batches' is {count}, but there is no tensor batch/{absent} or batch/{absent}/...")
    whole = unflatten({name: name for name in batch}, tree)
    if not isinstance(whole, tuple) or len(whole) != count:
        raise ValueError(f"batch_tree does not describe a tuple of {count} batches, which metadata 'batches' counts")
    return Probe(file.path, batch, tree, count)


def _metadata(file: TensorFile, least: str) -> dict[str, Any]:
    """The JSON object under the key `trajcheck`. Raises StepFileError."""
    text = file.metadata.get("trajcheck")
    if text is None:
        raise StepFileError(
            f"{file.path}: no metadata under the key 'trajcheck'; expected at least {least} as JSON in the safetensors "
            "header."
        )
    try:
        metadata = parse_json(text)
    except ValueError as error:
        raise StepFileError(f"{file.path}: its metadata is not JSON ({error}).") from error
    if not isinstance(metadata, dict) or metadata.get("format") != 1:
        found = metadata.get("format") if isinstance(metadata, dict) else metadata
        raise StepFileError(f"{file.path}: run format {found!r:.60}; this version of trajcheck reads format 1.")
    return metadata


def _vectors(file: TensorFile) -> dict[str, Extents]:
    sections = file.layout.sections
    parameters = sections.get("param", NOTHING)
    if "master" in sections:
        parameters = {**parameters, **sections["master"]}
    return {"param": file.extents(parameters), "grad": file.section("grad"), "window": file.section("window")}


def _snapshot(file: TensorFile, metadata: Mapping[str, Any]) -> Snapshot:
    vectors = _vectors(file)
    snapshot = Snapshot(
        step=_field(metadata, "step", _natural),
        path=file.path,
        parameters=vectors["param"],
        gradients=vectors["grad"],
        batch=file.section("batch"),
        buffers=file.section("buffer"),
        generators=file.section("rng"),
        loss=_field(metadata, "loss", _loss),
        epoch=_field(metadata, "epoch", _number),
        lr=_field(metadata, "lr", _numbers),
        tau=_field(metadata, "tau", _numbers),
        tau_squares=_field(metadata, "tau_squares", _numbers),
        clip=_field(metadata, "clip", _factor) if "clip" in metadata else 1.0,
        skipped=_field(metadata, "skipped", _flag) or False,
        batch_from=_field(metadata, "batch_from", _natural),
        batch_tree=metadata.get("batch_tree"),
        frozen_from=_field(metadata, "frozen_from", _natural),
        micro_batches=_field(metadata, "micro_batches", _micro_batches) or 1,
        micro_weights=_field(metadata, "micro_weights", _numbers),
        window=_window(metadata),
        window_gradient=vectors["window"],
    )
    _check(snapshot)
    return snapshot


def _window(metadata: Mapping[str, Any]) -> Window | None:
    value = metadata.get("window")
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError(f"metadata 'window' is {value!r:.60}; expected an object")
    found = {f"window.{key}": item for key, item in value.items()}
    start, steps = _field(found, "window.from", _natural), _field(found, "window.steps", _natural)
    offset, step = _field(found, "window.grad_dot_offset", _number), metadata.get("step")
    named = {"from": start, "steps": steps, "grad_dot_offset": offset}
    if missing := [key for key, item in named.items() if item is None]:
        raise ValueError(f"metadata 'window' lacks {missing[0]!r}")
    if isinstance(step, int) and (start >= step or steps > step - start):
        raise ValueError(
            f"metadata 'window' says {steps} steps from step {start} on; expected at most those before step {step}"
        )
    losses = _field(found, "window.loss_sum", _number)
    return Window(start, steps, offset, losses, _field(found, "window.grad_sq_sum", _factor))


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
    if snapshot.window is None and snapshot.window_gradient:
        raise ValueError(f"tensors window/... without metadata 'window' in step {snapshot.step}")
    kinds = {"param": snapshot.parameters, "grad": snapshot.gradients, "window": snapshot.window_gradient}
    for kind, tensors in kinds.items():
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
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST:
        raise ValueError
    return value


def _micro_batches(value: Any) -> int:
    if _natural(value) > MOST_MICRO_BATCHES:
        raise ValueError
    return int(value)


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


def _table(convert: Callable[[Any], Any]) -> Callable[[Any], dict[str, Any]]:
    """Of an object with values that `convert` takes."""

    def table(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValueError
        return {key: convert(item) for key, item in value.items()}

    return table


def _naturals(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise ValueError
    return tuple(map(_natural, value))


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _numbers(value: Any) -> tuple[float, ...]:
    return tuple(map(_number, value)) if isinstance(value, list) else (_number(value),)
