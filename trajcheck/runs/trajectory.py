"""A run as an ordered, lazy sequence of snapshots that fit together."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from trajcheck.errors import RunError, StepFileError, UnevenStepError
from trajcheck.files.extents import FLOATING, Extents
from trajcheck.files.prints import hash_file
from trajcheck.readable import some_of
from trajcheck.runs.formats.recognise import open_run
from trajcheck.runs.formats.stored_run import StoredRun
from trajcheck.runs.logs.learning_times import with_times
from trajcheck.runs.logs.run_log import RunLog
from trajcheck.runs.modes import Modes, other_modes
from trajcheck.runs.optimizer_settings import RunSettings
from trajcheck.runs.run_info import RunInfo
from trajcheck.runs.snapshot import Probe, Snapshot
from trajcheck.runs.surroundings import with_buffers, with_doubts, with_frozen
from trajcheck.runs.trained_sets import changing_parameters, in_the_union

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Trajectory:
    """The recorded steps of one run, in order; x_t of snapshot i is `snapshots[i].parameters[name]` for name in
    `shapes`.

    `shapes` are the trainable parameters, tied ones once, in the run's order, those of any step: the space in which
    every inner product is taken. `files` are those in which the record of each step lies. `left_out` says which step
    files are not part of it, and why.
    """

    path: Path
    info: RunInfo
    snapshots: tuple[Snapshot, ...]
    shapes: Shapes
    files: Mapping[int, tuple[str, ...]]
    left_out: Mapping[int, str] = field(default_factory=dict)
    ended: str | None = None  # why the trajectory stops before its recorded end
    program_modes: Modes | None = None  # of the exported program that replays it; None: any mode can be replayed
    probes: tuple[Probe, ...] = ()  # batches set aside, in order; not part of any step
    log: RunLog | None = None  # rates and losses of its steps, from beside it

    @cached_property
    def steps(self) -> list[int]:
        return [snapshot.step for snapshot in self.snapshots]

    @cached_property
    def id(self) -> str:
        """The run's id, or the hash of its first step file where nothing gives one."""
        if self.info.id:
            return self.info.id
        return hash_file(self.snapshots[0].path)

    @cached_property
    def settings(self) -> RunSettings:
        """What the optimizer was set to at each record."""
        return RunSettings(self.info, self.snapshots)

    @property
    def numel(self) -> int:
        """How many trainable parameters there are."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def index(self, step: int) -> int | None:
        """Where in `snapshots` a step is, or None."""
        place = bisect_left(self.steps, step)
        return place if place < len(self.steps) and self.steps[place] == step else None

    @property
    def has_batches(self) -> bool:
        """Whether any step has a batch; archives by others than trajcheck's Recorder hold none."""
        return any(snapshot.has_batch for snapshot in self.snapshots)

    def with_drawn_probes(self, count: int | None) -> Trajectory:
        """With so many probe batches of the objective's data in place of those set aside with the run; None: with its
        own."""
        return self if count is None else replace(self, probes=(Probe("", {}, None, count),))

    def without(self, left_out: Mapping[int, str]) -> Trajectory:
        """The same run without some steps. Raises RunError when none is left."""
        kept = tuple(snapshot for snapshot in self.snapshots if snapshot.step not in left_out)
        if not kept:
            raise RunError(f"{self.path}: no step is left; {next(iter(left_out.values()))}")
        return replace(self, snapshots=kept, left_out={**self.left_out, **left_out})

    def batch_source(self, snapshot: Snapshot) -> Snapshot | None:
        """The snapshot whose file holds the batch of this one; None where no batch was recorded or it is gone."""
        if snapshot.batch_from is None or snapshot.batch_from == snapshot.step:
            return snapshot if snapshot.batch else None
        place = self.index(snapshot.batch_from)
        return self.snapshots[place] if place is not None and self.snapshots[place].batch else None

    def no_tau(self, snapshot: Snapshot) -> str:
        """Why a step has no one tau; '' where it has."""
        if not snapshot.tau:
            return snapshot.omitted.get("tau", "no tau was recorded")
        return "" if len(set(snapshot.tau)) == 1 else "parameter groups differ in tau"

    def no_evaluation(self, snapshot: Snapshot) -> str:
        """Why no loss can be evaluated as in a step's forward, on whatever sample; '' where it can."""
        if snapshot.unsure:
            return snapshot.unsure
        if self.program_modes is None or snapshot.modes is None or snapshot.modes == self.program_modes:
            return ""
        return other_modes(self.program_modes, snapshot.modes)

    def no_sample(self, snapshot: Snapshot) -> str:
        """Why the loss of a step cannot be evaluated again on its own sample; '' where it can."""
        if not snapshot.has_batch:
            return _because("no batch was recorded at this step", snapshot.omitted.get("batch"))
        source = self.batch_source(snapshot)
        if source is None:
            return f"its batch is in step {snapshot.batch_from}, which is not part of the run"
        if "replay" in snapshot.omitted:
            return f"its sample cannot be replayed: {snapshot.omitted['replay']}"
        if None in (snapshot.micro_weights or source.micro_weights or ()):
            return "its sample cannot be replayed: it was recorded without the weight by which its loss counted"
        return self.no_evaluation(snapshot)


