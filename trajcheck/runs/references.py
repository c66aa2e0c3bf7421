"""Reference points x*: from the words of a `--ref` to a vector with an identity.

    final           the last iterate              mean:N              the average of the last N recorded iterates
    init            x_0                           OTHER_RUN           the last iterate of another run
    best            lowest recorded loss          OTHER_RUN@...       any of the others, of another run
    step:N          a recorded iterate            FILE or FOLDER      weights, under whatever names

An iterate of the analyzed run is known as such under any of these names, since it depends on the run's samples.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trajcheck.errors import InvalidReferenceError, RunError, StepFileError, TrajcheckError
from trajcheck.files.extent_reader import ExtentReader
from trajcheck.files.extents import FLOATING, ITEM_SIZE, Extent
from trajcheck.files.kept_vectors import Workspace, header_block, kept_file, kept_vector, origin_of
from trajcheck.files.prints import FilePrints
from trajcheck.files.remote.address import is_remote
from trajcheck.runs.divergence import cut_at_divergence, not_finite
from trajcheck.runs.formats.recognise import recognise
from trajcheck.runs.formats.weights_file import Weights, are_weights, read_weights
from trajcheck.runs.independence.dependence import UNKNOWN, Dependence, of_point, of_run, of_steps
from trajcheck.runs.independence.nearness import equal_points
from trajcheck.runs.reference_words import normalised
from trajcheck.runs.snapshot import Snapshot
from trajcheck.runs.trajectory import Shapes, Trajectory, open_trajectory
from trajcheck.runs.weight_names import Matched, match_weights

if TYPE_CHECKING:
    from trajcheck.files.pickles.tensors import StoredTensor

#: Digits of a number of a step or of iterates.
MOST_DIGITS = 30

KINDS = "final, init, best, step:N, mean:N, OTHER_RUN, OTHER_RUN@(any of these), a file or folder of weights"


@dataclass(frozen=True)
class Reference:
    """A reference point x*.

    `spec` is the reference as it was given, or its role; `key` identifies the point by content (run id and steps, or
    hash), so that `final` of a run that has grown is another point. `own_steps` are the steps of the analyzed run whose
    iterate, or average of iterates, x* is: x* depends on the samples before them. Empty for another run or a file.
    `files` are those that its numbers were read from. `frozen` and `buffers` are what belongs to it beside the trained
    parameters, as far as it is known. `dependence` says on the samples of which steps it depends.
    """

    spec: str
    key: str
    parameters: Mapping[str, Extent]
    own_steps: tuple[int, ...] = ()
    files: tuple[str, ...] = ()
    frozen: Mapping[str, Extent] = field(default_factory=dict)
    buffers: Mapping[str, Extent] = field(default_factory=dict)
    dependence: Dependence = UNKNOWN

    @property
    def record(self) -> int | None:
        """The step whose record x* is, with all that is around it; None also for a file of the same numbers, which may
        have other buffers."""
        return self.step if self.key.endswith(f"/step:{self.step}") else None

    @property
    def step(self) -> int | None:
        """The step of the analyzed run whose iterate x* is; None for an average, another run, a file."""
        return self.own_steps[0] if len(self.own_steps) == 1 else None


def resolve_references(
    specs: Sequence[str],
    trajectory: Trajectory,
    workspace: Path | None,
    prints: FilePrints | None = None,
    roles: Mapping[str, str] | None = None,
) -> list[Reference]:
    """The references that `specs` name, each once, and those that have `roles`, {role: spec}, under their roles;
    averages are computed once and kept as files in `workspace`.

    Two ways of writing one path are one reference, under the first of them, normalised.

    An average that lies there already, made of the same files as `prints` know them, is not computed again. With
    `workspace` None none is computed: the last iterate stands in for it, for those who ask only what an analysis would
    cost. Raises InvalidReferenceError, saying what was found and what is possible.
    """
    place = None if workspace is None else Workspace(workspace, prints or FilePrints())
    references = [_resolve(spec, trajectory, place) for spec in dict.fromkeys(map(normalised, specs))]
    references += [_in_role(role, spec, trajectory, place) for role, spec in (roles or {}).items()]
    with ExtentReader() as reader:
        for reference in references:
            if bad := not_finite(reader, reference.parameters, trajectory.shapes):
                path = reference.parameters[bad].path
                raise InvalidReferenceError(
                    f"reference {reference.spec!r}: tensor {bad!r} holds NaN or Inf ({path}). Choose a point with "
                    "finite parameters; --skip-bad leaves such steps of the analyzed run out."
                )
    return references


def _in_role(role: str, spec: str, trajectory: Trajectory, workspace: Workspace | None) -> Reference:
    try:
        return replace(_resolve(spec, trajectory, workspace), spec=role)
    except InvalidReferenceError as error:
        raise InvalidReferenceError(f"--ref-as {role}: {error}") from error


def _resolve(spec: str, trajectory: Trajectory, workspace: Workspace | None) -> Reference:
    own = _point(spec, spec, trajectory, workspace)
    if own is not None:
        return own
    if are_weights(spec) and "@" not in Path(spec).name and not _is_run(spec):
        return _from_file(spec, trajectory, workspace)
    run, _, point = spec.rpartition("@") if not _may_be_run(spec) and "@" in spec else (spec, "", "final")
    if not _may_be_run(run):
        raise InvalidReferenceError(
            f"reference {spec!r}: neither a point of the run nor an existing run or file. Possible are: {KINDS}."
        )
    try:
        other = cut_at_divergence(open_trajectory(Path(run)))
    except TrajcheckError as error:
        raise InvalidReferenceError(f"reference {spec!r}: {error}") from error
    _same_model(spec, {name: shape for name, shape in other.shapes.items()}, trajectory, allowed=())
    foreign = _point(spec, point, other, workspace)
    if foreign is None:
        raise InvalidReferenceError(f"reference {spec!r}: {point!r} is not a point of a run. Possible are: {KINDS}.")
    # The run's own path spelt out, or a copy of the run: its iterates depend on the samples as the run's own do.
    if other.id == trajectory.id and _is_of(trajectory, other, max(foreign.own_steps)):
        return foreign
    if workspace is None:  # nothing is read for those who ask what an analysis would cost
        return replace(foreign, own_steps=(), dependence=UNKNOWN)
    own_steps, dependence = of_run(foreign.parameters, foreign.own_steps, other, trajectory)
    return replace(foreign, own_steps=own_steps, dependence=dependence)


def _is_run(path: str) -> bool:
    try:
        return _may_be_run(path) and recognise(Path(path)) is not None
    except OSError:
        return False


def _may_be_run(path: str) -> bool:
    """Whether there is a folder, or a tar or zip file."""
    if not is_remote(path) and os.path.isdir(path):
        return True
    from trajcheck.files.trees.opening import open_tree  # what reads packed files, and what lies elsewhere

    try:
        return open_tree(Path(path)) is not None
    except (OSError, ValueError):  # nothing there, or no path at all: too long
        return False
    except RunError:  # a damaged one, which opening it says
        return True


def _is_of(trajectory: Trajectory, other: Trajectory, step: int) -> bool:
    """Whether a run went through the same iterate as another at some step."""
    here, there = trajectory.index(step), other.index(step)
    if here is None or there is None:
        return False
    with ExtentReader() as reader:
        one, another = trajectory.snapshots[here].parameters, other.snapshots[there].parameters
        return equal_points(reader, one, another, trajectory.shapes)


def _point(spec: str, point: str, trajectory: Trajectory, workspace: Workspace | None) -> Reference | None:
    """A point of one run by its name; None when the words are not those of such a point."""
    kind, _, number = point.partition(":")
    snapshots = trajectory.snapshots
    if point == "final":
        return _iterate(spec, snapshots[-1], trajectory)
    if point == "init":
        if (first := snapshots[0].step) > 0:
            raise InvalidReferenceError(
                f"reference {spec!r}: {trajectory.path} does not hold x_0: its first record is step {first}. "
                f"{spec.removesuffix('init')}step:{first} means that one; weights that training began from can be "
                "given as a file."
            )
        return _iterate(spec, snapshots[0], trajectory)
    if point == "best":
        scored = [snapshot for snapshot in snapshots if snapshot.loss is not None and np.isfinite(snapshot.loss)]
        if not scored:
            raise InvalidReferenceError(
                f"reference {spec!r}: no step of {trajectory.path} has a recorded loss, so none is the best. "
                "Use final, init or step:N."
            )
        return _iterate(spec, min(scored, key=lambda snapshot: (snapshot.loss, snapshot.step)), trajectory)
    if kind not in ("step", "mean"):
        return None
    if not number.isascii() or not number.isdigit():
        raise InvalidReferenceError(f"reference {spec!r}: expected a number after {kind!r}:, as in {kind}:100.")
    if len(number) > MOST_DIGITS:
        raise InvalidReferenceError(f"reference {kind}:{number:.9}...: a number of {len(number):,} digits is none.")
    return (_at_step if kind == "step" else partial(_mean, workspace=workspace))(spec, int(number), trajectory)


def _around(spec: str, snapshot: Snapshot) -> dict[str, Mapping[str, Extent]]:
    """The frozen parameters and buffers with which an iterate is evaluated."""
    if snapshot.unsure:
        raise InvalidReferenceError(f"reference {spec!r}, step {snapshot.step}: {snapshot.unsure}.")
    return {"frozen": snapshot.frozen, "buffers": snapshot.buffers}


def _iterate(spec: str, snapshot: Snapshot, trajectory: Trajectory) -> Reference:
    around = _around(spec, snapshot)
    files = files_of(snapshot.parameters, *around.values())
    key = f"{trajectory.id}/step:{snapshot.step}"
    steps = (snapshot.step,)
    return Reference(spec, key, snapshot.parameters, steps, files, **around, dependence=of_steps(steps))


def files_of(*tables: Mapping[str, Extent]) -> tuple[str, ...]:
    """The files in which tensors lie."""
    extents = (extent for tensors in tables for extent in tensors.values())
    paths = (part.path for extent in extents for part in (extent.parts or (extent.undivided,)))
    return tuple(dict.fromkeys(paths))


def _at_step(spec: str, step: int, trajectory: Trajectory) -> Reference:
    place = trajectory.index(step)
    if place is not None:
        return _iterate(spec, trajectory.snapshots[place], trajectory)
    steps = np.array(trajectory.steps)
    nearest = sorted(sorted(steps.tolist(), key=lambda each: abs(each - step))[:4])
    raise InvalidReferenceError(
        f"reference {spec!r}: step {step} is not among the {len(steps)} recorded steps of {trajectory.path} "
        f"({steps[0]} to {steps[-1]}). The nearest are {', '.join(map(str, nearest))}."
    )


def _mean(spec: str, count: int, trajectory: Trajectory, workspace: Workspace | None) -> Reference:
    """The average of the last `count` recorded iterates, in float64, rounded once to the run's own precision.

    Rounded, because x* must be one point: the one at which losses are replayed and from which distances are taken.
    """
    if not 1 <= count <= len(trajectory.snapshots):
        raise InvalidReferenceError(
            f"reference {spec!r}: {trajectory.path} has {len(trajectory.snapshots)} recorded iterates; "
            f"give a number from 1 to {len(trajectory.snapshots)}."
        )
    chosen = trajectory.snapshots[-count:]
    wide = any(extent.dtype == "F64" for snapshot in chosen for extent in snapshot.parameters.values())
    dtype = np.dtype("<f8") if wide else np.dtype("<f4")
    key = f"{trajectory.id}/mean:{','.join(str(snapshot.step) for snapshot in chosen)}"
    own_steps = tuple(snapshot.step for snapshot in chosen)
    around = _around(spec, chosen[-1])  # statistics are no average of statistics
    files = tuple(dict.fromkeys(path for snapshot in chosen for path in files_of(snapshot.parameters)))
    read = tuple(dict.fromkeys([*files, *files_of(*around.values())]))
    if workspace is None:
        return Reference(spec, key, chosen[-1].parameters, own_steps, read, **around, dependence=of_steps(own_steps))
    with ExtentReader() as reader:

        def average(name: str, start: int, stop: int) -> np.ndarray:
            total, part = np.zeros(stop - start), np.empty(stop - start)
            for snapshot in chosen:
                reader.widen(snapshot.parameters[name], start, part)
                total += part
            return (total / count).astype(dtype)

        parameters = kept_vector(workspace, "mean", key, files, trajectory.shapes, dtype, average)
    return Reference(spec, key, parameters, own_steps, read, **around, dependence=of_steps(own_steps))


def _from_file(spec: str, trajectory: Trajectory, workspace: Workspace | None) -> Reference:
    try:
        weights, match = _of_this_model(spec, read_weights(spec), trajectory)
    except StepFileError as error:
        raise InvalidReferenceError(f"reference {spec!r}: {error}") from error
    for name, there in match.names.items():
        if weights.dtype(there) not in FLOATING:
            raise InvalidReferenceError(
                f"reference {spec!r}: tensor {name!r} has dtype {weights.dtype(there)}; expected one of "
                f"{', '.join(FLOATING)}."
            )
    key = weights.key
    extents = weights.extents
    wanted = {*match.names.values(), *match.besides.values()}
    others = {name: tensor for name, tensor in weights.others.items() if name in wanted and tensor.code in ITEM_SIZE}
    if others and workspace is None:  # for those who ask only what an analysis would cost
        return Reference(spec, key, trajectory.snapshots[-1].parameters, (), weights.files)
    if workspace is not None and others:
        extents = {**extents, **_in_order(workspace, origin_of(workspace, key, weights.files), others)}
    parameters = {name: extents[match.names[name]] for name in trajectory.shapes}
    own_step, dependence = ((), UNKNOWN) if workspace is None else of_point(parameters, trajectory)
    last = trajectory.snapshots[-1]
    frozen, buffers = (
        {
            name: extents[match.besides[name]]
            for name, extent in known.items()
            if _held(weights, match, name, extent) and match.besides[name] in extents
        }
        for known in (last.frozen, last.buffers)
    )
    return Reference(spec, key, parameters, own_step, weights.files, frozen, buffers, dependence)


def _in_order(workspace: Workspace, origin: str, tensors: Mapping[str, StoredTensor]) -> Mapping[str, Extent]:
    """Tensors that lie in another order than by rows, in a file that the passes can read."""
    table = {name: (tensor.code, tensor.shape) for name, tensor in tensors.items()}
    with ExtentReader() as reader:

        def piece(name: str, start: int, stop: int) -> bytes:
            return tensors[name].in_order(reader, start, stop)

        def blocks() -> Iterator[bytes]:
            yield header_block(table, {"origin": origin})
            for name, tensor in tensors.items():
                yield piece(name, 0, tensor.numel)

        kept = kept_file(workspace, "weights", origin, blocks, piece)
    return kept.extents({name: name for name in tensors})


def _held(weights: Weights, match: Matched, name: str, known: Extent) -> bool:
    """Whether a file holds a frozen parameter or a buffer of the run, of its shape."""
    return name in match.besides and weights.shapes[match.besides[name]] == known.shape


def _of_this_model(spec: str, found: Sequence[Weights], trajectory: Trajectory) -> tuple[Weights, Matched]:
    """Those of the weights that are this model's, and how their names match. Raises InvalidReferenceError."""
    first, info = trajectory.snapshots[0], trajectory.info
    besides = {each.partition(" ")[2] for each in info.not_stored}
    allowed = {*first.frozen, *first.buffers, *info.unrecorded, *besides, "n_averaged"}
    matched = [(each, match_weights(trajectory.shapes, info.tied, allowed, each.shapes)) for each in found]
    fitting = [
        (each, match)
        for each, match in matched
        if match.whole and all(each.shapes[there] == trajectory.shapes[name] for name, there in match.names.items())
    ]
    if len(fitting) > 1:
        places = " and ".join(repr(each.place) for each, _ in fitting)
        raise InvalidReferenceError(
            f"reference {spec!r}: holds weights of this model under {places}. Save the one that is meant by itself."
        )
    if fitting:
        return fitting[0]
    weights, match = max(matched, key=lambda each: len(each[1].names))
    if match.double:
        one, other = match.double[0]
        raise InvalidReferenceError(
            f"reference {spec!r}: {one!r} and {other!r} are one parameter once what wrappers put into names is "
            "removed; which is meant cannot be told."
        )
    found_shapes = {name: weights.shapes[there] for name, there in match.names.items()}
    found_shapes |= {name: weights.shapes[name] for name in match.extra}
    _same_model(spec, found_shapes, trajectory, allowed=())
    raise AssertionError("what does not fit was not told")


def _same_model(spec: str, found: Shapes, trajectory: Trajectory, allowed: set[str] | tuple[()]) -> None:
    expected = trajectory.shapes
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected and name not in allowed]
    other = [
        f"{name} {list(found[name])} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    if missing or extra or other:
        parts = [
            f"{what}: {', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}"
            for what, names in (("it lacks", missing), ("it has besides", extra), ("of another shape", other))
            if names
        ]
        raise InvalidReferenceError(
            f"reference {spec!r} is of another model than {trajectory.path}; {'; '.join(parts)}. "
            "A reference needs the same parameters, of the same shapes."
        )
