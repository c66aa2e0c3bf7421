"""Any run or archive as a run in trajcheck's own format: a file a step, streamed, gone on with where it was stopped.

Nothing of the source is changed, and nothing that lies at the target is replaced: a folder that holds another run, or
the same one converted in another way, is refused. What makes two conversions the same is the source's id, its steps and
the options; the new run's id follows from them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from trajcheck.commands.convert.record import Contents
from trajcheck.commands.convert.streamed_file import write_streamed
from trajcheck.errors import OutputError, RunError, UsageError
from trajcheck.files.extent_reader import ExtentReader
from trajcheck.files.folders import OpenFolder
from trajcheck.files.leases import HeldError, take
from trajcheck.files.opening import opened
from trajcheck.files.whole_files import json_bytes
from trajcheck.objective.program.stored import program_damage
from trajcheck.runs.formats.recognise import open_run, recognise
from trajcheck.runs.formats.stored_run import PROGRAM, PROGRAM_TENSORS
from trajcheck.runs.surroundings import same_bytes
from trajcheck.runs.trajectory import Trajectory, trajectory_of
from trajcheck.scalars.rows import parse_steps
from trajcheck.version import __version__

#: safetensors' codes by the words of the option.
DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
_DESCRIPTION, _LEASE = "run.json", ".converting"


@dataclass(frozen=True)
class Conversion:
    """What was written: the run's folder, its steps, how many of them an earlier call had written, bytes of this one;
    `left_out` are steps of the source that cannot be used, `damage` is why its loss program was left out, or ""."""

    path: Path
    steps: tuple[int, ...]
    already: int
    bytes: int
    left_out: Mapping[int, str]
    damage: str = ""


def convert(
    source: str | os.PathLike[str],
    run: str | os.PathLike[str],
    *,
    dtype: str | None = None,
    steps: str | None = None,
    skip_bad: bool = False,
    quiet: bool = True,
) -> Conversion:
    """Write `source`, a run or an archive of any format, as a run in trajcheck's own format at `run`.

    `dtype`: float32, bfloat16 or float16, to which parameters, gradients, the optimizer's state and windows are rounded
    (to the nearest, ties to even); buffers, frozen parameters and batches stay as they are. None: all stays. `steps`:
    "A:B:C", those to write, as a slice of step numbers; a window is kept where the record that it begins at is. What
    an earlier call wrote is not written again. Memory: some megabytes.

    Raises UsageError, RunError for a source that cannot be read or holds what one file a step cannot, OutputError for a
    target that holds something else or cannot be written.
    """
    from trajcheck.progress_bar import progress_bar

    if dtype is not None and dtype not in DTYPES:
        raise UsageError(f"--dtype {dtype!r}: expected one of {', '.join(DTYPES)}.")
    chosen = parse_steps(steps)
    stored = open_run(Path(source))
    trajectory = trajectory_of(stored, skip_bad=skip_bad)
    kept = [step for step in trajectory.steps if step in range(*chosen.indices(trajectory.steps[-1] + 1))]
    if not kept:
        raise RunError(f"{source}: no step in {steps}; it has {trajectory.steps[0]} to {trajectory.steps[-1]}.")
    target = Path(run)
    described = _description(trajectory, kept, dtype)
    written = already = 0
    damage = program_damage(stored.path / PROGRAM) or ""  # looked at before it is copied: it may be of any size
    files = [stored.path / name for name in stored.beside if not (damage and name in (PROGRAM, PROGRAM_TENSORS))]
    try:
        with OpenFolder.within(target, make=True) as folder, take(target, _LEASE):
            _begin(folder, target, described)
            written += _beside(folder, [*files, *(Path(probe.path) for probe in trajectory.probes if probe.path)])
            with ExtentReader() as reader, progress_bar(f"convert {target.name}", len(kept), quiet) as progress:
                contents = Contents(trajectory, frozenset(kept), partial(same_bytes, reader))
                for snapshot in trajectory.snapshots:
                    if snapshot.step not in contents.kept:
                        continue
                    content = contents.of(snapshot)
                    name = f"step-{snapshot.step:09d}.safetensors"
                    if folder.holds(name):
                        already += 1
                    else:
                        dtypes = dict.fromkeys(content.rounded, DTYPES[dtype]) if dtype else {}
                        written += write_streamed(folder, name, content.tensors, content.metadata, dtypes, reader)
                    progress(1)
    except HeldError as error:
        raise OutputError(f"{target}: another conversion is writing there ({error}).") from error
    except OSError as error:
        raise OutputError(f"{error.filename or target}: cannot be written: {error.strerror or error}.") from error
    return Conversion(target, tuple(kept), already, written, trajectory.left_out, damage)


def _begin(folder: OpenFolder, target: Path, described: Mapping[str, Any]) -> None:
    """run.json, unless that of the same conversion is there. Raises OutputError for any other."""
    if folder.holds(_DESCRIPTION):
        found = open_run(target).info()
        if found.id != described["id"]:
            raise OutputError(
                f"{target}: holds another run, or this one converted otherwise (id {found.id}; expected "
                f"{described['id']}). Nothing was replaced: give another folder."
            )
        return
    if recognise(target) is not None:
        raise OutputError(f"{target}: holds a run already. Nothing was replaced: give another folder.")
    made = {**described, "created": datetime.now(timezone.utc).isoformat(timespec="seconds")}
    folder.write(_DESCRIPTION, [json_bytes(made)])
    folder.sync()


def _beside(folder: OpenFolder, files: Iterable[Path]) -> int:
    """Copy the loss program, the batches set aside, and the numbers of every step, whichever steps are converted."""
    total = 0
    for file in files:
        if file.is_file() and not folder.holds(file.name):
            with opened(file) as held:
                folder.write(file.name, iter(lambda: held.read(1 << 20), b""))
            total += file.stat().st_size
    return total


def _description(trajectory: Trajectory, kept: list[int], dtype: str | None) -> dict[str, Any]:
    """What run.json says but for the date."""
    info = trajectory.info
    what = {"from": trajectory.id, "dtype": dtype, "steps": kept}
    first = trajectory.snapshots[0]
    parameters = [
        {
            "name": name,
            "shape": list(shape),
            "dtype": info.dtypes.get(name, first.parameters[name].dtype),
            "group": info.group_of.get(name),
            "trainable": True,
        }
        for name, shape in trajectory.shapes.items()
    ]
    frozen = [
        {"name": name, "shape": list(extent.shape), "dtype": extent.dtype, "group": None, "trainable": False}
        for name, extent in first.frozen.items()
    ]
    groups = [dict(group) for group in info.groups]
    return {
        "format": 1,
        "id": str(uuid5(NAMESPACE_URL, repr(what))),
        "schedule": f"converted from {trajectory.path.name}",
        "parameters": [*parameters, *frozen],
        "tied": dict(info.tied),
        **({"optimizer": {"name": info.optimizer, "groups": groups}} if info.optimizer or groups else {}),
        "versions": {**info.versions, "converted_by": __version__},
        "user": {**info.user, "converted": {"from": trajectory.id, "dtype": dtype or "as it was"}},
    }