def _because(missing: str, reason: str | None) -> str:
    return missing if reason is None else f"{missing}: {reason}"


def open_trajectory(path: Path, *, skip_bad: bool = False, log: RunLog | None = None) -> Trajectory:
    """Open the run at a path, as `trajectory_of`. Raises RunError where there is none."""
    return trajectory_of(open_run(path), skip_bad=skip_bad, log=log)


def trajectory_of(stored: StoredRun, *, skip_bad: bool = False, log: RunLog | None = None) -> Trajectory:
    """Read every header of a run, check that the steps fit together, touch no tensor.

    `log` comes before the one that the run's format finds beside it. With `skip_bad`, step files that cannot be
    used are left out and listed in `left_out`; a probe file that cannot is an error all the same.
    Raises RunError or StepFileError, naming path, step and tensor.
    """
    path, steps = stored.path, stored.steps()
    if not steps:
        raise RunError(f"{path}: an empty run: there is no step file yet.")
    info = stored.info()
    left_out = _incomplete(stored, info, skip_bad)
    probes = stored.probes()
    snapshots = []
    for step in steps:
        if step in left_out:
            continue
        try:
            snapshots.append(stored.snapshot(step))
        except StepFileError as error:
            ended = isinstance(error, UnevenStepError) and all(later in left_out for later in steps if later > step)
            if not (skip_bad or ended):
                if type(error) is StepFileError and "--skip-bad" not in str(error):
                    raise StepFileError(f"{error} analyze --skip-bad leaves such steps out.") from error
                raise
            left_out[step] = str(error)
    if not snapshots:
        raise RunError(f"{path}: none of its {len(steps)} steps can be read; {next(iter(left_out.values()))}")
    changing = changing_parameters(info, snapshots)
    snapshots = with_doubts(with_buffers(with_frozen(info, snapshots, changing)))
    shapes = dict(info.parameters) or _usual_shapes(snapshots)
    if changing:
        shapes = {**shapes, **changing}
        snapshots = [in_the_union(info, snapshot, shapes, changing) for snapshot in snapshots]
    if not any(math.prod(shape) for shape in shapes.values()):
        raise RunError(f"{path}: holds no number: its parameters ({some_of(list(shapes))}) have 0 elements.")
    fitting = []
    checked = set[tuple[str, int, int, int]]()
    for snapshot in snapshots:
        try:
            _check(snapshot, shapes, checked)
        except StepFileError as error:
            if not skip_bad:
                raise
            left_out[snapshot.step] = str(error)
        else:
            fitting.append(_trained_alone(snapshot, shapes))
    if not fitting:
        raise RunError(f"{path}: no step fits the run's parameters; {next(iter(left_out.values()))}")
    log = stored.log() if log is None else log.before(stored.log())
    fitting = with_times(info, fitting, log)
    files = {snapshot.step: steps[snapshot.step].files for snapshot in fitting}
    return Trajectory(path, info, tuple(fitting), shapes, files, left_out, probes=probes, log=log)


def _incomplete(stored: StoredRun, info: RunInfo, skip_bad: bool) -> dict[int, str]:
    """The steps of which a file is not there, with the reason.

    A job that is killed leaves such steps at its end, and where it deletes records in between as well; elsewhere a file
    was lost. Raises StepFileError for that, unless `skip_bad`.
    """
    left_out = {}
    at_the_end = True
    for step, there in sorted(stored.steps().items(), reverse=True):
        if there.missing is None:
            at_the_end = False
        elif at_the_end or info.thinned or skip_bad:
            left_out[step] = f"{stored.path}: {there.missing}; {there.cause}"
        else:
            raise StepFileError(
                f"{there.files[0]}: {there.missing}. Copy it here, or leave the step out (analyze --skip-bad)."
            )
    return left_out


def _trained_alone(snapshot: Snapshot, shapes: Shapes) -> Snapshot:
    """Without the frozen parameters among those that its file holds: they stand apart."""
    held = snapshot.parameters
    if len(held) == len(shapes):
        return snapshot
    return replace(
        snapshot, parameters=held.only(shapes) if isinstance(held, Extents) else {n: held[n] for n in shapes}
    )


def _usual_shapes(snapshots: list[Snapshot]) -> Shapes:
    """The parameters that most steps hold, so that an error points at the odd step and not at all the others."""
    counts: Counter[tuple[tuple[str, tuple[int, ...]], ...]] = Counter()
    for snapshot in snapshots:
        counts[
            tuple(
                (name, extent.shape)
                for name, extent in sorted(snapshot.parameters.items())
                if name not in snapshot.frozen
            )
        ] += 1
    return dict(counts.most_common(1)[0][0])


def _check(snapshot: Snapshot, shapes: Shapes, checked: set[tuple[str, int, int, int]]) -> None:
    """Every parameter there, of the run's shape, and no other; a gradient for all of them or for none, and as many sums
    of gradients. `checked` are layouts of files, which steps share, that were found right before."""
    hint = "All steps of a run must hold the same tensors (analyze --skip-bad leaves such steps out)."
    kinds = {"param": snapshot.parameters, "grad": snapshot.gradients, "window": snapshot.window_gradient}
    for kind, tensors in kinds.items():
        if kind != "param" and not tensors:
            continue
        alike = None
        if isinstance(tensors, Extents):
            specs, names = tensors.layout
            alike = kind, id(specs), id(names), id(snapshot.frozen) if snapshot.frozen else 0
            if alike in checked:
                continue
        for name, shape in shapes.items():
            if name not in tensors:
                raise StepFileError(
                    f"{snapshot.path}: step {snapshot.step} lacks tensor {kind}/{name}, expected of shape "
                    f"{list(shape)}. {hint}"
                )
            if tensors[name].shape != shape:
                raise StepFileError(
                    f"{snapshot.path}: step {snapshot.step}, tensor {kind}/{name} has shape "
                    f"{list(tensors[name].shape)}; expected {list(shape)}. {hint}"
                )
            if tensors[name].dtype not in FLOATING:
                raise StepFileError(
                    f"{snapshot.path}: step {snapshot.step}, tensor {kind}/{name}: dtype {tensors[name].dtype}; "
                    f"expected one of {', '.join(FLOATING)}, as it is trained."
                )
        for name in tensors:
            if name not in shapes and not (kind == "param" and name in snapshot.frozen):
                raise StepFileError(
                    f"{snapshot.path}: step {snapshot.step} holds {kind}/{name}, which the run's other steps or its "
                    f"run.json do not have. {hint}"
                )
        if alike is not None:
            checked.add(alike)
